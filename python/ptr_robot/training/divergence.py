"""Training that runs away: how it is noticed, and what to change, by what was seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import list_checkpoints
from ptr_fast.config import LearnerConfig, RewardConfig
from ptr_fast.json_files import parse_json
from ptr_fast.learners.base import scheduled_lr
from ptr_fast.learners.divergence import Divergence, Remedy, of_broken_numbers, of_rewards, value_limits
from ptr_fast.learners.registry import kind_of, traits_of

__all__ = ["Divergence", "Remedy", "last_sound_checkpoint", "remedies"]


def remedies(
    found: Divergence,
    numbers: Mapping[str, float],
    step: int,
    rewards: RewardConfig,
    config: LearnerConfig,
    action_dim: int,
    precision: str,
) -> list[Remedy]:
    """What to change, the most likely first; what the learner's own folder advises, where it does.

    Args:
        found: what the alarm saw.
        numbers: of the update after which it rang.
        step: updates done then.
        rewards, config, action_dim, precision: of the run.
    """
    rate = float(scheduled_lr(1.0, config.lr_schedule, config.lr_schedule_steps, step))
    if found.kind == "not_finite" and found.name.startswith("data/"):
        return [
            Remedy(
                seen=f"{found.name} comes from the data, not from the nets", action="look at it with ptr-fast doctor"
            )
        ]
    own, discount = kind_of(config).remedies, traits_of(config).discount
    if own is not None:
        found_remedies = list(own(found, numbers, rate, rewards, config, action_dim))
    else:
        others = [] if discount is None else of_rewards(numbers, rewards, discount)
        found_remedies = [of_broken_numbers(found, rate, config), *others]
    if found.kind == "not_finite" and precision == "bf16":
        found_remedies.insert(1, Remedy(seen="the encoders compute in bfloat16", settings=(("precision", "fp32"),)))
    return found_remedies


def last_sound_checkpoint(run: Path, rewards: RewardConfig, config: LearnerConfig) -> Path | None:
    """The newest checkpoint from before Q of the data left the range of possible returns for good, by the run's log.

    It leaves long before the alarm rings, so the newest checkpoint of all is often no place to begin at. The row of
    step n was computed with the weights from before update n, so only a later row vouches for checkpoint n. None:
    there is none so early, or the run keeps no log.
    """
    limits, name = value_limits(rewards, config), traits_of(config).value_of_data
    sound = 0
    for row in _log(run / "metrics.jsonl"):
        is_sound = all(isinstance(value, int | float) and math.isfinite(value) for value in row.values())
        if limits is not None and name:
            is_sound = is_sound and limits[0] <= row.get(name, math.nan) <= limits[1]
        sound = row["step"] if is_sound else sound
    found = [path for path in list_checkpoints(run) if int(path.name) < sound]
    return found[-1] if found else None


def _log(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield parse_json(line)
        except ValueError:
            return  # cut short by a kill
