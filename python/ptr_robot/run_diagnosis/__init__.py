"""Checks of training runs: one function per check, each from evidence to findings, in order of weight.

``RUN_CHECKS`` look at one run, ``JOINT_CHECKS`` at several. What they find has the form of a check of data
(:mod:`ptr_robot.diagnosis`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ptr_robot.diagnosis import signed
from ptr_robot.diagnosis.finding import Finding
from ptr_robot.run_diagnosis import acting, fitting, several, values
from ptr_robot.run_diagnosis.evidence import RunEvidence, gather

__all__ = ["JOINT_CHECKS", "RUN_CHECKS", "RunEvidence", "examine", "examine_together", "gather"]

RUN_CHECKS: tuple[Callable[[RunEvidence], list[Finding]], ...] = (
    values.broken_numbers,
    values.value_range,
    values.end_reached_start,
    values.foreign_actions,
    values.targets_pulled_down,
    values.discount_and_length,
    values.conservative_term,
    fitting.rate_at_zero,
    acting.temperature,
    acting.actor_behind,
    acting.search_behind,
    acting.unknown_task,
    acting.actions_at_bounds,
    fitting.overfit,
    fitting.unlearned,
    fitting.underfit,
    acting.use_cloning,
    fitting.measured,
)
JOINT_CHECKS: tuple[Callable[[Sequence[RunEvidence]], list[Finding]], ...] = (
    several.actor_behind_clone,
    several.seeds_disagree,
)


def examine(evidence: RunEvidence) -> list[Finding]:
    """All checks of one run, worst findings first."""
    return signed(RUN_CHECKS, evidence, evidence.path)


def examine_together(runs: Sequence[RunEvidence]) -> list[Finding]:
    """All checks of several runs; none for a single one."""
    return signed(JOINT_CHECKS, runs, ", ".join(run.path for run in runs)) if len(runs) > 1 else []
