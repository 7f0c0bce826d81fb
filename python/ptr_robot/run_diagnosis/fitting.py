"""Checks of how a run fits: too well to what it saw, not yet well enough, or not at all any more."""

from __future__ import annotations

import numpy as np

from ptr_fast.run_folder import list_checkpoints
from ptr_robot.diagnosis.finding import Finding, percent
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.run_diagnosis.evidence import RunEvidence, option
from ptr_robot.run_diagnosis.values import foreign_actions, value_range
from ptr_robot.training.familiarity import ranking_of

__all__ = ["measured", "overfit", "rate_at_zero", "underfit", "unlearned"]

MIN_POINTS = 5
"""Values of a curve below which no rise or fall is told from chance."""
RISEN = {"action_error": 1.1, "bellman_error": 1.25}
"""Times its smallest value: an error that has risen."""
LOST_NATS = 1.0
"""Below its largest value: a log-probability that has fallen."""
LARGE_MIX = 0.9
"""The published share of old data in fine-tuning."""
STILL_GAINING = 0.25
"""Share of all that a metric gained which the last quarter of a run may still add where it is done learning."""
SPENT, LAST_PART = 1e-3, 0.95
"""A learning rate below this share of its largest changes nothing; a schedule may end so in the last part of a run."""


def measured(evidence: RunEvidence) -> list[Finding]:
    """What could not be looked at: held-out episodes, or the episodes that the run trains on."""
    found = []
    if evidence.unmeasured and "acts" in evidence.traits.capabilities:
        found.append(
            Finding(
                level="note",
                seen=f"no metric on held-out episodes: {evidence.unmeasured}",
                why="whether the critic is right, and whether the run overfits, cannot be seen without",
                advice="mend what it names; or train with --evaluate-every 500 and hold episodes out, by "
                "--data.validation-share or, in fine-tuning, by a smaller --num-demos",
            )
        )
    if evidence.sources is None:
        found.append(
            Finding(
                level="note",
                seen=f"the episodes that it trains on are not there: {evidence.unopened}",
                why="whether the discount and the method fit these data cannot be seen without",
                advice="name the new place of the store: --store OLD=NEW",
            )
        )
    return found


def overfit(evidence: RunEvidence) -> list[Finding]:
    """Held-out metrics that are worse again: the action error, and where there is a critic its Bellman error as well.

    Of a critic's learner neither alone says so: the Bellman error rises as the values spread, and the actor leaves the
    recorded actions for better ones. An actor of many modes that a critic chooses from is a clone and stays, so its
    log-probability counts as well; that of a clone alone says nothing, since it falls long before the clone acts worse.
    """
    has_critic = evidence.limits is not None
    of_actor = ["log_prob", "action_error"] if has_critic and evidence.has_many_modes else ["action_error"]
    actor = {name: turn for name in of_actor if (turn := _turned(evidence, name))}
    bellman = _turned(evidence, "bellman_error") if has_critic else None
    if not actor or (has_critic and not bellman) or foreign_actions(evidence) or value_range(evidence):
        return []  # the last two would be the cause
    told = actor | ({"bellman_error": bellman} if bellman else {})
    words = [
        f"{METRICS[name][0]} {best:.3g} at step {step} and {now:.3g} now" for name, (step, best, now) in told.items()
    ]
    earliest = min(step for step, _, _ in told.values())
    ways = ["ptr-fast select takes an earlier checkpoint"] if ranking_of(evidence.traits, evidence.familiarity) else []
    if evidence.critic_share is not None and evidence.critic_share < LARGE_MIX:
        ways.append(f"{option('critic-mix', LARGE_MIX)}, a larger share of the old data in the critic's loss")
    elif evidence.old_share is not None and evidence.old_share < LARGE_MIX:
        ways.append(f"{option('mix', LARGE_MIX)}, a larger share of the old data")
    if evidence.has("dropout"):
        ways.append(option("learner.dropout", 0.1))
    if evidence.has("weight_decay"):
        ways.append(option("learner.weight_decay", 0.01))
    ways.append(f"{option('num-steps', earliest)} or more demonstrations" if earliest else "more demonstrations")
    return [
        Finding(
            level="warning",
            seen=f"held-out metrics are worse again: {', '.join(words)}",
            why="the nets learn the recorded episodes by heart: on a robot they meet others",
            advice="; ".join(ways),
            numbers={name: {"best_step": s, "best": best, "now": now} for name, (s, best, now) in told.items()},
        )
    ]


def _turned(evidence: RunEvidence, name: str) -> tuple[int, float, float] | None:
    """Step and value of the best value, and the newest, where it is worse since."""
    steps, values = evidence.curve(name)
    known, now = np.isfinite(values), evidence.now(name)
    steps, values = steps[known], values[known]
    if len(steps) < MIN_POINTS or now is None:
        return None
    # A single good value may be chance: neighbours are averaged.
    smooth = (values[:-1] + values[1:]) / 2
    is_error = name in RISEN
    best = int(np.argmin(smooth) if is_error else np.argmax(smooth))
    is_worse = now.value >= RISEN[name] * smooth[best] if is_error else now.value <= smooth[best] - LOST_NATS
    if steps[best] > 0.7 * steps[-1] or not is_worse:
        return None
    return int(steps[best]), float(smooth[best]), now.value


def unlearned(evidence: RunEvidence) -> list[Finding]:
    """A fine-tuning of which ``select`` picked what it began with, among all that there is."""
    selection, newest = evidence.run.selection, list_checkpoints(evidence.run.path)[-1:]
    if selection is None or selection["metric"] is None or selection["selected"] != 0:
        return []
    ranked = {entry["step"] for entry in selection["ranking"]}
    if len(ranked) == 1 or any(int(folder.name) > max(ranked) for folder in newest):
        return []
    name = METRICS[selection["metric"]][0]
    start, *later = (entry for entry in selection["ranking"] if not entry["excluded"])  # the best first
    then = f"{later[0]['value']:.3g} at step {later[0]['step']}" if later else "that of no later checkpoint counts"
    return [
        Finding(
            level="note",
            seen=f"select picked what fine-tuning began with: {name} {start['value']:.3g} at step 0, {then}",
            why="a few demonstrations, drawn again and again, can unteach what pre-training knew",
            advice="take step 0, as select does; or begin again with ptr-fast finetune --checkpoint and a smaller "
            "--lr-scale, fewer --num-steps, a larger --mix of the old data, or more demonstrations; an object that "
            "pre-training never saw needs more updates instead",
            numbers={"values": {str(entry["step"]): entry["value"] for entry in (start, *later)}},
        )
    ]


def underfit(evidence: RunEvidence) -> list[Finding]:
    """A run that ended while it was still learning."""
    name, best = evidence.traits.ranking or ("log_prob", "max")
    if not evidence.is_finished:
        return []
    sign = 1.0 if best == "max" else -1.0
    steps, values = evidence.curve(name)
    if len(steps) < MIN_POINTS or not np.isfinite(values).all():
        return []
    gained, before = sign * values, steps <= 0.75 * steps[-1]
    late = max(2, len(steps) // 8)
    at_the_end, earlier = float(np.median(gained[-late:])), float(np.median(gained[before][-late:]))
    whole, all_of_it = at_the_end - float(gained[0]), float(gained.max() - gained.min())
    is_steady = whole > max(0.75 * all_of_it, 0.02 * abs(at_the_end)) and at_the_end - earlier < whole
    if not is_steady or at_the_end - earlier <= STILL_GAINING * whole or value_range(evidence):
        return []
    more = 2 * evidence.loop.num_steps
    resumed = f"ptr-fast resume RUN {option('num-steps', more)}"
    if evidence.learner.lr_schedule == "cosine":
        resumed += " --lr-schedule cosine"
    return [
        Finding(
            level="warning",
            seen=f"{METRICS[name][0]} on held-out episodes made {percent((at_the_end - earlier) / whole)} of its way "
            f"in the last quarter: {sign * earlier:.3g} at step {int(steps[before][-1])}, "
            f"{sign * at_the_end:.3g} at step {int(steps[-1])}",
            why="the run ended while it was learning: what it can do is not seen yet",
            advice=f"{resumed}, or a larger net",
            numbers={"step": int(steps[-1]), "metric": name, "share": (at_the_end - earlier) / whole},
        )
    ]


def rate_at_zero(evidence: RunEvidence) -> list[Finding]:
    """Learning rates that were at zero while the run went on."""
    rates = {key: curve for key, curve in evidence.run.metrics.items() if key.startswith("lr/") and len(curve[0])}
    spent = {}
    for key, (steps, values) in rates.items():
        gone = values <= SPENT * values.max()
        if gone.any() and steps[gone][0] < LAST_PART * steps[-1]:
            spent[key] = int(steps[gone][0])
    if not spent:
        return []
    since, last = min(spent.values()), evidence.run.last_step
    return [
        Finding(
            level="warning",
            seen=f"{', '.join(spent)}: at zero since step {since}, and the run went on to step {last}",
            why="these updates changed nothing",
            advice=f"{option('learner.lr_schedule_steps', evidence.loop.num_steps)}, or ptr-fast resume RUN "
            "--lr-schedule constant --lr RATE",
            numbers={"since": since, "last_step": last},
        )
    ]
