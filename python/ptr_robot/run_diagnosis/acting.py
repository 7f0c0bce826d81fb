"""Checks of the policy: its temperature, its actions, and whether it keeps up with the critic and with a clone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ptr_robot.diagnosis.finding import Finding, percent
from ptr_robot.report.runs import TrialRow, find_rollouts, trial_rows
from ptr_robot.run_diagnosis.evidence import RunEvidence, option
from ptr_robot.training.familiarity import fewer_proposals

__all__ = [
    *("actions_at_bounds", "actor_behind", "search_behind", "temperature", "to_follow", "unknown_task"),
    "use_cloning",
]

RISEN, SUNK = 3.0, 0.01
"""Times its initial value: a temperature that has been driven up, or that holds no entropy any more."""
STILL_RISING = 1.1
"""Times its value in the middle of the run: a temperature that has not settled."""
GOOD_CRITIC, MEAN_BEHIND, SAMPLES_BEHIND = 0.8, 0.05, 0.2
"""A critic that values the recorded action above so large a share of random ones knows actions. An actor does not
follow it whose mean, and whose samples, are valued below the recorded actions by these shares of all that Q varies by.
"""
MORE_AT_BOUNDS = 0.2
"""By how much the share of actions at their bounds may exceed that of the recorded ones."""
ONE_WAY, SHORT, ALIKE = 0.6, 50, 0.25
"""There is one way to do a task where the state explains so large a share of the recorded actions. In the toy kitchens
an expert has 0.73 to 0.89, also in long episodes of many lengths, operators 0.49 to 0.55 and white noise 0.42. Where
frames are seen, episodes of at most so many steps whose lengths spread by so small a share of their mean stand for it.
"""


def temperature(evidence: RunEvidence) -> list[Finding]:
    """An entropy weight that runs up, or that has gone to nothing."""
    key = evidence.traits.temperature
    now, curve = evidence.reported(key), evidence.run.metrics.get(key)
    if now is None or curve is None or not evidence.has("init_temperature"):
        return []
    first = float(evidence.learner.init_temperature)  # type: ignore[attr-defined]
    steps, values = curve
    before = values[steps <= 0.5 * steps[-1]]
    rises = len(before) > 0 and now.value > STILL_RISING * before[-1]
    if now.value > RISEN * first and rises:
        seen, why, factor = (
            f"the temperature rose from {first:g} to {now.value:.3g} at step {now.step} and rises on",
            "the critic tells actions apart more sharply than the wanted spread: to hold that spread costs more and "
            "more, the policy's actions are valued lower, and Q sinks",
            1.0,
        )
    elif now.value < SUNK * first:
        seen, why, factor = (
            f"the temperature fell from {first:g} to {now.value:.3g} at step {now.step}",
            "nothing holds the policy's spread any more: its samples are one action, targets and search see no other",
            -0.5,
        )
    else:
        return []
    advice = "another recipe: nothing of this learner sets the wanted spread"
    if evidence.has("target_entropy") and evidence.spec is not None:
        dim = evidence.spec.action.dim
        wanted = getattr(evidence.learner, "target_entropy", None)
        wanted = -float(dim) if wanted is None else wanted
        advice = f"{option('learner.target_entropy', wanted - factor * dim)} (it is {wanted:g} nats)"
    numbers = {"step": now.step, "temperature": now.value, "init_temperature": first}
    return [Finding(level="warning", seen=seen, why=why, advice=advice, numbers=numbers)]


def actor_behind(evidence: RunEvidence) -> list[Finding]:
    """A policy whose own action is valued far below the recorded one by a critic that knows actions."""
    tried = _trials(evidence)
    if tried:
        return tried
    preference, advantage, gap = (evidence.now(name) for name in ("preference", "advantage", "policy_gap"))
    low, high = evidence.now("q_min"), evidence.now("q_max")
    if preference is None or advantage is None or gap is None or low is None or high is None:
        return []
    varies = high.value - low.value
    follows = advantage.value <= MEAN_BEHIND * varies or gap.value <= SAMPLES_BEHIND * varies
    if preference.value < GOOD_CRITIC or follows:
        return []
    return [
        Finding(
            level="warning",
            seen=f"the critic values recorded actions above {percent(preference.value)} of random ones and "
            f"{advantage.value:.3g} above the policy's own mean ({gap.value:.3g} above its samples; Q varies by "
            f"{varies:.3g} in all), at step {advantage.step}",
            why="the critic knows more than the actor has learned from it: its mean does worse than a clone would",
            advice=to_follow(evidence),
            numbers={"step": advantage.step, "advantage": advantage.value, "preference": preference.value},
        )
    ]


def to_follow(evidence: RunEvidence) -> str:
    """What makes use of a critic whose actor does not follow it."""
    ways = []
    if "search" in evidence.traits.modes and evidence.act.mode != "search":
        ways.append("act by search: ptr-fast rollout --checkpoint RUN --mode search, or train with --act.mode search")
    if not evidence.has_many_modes:
        ways.append("train with a cloning term in the actor (pretrain states-cql-clone or sim-cql-clone)")
        ways.append("let the critic choose among cloned proposals (states-proposals or sim-proposals)")
    return "; ".join(ways) or "train longer: the clone has not learned the recorded actions yet"


def search_behind(evidence: RunEvidence) -> list[Finding]:
    """A critic whose choice among a clone's samples succeeds less often than the samples themselves."""
    rows = _tried(evidence)
    for sampled in (row for row in rows if row.mode == "sample"):
        enough = sampled.num_trials / 2
        ways = [row for row in rows if row.mode == "search" and _are_alike(row, sampled) and row.num_trials >= enough]
        best = max(ways, key=lambda row: row.successes / row.num_trials, default=None)
        if best is None or best.interval[1] >= sampled.interval[0]:
            continue
        counts = f"{best.successes} of {best.num_trials} trials succeed by search{best.search}"
        where = sampled.task if sampled.step is None else f"{sampled.task}, step {sampled.step}"
        return [
            Finding(
                level="warning",
                seen=f"{counts}, and {sampled.successes} of {sampled.num_trials} by the clone's samples ({where})",
                why="among many proposals the search finds those where the critic errs, as on an object that it has "
                "seen in a few demonstrations alone; held-out metrics do not show it",
                advice=_choose_among_fewer(evidence, ways),
                numbers={"search": best.successes, "sample": sampled.successes},
            )
        ]
    return []


def unknown_task(evidence: RunEvidence) -> list[Finding]:
    """A search among many proposals by a critic that has the task from a few demonstrations alone."""
    known, few = evidence.familiarity, fewer_proposals(evidence.act, evidence.traits)
    if known is None or known.is_known is not False or not few:
        return []
    return [
        Finding(
            level="warning",
            seen=f"before the first update, {known.line()}; it acts by {evidence.act.num_candidates} proposals",
            why="it has this task from the demonstrations alone, and among many proposals a search finds those where "
            "it errs; held-out metrics do not show it",
            advice=f"{_fewer(few)}; fine-tune for long (--lr-scale 1 --mix 0.5, "
            "thousands of updates), and record more demonstrations",
            numbers=asdict(known),
        )
    ]


def _choose_among_fewer(evidence: RunEvidence, tried: Sequence[TrialRow]) -> str:
    """As few as the critic's targets take the best of, unless that was tried."""
    few = evidence.traits.num_proposals
    if any(row.candidates is not None and row.candidates <= few for row in tried):
        return "act by --mode sample, and record more demonstrations: the critic needs to see more of the task"
    return f"{_fewer(few)}, and finetune with --act-candidates {few} --act-elites 1; or act by --mode sample"


def _fewer(few: int) -> str:
    return f"let it choose among as few as its targets do: --candidates {few} --elites 1 of rollout, serve and export"


def _are_alike(row: TrialRow, other: TrialRow) -> bool:
    """Whether two rows tell of the same checkpoint and the same trials."""
    return all(getattr(row, name) == getattr(other, name) for name in ("task", "kitchen", "step", "setting"))


def _tried(evidence: RunEvidence) -> list[TrialRow]:
    folder = evidence.run.path / "rollouts"
    return trial_rows(find_rollouts([folder])) if folder.is_dir() else []


def _trials(evidence: RunEvidence) -> list[Finding]:
    """The same, by trials: search succeeds where the mean does not, unless a clone is there to be searched."""
    searches = evidence.has_many_modes and evidence.act.mode == "search"
    rows = [] if searches else _tried(evidence)
    for row in rows:
        for other in rows:
            by_mean = row.mode in ("mean", "ema_mean") and _are_alike(row, other)
            if not by_mean or other.mode != "search" or row.interval[1] >= other.interval[0]:
                continue
            counts = f"{row.successes} of {row.num_trials} trials succeed by {row.mode}"
            return [
                Finding(
                    level="warning",
                    seen=f"{counts}, and {other.successes} of {other.num_trials} by search ({row.task})",
                    why="the critic knows more than the actor has learned from it",
                    advice=to_follow(evidence),
                    numbers={row.mode: row.successes, "search": other.successes},
                )
            ]
    return []


def actions_at_bounds(evidence: RunEvidence) -> list[Finding]:
    """A policy that commands bounds where the recorded actions do not."""
    own, recorded = evidence.now("at_bounds"), evidence.now("recorded_at_bounds")
    if own is None or recorded is None or own.value - recorded.value <= MORE_AT_BOUNDS:
        return []
    ways = ["act by search, or among cloned proposals"]
    if evidence.has("cql_alpha"):
        alpha = evidence.learner.cql_alpha  # type: ignore[attr-defined]
        ways = [option("learner.cql_alpha", 5 * alpha if alpha > 0 else 1.0), *ways]
    return [
        Finding(
            level="warning",
            seen=f"{percent(own.value)} of the policy's action dimensions lie at their bounds on held-out frames, and "
            f"{percent(recorded.value)} of the recorded ones, at step {own.step}",
            why="the actor has run into the corner of its range, where nothing was recorded: the arm jumps",
            advice="; ".join(ways),
            numbers={"step": own.step, "at_bounds": own.value, "recorded_at_bounds": recorded.value},
        )
    ]


def use_cloning(evidence: RunEvidence) -> list[Finding]:
    """Data that behaviour cloning is best at: one way to do it, nothing failed."""
    lengths = evidence.lengths
    if evidence.limits is None or len(lengths) < 2 or evidence.outcomes["failure"]:
        return []
    median, spread = float(np.median(lengths)), float(lengths.std() / lengths.mean())
    explained = evidence.explained_by_state
    is_one_way = median <= SHORT and spread <= ALIKE if explained is None else explained >= ONE_WAY
    if not is_one_way:
        return []
    seen = (
        f"none of the {len(lengths)} episodes failed, they take {median:g} steps (spread of lengths {percent(spread)})"
    )
    if explained is not None:
        seen += f", and the nearest state of another episode explains {percent(explained)} of the recorded actions"
    else:
        seen += " (whether there is one way to do it cannot be told from states: the policy sees frames)"
    return [
        Finding(
            level="note",
            seen=seen,
            why="where there is one way to do it there is nothing to choose: cloning learns that in fewer updates; "
            "reinforcement learning wins where people take several ways, pause, fumble and fail",
            advice="use behaviour cloning (pretrain states-bc, sim-bc or bridge-bc), or add data that is not all alike",
            numbers={"median_steps": median, "spread": spread, "explained": explained},
        )
    ]
