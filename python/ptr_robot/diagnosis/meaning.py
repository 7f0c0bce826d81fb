"""Checks of what is known of a store's numbers: names, units, the gripper's sign."""

from __future__ import annotations

from ptr_robot.datasets.grippers import read_unit
from ptr_robot.datasets.spaces import UNKNOWN
from ptr_robot.diagnosis.evidence import Evidence
from ptr_robot.diagnosis.finding import Finding

__all__ = ["is_known", "unknown_numbers"]


def is_known(unit: str) -> bool:
    """Whether a unit says anything."""
    return unit not in ("", UNKNOWN)


def unknown_numbers(evidence: Evidence) -> list[Finding]:
    """Actions or states whose unit nobody stated, and a gripper of which nobody said which way it opens."""
    missing = {}
    for field, spec in (("action", evidence.meta.action), ("state", evidence.meta.state)):
        names = [name for name, unit in zip(spec.names, spec.units, strict=True) if not is_known(unit)]
        if names:
            missing[field] = names
    words = [f"the unit of {field} {', '.join(names)}" for field, names in missing.items()]
    place = evidence.grippers[0]
    if place is not None and read_unit(evidence.meta.action.units[place]) == (None, None):
        words.append("which way the gripper opens")
    if not words:
        return []
    return [
        Finding(
            level="note",
            seen=f"not known: {'; '.join(words)}",
            why="training does not need it; a robot, and mixing with other data, does: nothing is assumed there",
            advice="convert again with --layout, or --action-names, --action-units, --gripper closed=1",
            numbers={"without_unit": missing},
        )
    ]
