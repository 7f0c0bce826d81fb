"""Configuration of calibrated Q-learning."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.learners.cql.config import CqlConfig

__all__ = ["CalQlConfig"]


@dataclass(frozen=True, kw_only=True)
class CalQlConfig(CqlConfig):
    """Conservative Q-learning whose conservative term pushes Q of the policy's actions no lower than the return that
    was observed from the state on: Q keeps the scale of returns. All else, options included, is CQL's.
    """
