"""Checks of the gripper: it moves, the state follows it, and 1 means open, unless the unit says that 1 means closed."""

from __future__ import annotations

import numpy as np

from ptr_robot.datasets.grippers import read_unit
from ptr_robot.diagnosis.evidence import Evidence, known_correlation
from ptr_robot.diagnosis.finding import Finding, percent

__all__ = ["gripper_motion", "gripper_sign"]

FOLLOW_STEPS = 2
"""A gripper takes about this many steps at 5 Hz to close."""
INVERTED = -0.3
STARTS_CLOSED = 0.8
"""Share of episodes that begin closed and open later from which "1 = open" looks inverted: hands begin open."""
MIN_STEPS = 50


def gripper_motion(evidence: Evidence) -> list[Finding]:
    """A gripper command that never changes."""
    dim = evidence.grippers[0]
    if dim is None or len(evidence.actions) < 2 or not evidence.constant_actions[dim]:
        return []
    spec = evidence.meta.action
    return [
        Finding(
            level="warning",
            seen=f"action {spec.names[dim]} is {evidence.actions[0, dim]:.3g} {spec.units[dim]} in all "
            f"{len(evidence.actions)} steps",
            why="the policy never learns to grasp or to let go",
            advice="fine for pushing tasks; otherwise the recording lost the gripper",
            numbers={"value": float(evidence.actions[0, dim])},
        )
    ]


def gripper_sign(evidence: Evidence) -> list[Finding]:
    """A gripper whose state runs against its command, or for which 1 seems to mean closed."""
    action_dim, state_dim = evidence.grippers
    if action_dim is None or len(evidence.actions) < MIN_STEPS or evidence.constant_actions[action_dim]:
        return []
    action = evidence.actions[:, action_dim]
    findings = []
    if state_dim is not None and len(evidence.states) > FOLLOW_STEPS:
        state = evidence.states[:, state_dim]
        same = evidence.step_episode[FOLLOW_STEPS:] == evidence.step_episode[:-FOLLOW_STEPS]
        fit = known_correlation(action[:-FOLLOW_STEPS][same], state[FOLLOW_STEPS:][same])
        declared = _closes_upwards(evidence.meta.action.units[action_dim])
        fit *= -1.0 if declared != _closes_upwards(evidence.meta.state.units[state_dim]) else 1.0
        if fit < INVERTED:
            findings.append(
                Finding(
                    level="warning",
                    seen=f"the gripper's state runs against its command (correlation {fit:.2f} after {FOLLOW_STEPS} "
                    "steps)",
                    why="one of the two is inverted; mixed with other data the hand opens where it should close",
                    advice="the convention is 1 = open for both: convert with --flip-gripper, which mirrors the "
                    "actions, or say the state's sign in --state-units",
                    numbers={"correlation": fit},
                )
            )
    middle = (evidence.meta.action.low[action_dim] + evidence.meta.action.high[action_dim]) / 2
    is_open = (action > middle) != _closes_upwards(evidence.meta.action.units[action_dim])
    first_open = is_open[evidence.step_start]
    opens = np.bincount(evidence.step_episode, is_open, minlength=len(evidence.lengths)) > 0
    closes = np.bincount(evidence.step_episode, ~is_open, minlength=len(evidence.lengths)) > 0
    works = opens & closes
    share = float((~first_open[works]).mean()) if works.any() else 0.0
    if works.sum() >= 5 and share >= STARTS_CLOSED and not findings:
        findings.append(
            Finding(
                level="warning",
                seen=f"{percent(share)} of the {int(works.sum())} episodes that use the gripper begin below the middle "
                "of its range and rise above it later",
                why="the convention is 1 = open, and tasks begin with an open hand: here 1 seems to mean closed; "
                "mixed with other data the hand opens where it should close",
                advice="look at the frames (ptr-fast inspect); if 1 means closed, convert with --gripper closed=1, "
                "and with --flip-gripper to mix it with data where 1 is open",
                numbers={"starts_closed_share": share, "episodes": int(works.sum())},
            )
        )
    return findings


def _closes_upwards(unit: str) -> bool:
    """The unit says that the larger value means closed: ``1 = closed, 0 = open``, ``-1 opens, +1 closes``."""
    is_open, is_closed = read_unit(unit)
    if is_open is None or is_closed is None:
        return (is_closed or 0.0) > 0.0 or (is_open is not None and is_open < 0.0)
    return is_closed > is_open
