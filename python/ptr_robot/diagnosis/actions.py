"""Checks of numbers: finite, inside their bounds, and moving the arm the way they say."""

from __future__ import annotations

import numpy as np

from ptr_robot.diagnosis.evidence import Evidence, known_correlation
from ptr_robot.diagnosis.finding import Finding, Level, named, percent
from ptr_robot.diagnosis.meaning import is_known

__all__ = [
    "absolute_actions",
    "achieved_motion",
    "action_bounds",
    "constant_dimensions",
    "finite_numbers",
    "motion_gains",
]

CLIPPED_WARNING, CLIPPED_ERROR = 0.01, 0.2
"""Share of steps outside the bounds: one in a hundred costs accuracy; one in five are another robot's bounds."""
TIGHT_SHARE = 0.05
"""Share of the bounds that the middle 98 % of the data should at least fill; below it all actions look like zero."""
WEAK_CORRELATION = 0.3
"""The real Bridge sample lies at 0.72 to 0.93 in every dimension."""
GAIN_RANGE = (0.2, 5.0)
"""Motion per commanded unit, same units: the real Bridge sample lies at 0.7 to 0.95; millimetres for metres is 1000."""
MIN_STEPS = 100
"""Below this many steps a correlation of 0.3 may be chance."""
LAGS = range(-3, 4)


def finite_numbers(evidence: Evidence) -> list[Finding]:
    """NaN or infinity in states or actions."""
    findings = []
    for field, values in (("action", evidence.actions), ("state", evidence.states)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            episodes = np.unique(evidence.step_episode[bad])
            findings.append(
                Finding(
                    level="error",
                    seen=f"{field}: {int(bad.sum())} of {len(bad)} steps are not finite, in {len(episodes)} episodes",
                    why="one such number turns every weight of the network into NaN",
                    advice="leave these episodes out, or mend their source",
                    episodes=named(evidence.episodes.episode_id, episodes),
                    numbers={"field": field, "bad": int(bad.sum()), "steps": len(bad)},
                )
            )
    return findings


def constant_dimensions(evidence: Evidence) -> list[Finding]:
    """Action dimensions that never change (the gripper has a check of its own), and states that never change at all."""
    findings = []
    spec = evidence.meta.action
    dead = [i for i in np.flatnonzero(evidence.constant_actions) if i != evidence.grippers[0]]
    if dead and len(evidence.actions) > 1:
        values = ", ".join(f"{spec.names[i]} = {evidence.actions[0, i]:.4g} {spec.units[i]}" for i in dead)
        findings.append(
            Finding(
                level="warning",
                seen=f"action: {len(dead)} of {spec.dim} dimensions never change: {values}",
                why="the policy learns to hold this value always, and mixed with data in which the dimension moves it "
                "tells the two apart by the picture",
                advice="fine if the robot cannot move this way; otherwise the recording lost this dimension",
                numbers={"dimensions": [spec.names[i] for i in dead]},
            )
        )
    if len(evidence.states) > 1 and bool((np.ptp(evidence.states, axis=0) <= 1e-9).all()):
        findings.append(
            Finding(
                level="warning",
                seen="state: no dimension ever changes",
                why="the policy does not know where the arm is",
                advice="check which field of the source the state comes from",
                numbers={"dimensions": list(evidence.meta.state.names)},
            )
        )
    return findings


def action_bounds(evidence: Evidence) -> list[Finding]:
    """Actions outside the bounds (they are clipped), and bounds far wider than the actions."""
    spec, actions = evidence.meta.action, evidence.actions
    if spec.bounds_source == "unfinished":
        return [
            Finding(
                level="error",
                seen="the bounds are placeholders: the conversion did not come to its end",
                why="actions scaled by them mean nothing",
                advice="run the same convert command again; it goes on where it stopped",
            )
        ]
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    slack = 1e-4 * (high - low)
    outside = (actions < low - slack) | (actions > high + slack)
    share = outside.mean(axis=0)
    findings = []
    if share.max() > 0:
        worst = [i for i in np.argsort(-share) if share[i] > 0]
        words = ", ".join(
            f"{spec.names[i]} {percent(share[i])} (data {actions[:, i].min():.3g} to {actions[:, i].max():.3g}, "
            f"bounds {low[i]:.3g} to {high[i]:.3g}{f' {spec.units[i]}' if is_known(spec.units[i]) else ''})"
            for i in worst
        )
        # Bounds from the data are its 1st and 99th percentile: they clip about 2 % by intention.
        allowed = CLIPPED_WARNING * (3 if spec.bounds_source == "data" else 1)
        level: Level = "error" if share.max() > CLIPPED_ERROR else "warning" if share.max() > allowed else "note"
        findings.append(
            Finding(
                level=level,
                seen=f"actions outside the bounds ({spec.bounds_source}), clipped when loaded: {words}",
                why="a clipped action is not the one that moved the arm: fast motions are learned too slow",
                advice="so few are outliers, and harmless"
                if level == "note"
                else "these bounds belong to another robot or unit: convert with --bounds data",
                episodes=named(evidence.episodes.episode_id, np.unique(evidence.step_episode[outside.any(axis=1)])),
                numbers={"clipped_share": dict(zip(spec.names, share.round(6).tolist(), strict=True))},
            )
        )
    lower, upper = np.nanquantile(actions, [0.01, 0.99], axis=0)
    filled = (upper - lower) / (high - low)
    loose = [
        i for i in np.flatnonzero((filled < TIGHT_SHARE) & ~evidence.constant_actions) if i != evidence.grippers[0]
    ]
    if loose and len(actions) >= MIN_STEPS:
        words = ", ".join(f"{spec.names[i]} {percent(filled[i])}" for i in loose)
        findings.append(
            Finding(
                level="warning",
                seen=f"98 % of the actions fill only a small part of the bounds ({spec.bounds_source}): {words}",
                why="scaled to [-1, 1] these actions are all nearly zero, and CQL's random actions never come near",
                advice="the unit is not the bounds', or the bounds are far too wide: convert with --bounds data",
                numbers={"filled_share": {spec.names[i]: float(filled[i]) for i in loose}},
            )
        )
    return findings


def absolute_actions(evidence: Evidence) -> list[Finding]:
    """Actions that look like target positions where changes are expected."""
    if len(evidence.actions) < MIN_STEPS or not evidence.actions_look_absolute:
        return []
    return [
        Finding(
            level="warning",
            seen="in most dimensions the action follows the next state itself, not the change of the state",
            why="these are target positions, not changes: mixed with data of changes, or sent to a robot that adds "
            "them, they drive the arm to its limits",
            advice="subtract the state from the action before converting, or keep this store apart",
        )
    ]


def achieved_motion(evidence: Evidence) -> list[Finding]:
    """Commands that the arm does not follow: at all, the wrong way, by the wrong amount; else a note of the gains."""
    gains = {} if evidence.actions_look_absolute else motion_gains(evidence)
    if not gains:
        return []
    action, state = evidence.meta.action, evidence.meta.state
    weak, inverted, wrong = [], [], []
    for (i, j), (fit, gain) in gains.items():
        name = f"{action.names[i]} (correlation {fit:.2f})"
        if fit < -WEAK_CORRELATION:
            inverted.append(name)
        elif fit < WEAK_CORRELATION:
            weak.append(name)
        elif (
            action.units[i] == state.units[j]
            and is_known(action.units[i])
            and not GAIN_RANGE[0] <= gain <= GAIN_RANGE[1]
        ):
            wrong.append(f"{action.names[i]} moves {gain:.3g} {state.units[j]} per commanded {action.units[i]}")
    numbers = {
        action.names[i]: {"state": state.names[j], "correlation": round(fit, 4), "gain": round(gain, 6)}
        for (i, j), (fit, gain) in gains.items()
    }
    faults = (
        (
            inverted,
            "the arm moves against the command: ",
            "a sign is swapped, in the action or in the state",
            "flip it",
        ),
        (
            weak,
            "the arm does not follow the command: ",
            "the policy learns commands that do nothing here, or the state is not the arm's",
            "check the order of the dimensions, relabel actions with the achieved motion, or use blocking control",
        ),
        (
            wrong,
            "the arm moves by another amount than commanded: ",
            "units differ (mm for m, degrees for radians), or a step is not the change of one control period",
            "mend the unit, or relabel actions with the achieved motion",
        ),
    )
    if not any(names for names, *_ in faults):
        words = ", ".join(f"{action.names[i]} {gain:.2g} ({fit:.2f})" for (i, _), (fit, gain) in gains.items())
        return [
            Finding(
                level="note",
                seen=f"the arm follows its commands; achieved motion per commanded unit (correlation): {words}",
                why="a gain below 1 is the controller falling short of its command",
                advice="the robot that the policy will act on should answer alike",
                numbers=numbers,
            )
        ]
    return [
        Finding(
            level="warning",
            seen=what + ", ".join(names),
            why=why,
            advice=f"{advice} before converting",
            numbers=numbers,
        )
        for names, what, why, advice in faults
        if names
    ]


def motion_gains(evidence: Evidence) -> dict[tuple[int, int], tuple[float, float]]:
    """(correlation, gain) of the state's change on the action, by (action, state) dimension.

    The gain is state units per action unit, by least squares. The lag that fits best counts: a shift in time is
    ``action_lag``'s finding.
    """
    gains, rows = {}, evidence.studied
    actions, deltas, episode = evidence.actions[rows], evidence.state_deltas[rows], evidence.step_episode[rows]
    count = len(rows)
    for i, j in evidence.pairs:
        tried = []
        for lag in LAGS:
            before, after = slice(max(0, -lag), min(count, count - lag)), slice(max(0, lag), min(count, count + lag))
            cause, effect = actions[before, i], deltas[after, j]
            known = episode[before] == episode[after]
            known &= np.isfinite(cause) & np.isfinite(effect)
            if known.sum() >= MIN_STEPS:
                fit = known_correlation(cause[known], effect[known])
                tried.append((fit, fit * float(np.std(effect[known])) / max(float(np.std(cause[known])), 1e-12)))
        if tried:
            gains[i, j] = max(tried, key=lambda pair: abs(pair[0]))
    return gains
