"""The demonstrations of a new task beside the other data of a run: one rule for fine-tuning and for joint training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ptr_fast.config import PolicySpec
from ptr_robot.training.config import TargetChoice
from ptr_robot.training.episode_choice import select_target
from ptr_robot.training.matching import check_matches, with_camera_names, with_tasks
from ptr_robot.training.sources import Source
from ptr_robot.training.trained_on import held_out_only

__all__ = ["chosen_demonstrations", "with_demonstrations"]


def chosen_demonstrations(choice: TargetChoice, seed: int) -> tuple[Source, str]:
    """The source of the demonstrations, and the task's name; see :func:`select_target` for what it raises."""
    assert choice.target is not None
    return select_target(
        *(choice.target, choice.task, choice.domains, choice.num_demos, seed),
        outcomes=choice.outcomes,
        kinds=choice.kinds,
    )


def with_demonstrations(
    others: Sequence[Source],
    target: Source,
    task: str,
    spec: PolicySpec,
    camera_map: Sequence[str] = (),
    ancestors: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Source], PolicySpec]:
    """The sources of a run that trains on demonstrations as well, and the policy's spec with a slot for their task.

    Args:
        others: the other data, in the order of sampling; the target comes behind them.
        target, task: of :func:`chosen_demonstrations`.
        spec: of the policy without the task; a task that it lacks takes its next spare slot.
        camera_map: ``STORE=POLICY``, of the target's cameras.
        ancestors: of the run's weights, as in the record: what they trained on is no held-out data.

    Raises:
        ValueError: the stores do not fit the policy, or it has no slot left.
    """
    target = replace(target, store=with_camera_names(target.store, spec, camera_map))
    sources = held_out_only([*others, target], ancestors)
    spec = with_tasks(spec, [task])
    for source in sources:
        check_matches(source.store, spec, with_bounds=source.role == "target")
    return sources, spec
