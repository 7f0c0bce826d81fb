"""LeRobot's steps before and after the policy. Nothing is normalised by them: that is the policy's own affair."""

from __future__ import annotations

from typing import Any

from lerobot.processor import make_default_pre_post_processors

__all__ = ["make_ptr_pre_post_processors"]


def make_ptr_pre_post_processors(config: Any, dataset_stats: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """LeRobot's default pipelines, whose normalisation is the identity for every feature of a PTRConfig."""
    return make_default_pre_post_processors(config, dataset_stats, normalizer_device=config.device)
