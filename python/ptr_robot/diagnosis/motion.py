"""Checks of time: does the picture, and does the state, show a command when it happens, or steps later?

A lag of k means: what is seen at step t is what was commanded at step t - k. Commands are compared with the state's
change dimension by dimension, and with the picture by how much it changes (log of the mean difference of thumbnails).
A lag is reported where lag 0 is clearly worse (``MARGIN``, ``SHARE``) and another lag wins in 95 % of resamples of the
episodes (bootstrap), so that neither noise, nor smooth motion, for which all lags look alike, nor an arm with inertia,
which answers partly a step later, raises an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptr_robot.diagnosis.evidence import Evidence, known_correlation
from ptr_robot.diagnosis.finding import Finding, named, percent
from ptr_robot.diagnosis.sample import CameraSample

__all__ = ["action_lag", "idle_start", "image_lag", "static_start"]

LAGS = tuple(range(-3, 4))
MARGIN = 0.1
"""The real Bridge sample, whose controller needs about half a step, has margins up to 0.08: lag 0 and 1 tie there."""
SHARE = 0.8
"""Lag 0 reaches at most this share of the best correlation: simulated arms with inertia reach 0.88, Bridge 0.97;
the same Bridge sample shifted by one step has 0.65."""
MIN_CORRELATION = 0.2
"""Below this the picture hardly tells about the motion (arm out of view), and no lag can be trusted."""
MIN_EPISODES, MIN_PAIRS = 6, 60
"""Fewer make the bootstrap meaningless."""
NUM_RESAMPLES = 400
CONFIDENCE = 0.95
IDLE_SPEED = 0.05
"""Commanded speed, in units of the store's root mean square, below which nothing is commanded."""
LONG_IDLE = 3
STILL_ENERGY = 0.25
"""A pair of frames is still where its difference lies in the lowest quarter between noise floor and median."""
STATIC_SHARE, STATIC_STEPS = 0.5, 2
"""Static starts are reported where this share of episodes begins with this many still frames under way."""


@dataclass(frozen=True)
class Lag:
    """The lag that fits best, and whether it is certain.

    Attributes:
        best: steps; positive: the effect comes after the command.
        correlation: mean correlation at ``best``; ``at_zero``: at lag 0; ``by_lag``: at every lag.
        confidence: share of bootstrap resamples in which ``best`` wins.
    """

    best: int
    correlation: float
    at_zero: float
    by_lag: dict[int, float]
    confidence: float

    @property
    def is_significant(self) -> bool:
        certain = self.confidence >= CONFIDENCE and self.correlation >= MIN_CORRELATION
        clear = self.correlation - self.at_zero >= MARGIN and self.at_zero <= SHARE * self.correlation
        return self.best != 0 and certain and clear

    def __str__(self) -> str:
        return (
            f"best lag {self.best:+d} (correlation {self.correlation:.2f}, {self.at_zero:.2f} at lag 0, "
            f"{percent(self.confidence)} of resamples agree)"
        )


def image_lag(evidence: Evidence) -> list[Finding]:
    """Pictures that show the motion too late (or too early), against the state and against the actions."""
    findings, measured = [], []
    for camera in evidence.live_cameras:
        against = {"state": evidence.state_speed, "action": evidence.action_speed}
        lags = {name: lag for name, speed in against.items() if (lag := _picture_lag(evidence, camera, speed))}
        if not lags:
            continue
        # Against the state the controller's own delay does not count; without a state that moves, the actions decide.
        lag = lags["state"] if "state" in lags and lags["state"].correlation > 0 else lags["action"]
        if not lag.is_significant:
            words = ", ".join(f"{at.best:+d} to the {name} ({at.correlation:.2f})" for name, at in lags.items())
            measured.append(f"{camera.name} {words}")
            continue
        seen = "; ".join(f"image against {name}: {found}" for name, found in lags.items())
        order = "after" if lag.best > 0 else "before"
        findings.append(
            Finding(
                level="warning",
                seen=f"camera {camera.name}: {seen}",
                why=f"frames are stored {abs(lag.best)} step(s) {order} the states they belong to, so the policy "
                "learns to answer a picture of another moment; on the robot it will be late or early by as much",
                advice=f"shift the frames of this camera by {abs(lag.best)} step(s) against states and actions "
                "before converting, and measure the robot's own camera delay before acting",
                numbers={
                    "camera": camera.name,
                    "against": {name: {"lag": found.best, "by_lag": found.by_lag} for name, found in lags.items()},
                },
            )
        )
    if measured:
        findings.append(
            Finding(
                level="note",
                seen="lag of the picture in steps (correlation): " + "; ".join(measured),
                why="no lag to the state is certain: pictures and states belong together, as far as these frames tell",
            )
        )
    return findings


def action_lag(evidence: Evidence) -> list[Finding]:
    """States that follow the actions late (or come before them)."""
    lag = _state_lag(evidence)
    if lag is None:
        return []
    numbers = {"lag": lag.best, "by_lag": lag.by_lag, "confidence": lag.confidence}
    if not lag.is_significant:
        return [
            Finding(
                level="note",
                seen=f"state change against action: {lag}; at lag +1 {lag.by_lag[1]:.2f}",
                why="the arm answers within the step" if lag.best == 0 else "the arm answers partly after the step",
                numbers=numbers,
            )
        ]
    late = lag.best > 0
    return [
        Finding(
            level="warning",
            seen=f"state change against action: {lag}",
            why="an action is stored beside a change that it did not cause: the Q-value learned is another action's",
            advice=f"the controller takes {lag.best} step(s) to answer: relabel each action with the motion that was "
            "achieved, or shift the actions, before converting"
            if late
            else f"the motion comes {-lag.best} step(s) before its command: the actions are stored too late; shift "
            "them before converting",
            numbers=numbers,
        )
    ]


def idle_start(evidence: Evidence) -> list[Finding]:
    """Episodes that begin with steps in which nothing is commanded."""
    moving = evidence.action_speed > IDLE_SPEED
    if not moving.any():
        return []
    first_move = evidence.lengths.copy()
    rows = np.flatnonzero(moving)[::-1]
    first_move[evidence.step_episode[rows]] = evidence.step_t[rows]
    typical = int(np.median(first_move))
    if typical == 0:
        return []
    idle = np.flatnonzero(first_move >= typical)
    share = percent(len(idle) / len(first_move))
    return [
        Finding(
            level="warning" if typical >= LONG_IDLE else "note",
            seen=f"{share} of the episodes begin with {typical} or more steps in which no motion is commanded",
            why="a policy that copies these steps may stand still at the start and never leave it",
            advice=f"drop these first {typical} step(s) before converting, above all for behaviour cloning",
            numbers={"median_idle_steps": typical},
        )
    ]


def static_start(evidence: Evidence) -> list[Finding]:
    """Episodes whose first frames stand still while the arm is already under way."""
    findings = []
    for camera in evidence.live_cameras:
        still_steps = _still_starts(evidence, camera)
        if len(still_steps) < 3:
            continue
        lag = _picture_lag(evidence, camera, evidence.state_speed)
        # Late pictures begin with as many still frames as they are late: that is image_lag's finding, not another one.
        explained = lag.best if lag is not None and lag.is_significant and lag.best > 0 else 0
        static = [episode for episode, steps in still_steps.items() if steps - explained >= STATIC_STEPS]
        share = len(static) / len(still_steps)
        if share < STATIC_SHARE:
            continue
        typical = int(np.median([still_steps[episode] for episode in static]))
        findings.append(
            Finding(
                level="warning",
                seen=f"camera {camera.name}: {len(static)} of {len(still_steps)} sampled episodes begin with still "
                f"frames while the arm moves (typically {typical} steps)",
                why="the camera was not yet streaming: the first actions are learned from a picture taken before",
                advice=f"drop the first {typical} steps of every episode before converting",
                episodes=named(evidence.episodes.episode_id, static),
                numbers={"camera": camera.name, "share": share, "steps": typical},
            )
        )
    return findings


def _still_starts(evidence: Evidence, camera: CameraSample) -> dict[int, int]:
    """Moving steps before the picture first changes, by sampled episode that was looked at from its start."""
    if len(camera.energy) < 8:
        return {}
    floor, middle = np.percentile(camera.energy, [5, 50])
    threshold = floor + STILL_ENERGY * (middle - floor)
    rows = evidence.step_rows(camera.pair_episode, camera.pair_t)
    starts = {}
    for episode in np.unique(camera.pair_episode[camera.pair_t == 0]):
        mine = (camera.pair_episode == episode) & (rows >= 0)
        still = camera.energy[mine] <= threshold
        lead = len(still) if still.all() else int(np.argmin(still))
        starts[int(episode)] = int(evidence.moving[rows[mine][:lead]].sum())
    return starts


def _picture_lag(evidence: Evidence, camera: CameraSample, speed: np.ndarray) -> Lag | None:
    rows = evidence.step_rows(camera.pair_episode, camera.pair_t)
    usable = rows >= 0
    energy = np.log(camera.energy[usable] + 0.1)
    return _best_lag([(speed, rows[usable], energy)], evidence.step_episode)


def _state_lag(evidence: Evidence) -> Lag | None:
    rows = evidence.studied
    if evidence.actions_look_absolute or not evidence.pairs:
        return None
    series = []
    for i, j in evidence.pairs:
        action = evidence.actions[:, i]
        if abs(known_correlation(action[:-1], action[1:])) < 0.999:
            series.append((action, rows, evidence.state_deltas[rows, j]))
    return _best_lag(series, evidence.step_episode)


def _best_lag(series: list[tuple[np.ndarray, np.ndarray, np.ndarray]], episode: np.ndarray) -> Lag | None:
    """The best lag of effects behind causes.

    Args:
        series: per dimension: the cause ``[N]`` at every step, the rows ``[m]`` of the steps with a known effect, and
            the effect ``[m]``.
        episode: int64 ``[N]``: episode of every step.

    Returns:
        None where too little is known.
    """
    if not series:
        return None
    present = np.unique(episode[series[0][1]])
    num_episodes = len(present)
    sums = np.zeros((len(series), len(LAGS), num_episodes, 6))
    for d, (cause, rows, effect) in enumerate(series):
        for column, lag in enumerate(LAGS):
            source = rows - lag
            inside = (source >= 0) & (source < len(episode))
            inside[inside] = episode[source[inside]] == episode[rows[inside]]
            x, y = cause[source[inside]].astype(float), effect[inside].astype(float)
            group = np.searchsorted(present, episode[rows[inside]])
            known = np.isfinite(x) & np.isfinite(y)
            x, y, group = x[known], y[known], group[known]
            for k, term in enumerate((np.ones_like(x), x, y, x * x, y * y, x * y)):
                sums[d, column, :, k] = np.bincount(group, term, minlength=num_episodes)
    used = sums[0, LAGS.index(0), :, 0] > 1
    if used.sum() < MIN_EPISODES or sums[0, :, :, 0].sum(axis=1).min() < MIN_PAIRS:
        return None
    sums = sums[:, :, used]
    by_lag = _pooled(sums.sum(axis=2))
    best = int(np.argmax(by_lag))
    draws = np.random.default_rng(0).multinomial(
        sums.shape[2], np.full(sums.shape[2], 1 / sums.shape[2]), NUM_RESAMPLES
    )
    resampled = _pooled(np.einsum("re,dlek->rdlk", draws.astype(float), sums, optimize=True))
    return Lag(
        best=LAGS[best],
        correlation=float(by_lag[best]),
        at_zero=float(by_lag[LAGS.index(0)]),
        by_lag={lag: round(float(value), 4) for lag, value in zip(LAGS, by_lag, strict=True)},
        confidence=float((resampled.argmax(axis=-1) == best).mean()),
    )


def _pooled(sums: np.ndarray) -> np.ndarray:
    """Correlation from sums (n, x, y, xx, yy, xy) ``[..., D, L, 6]``, averaged over dimensions: ``[..., L]``."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1)
    scale = np.sqrt(np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0))
    return np.where(scale > 1e-12, (xy - x * y / n) / np.maximum(scale, 1e-12), 0.0).mean(axis=-2)
