"""Options of the programs that look at held-out demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

__all__ = ["EvaluationOptions"]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Which episodes, and where the nets run.

    Attributes:
        store: Store to evaluate on. Default: the episodes that the run held out. Or OLD=NEW for a store of the run's
            that has moved; repeat for several.
        camera_map: STORE=CHECKPOINT for every camera of that other store whose name in the checkpoint is another.
        task: Only episodes of this task (exact name). Default: all.
        max_episodes: At most this many episodes, a seeded choice spread over tasks and outcomes; 0 takes all.
        seed: Seed of that choice and of the sampled actions.
        fitted: Also fit, to episodes that the run trained on, the Q function of the policy and a classifier of success.
        device: Where the nets run; auto takes a GPU where there is one.
    """

    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    camera_map: tuple[str, ...] = ()
    task: str = ""
    max_episodes: int = 20
    seed: int = 0
    fitted: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if self.max_episodes < 0:
            raise ValueError(f"max_episodes must not be negative, got {self.max_episodes}")
