"""Checks of recorded robot data: one function per check, each from evidence to findings.

``STORE_CHECKS`` look at one store, ``JOINT_CHECKS`` at several that are to be used together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ptr_robot.diagnosis import actions, cameras, duplicates, episodes, gripper, meaning, motion, tasks
from ptr_robot.diagnosis.evidence import Evidence
from ptr_robot.diagnosis.finding import LEVELS, Finding
from ptr_robot.diagnosis.sample import sample_cameras

__all__ = [
    "JOINT_CHECKS",
    "STORE_CHECKS",
    "Evidence",
    "Finding",
    "examine",
    "examine_together",
    "sample_cameras",
    "signed",
]

STORE_CHECKS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    episodes.damaged_files,
    episodes.record_counts,
    actions.finite_numbers,
    meaning.unknown_numbers,
    cameras.broken_frames,
    cameras.black_camera,
    cameras.constant_camera,
    cameras.exposure,
    cameras.frozen_frames,
    motion.static_start,
    motion.idle_start,
    motion.image_lag,
    motion.action_lag,
    actions.constant_dimensions,
    actions.action_bounds,
    actions.absolute_actions,
    actions.achieved_motion,
    gripper.gripper_motion,
    gripper.gripper_sign,
    episodes.short_episodes,
    episodes.cut_episodes,
    episodes.terminal_flags,
    episodes.source_rewards,
    episodes.outcomes,
    episodes.value_reach,
    duplicates.duplicate_episodes,
    tasks.task_names,
    tasks.task_count,
)
JOINT_CHECKS: tuple[Callable[[Sequence[Evidence]], list[Finding]], ...] = (
    duplicates.shared_episodes,
    duplicates.mismatched_stores,
)


def examine(evidence: Evidence) -> list[Finding]:
    """All checks of one store, worst findings first."""
    return signed(STORE_CHECKS, evidence, evidence.path)


def examine_together(stores: Sequence[Evidence]) -> list[Finding]:
    """All checks of stores that are to be used together; none for a single store."""
    if len(stores) < 2:
        return []
    return signed(JOINT_CHECKS, stores, ", ".join(evidence.path for evidence in stores))


def signed(checks: Sequence[Callable], material: Any, store: str) -> list[Finding]:
    """The findings of all checks with the names of check and store put in, worst first; else in the order of checks."""
    findings = [
        replace(finding, check=finding.check or check.__name__, store=finding.store or store)
        for check in checks
        for finding in check(material)
    ]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
