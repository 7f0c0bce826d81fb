"""Checks of what a critic says: whether it can be right at all, and whether the end's value has come far enough."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ptr_fast.diagnostics import (
    MAX_BIAS_OF_A_PREFERRED_POLICY,
    MIN_PREFERENCE_FOR_POLICY,
    RANGE_SLACK,
    widened,
)
from ptr_fast.learners.divergence import Divergence
from ptr_fast.value_reach import CLEAR_SHARE, FAINT_SHARE, discount_that_leaves, success_gap, updates_to_reach
from ptr_robot.diagnosis.finding import Finding, percent
from ptr_robot.run_diagnosis.evidence import NO_VALUES, RunEvidence, option
from ptr_robot.training.divergence import remedies

__all__ = [
    "broken_numbers",
    "conservative_term",
    "discount_and_length",
    "end_reached_start",
    "foreign_actions",
    "targets_pulled_down",
    "value_range",
]

MIN_EARLY_RISE = 0.25
"""Share of the returns' rise over the first half of an episode that Q must have for the end to have come that far."""
HIDING_GAP, CLEAR_CORRELATION, CLEAR_RISE = 0.4, 0.9, 0.75
"""Shares of all that Q varies by over the recorded steps: where random actions are pressed down further, Q says more of
actions than of states; unless it follows the returns as closely as this all the same."""
PULLING_GAP = 0.02
"""Widths of the range of returns by which policy actions lie below recorded ones where they pull targets down."""
MODERATE_ALPHA = 1.0
"""Weight of the conservative term that hid no value where it was measured."""
EARLY = 0.01
"""Share of the updates that the end's value needs to come to the start, below which no setting is to blame."""
MIN_PREFERENCE = 0.6
"""Share of random actions that must be valued below the recorded ones; half is chance."""


def broken_numbers(evidence: RunEvidence) -> list[Finding]:
    """A training that the divergence alarm has stopped, or whose numbers are not finite."""
    folders = [int(path.name) for path in (evidence.run.path / "diverged").glob("*") if path.name.isdecimal()]
    metrics = evidence.run.metrics
    broken = [(int(s[~np.isfinite(v)][0]), key) for key, (s, v) in metrics.items() if not np.isfinite(v).all()]
    if not broken and not any(step >= evidence.run.last_step for step in folders):
        return []
    step, key = min(broken) if broken else (max(folders), "")
    seen = f"{key} is not finite at step {step}" if key else f"the divergence alarm stopped the run at step {step}"
    found = Divergence(
        kind="not_finite" if key else _side(evidence), name=key or evidence.traits.value_of_data, reason=seen
    )
    return [
        Finding(
            level="error",
            seen=seen,
            why="what comes after it was computed from broken weights",
            advice=_first_remedy(evidence, found, step) or "begin anew with lower rates",
            numbers={"step": step},
        )
    ]


def _side(evidence: RunEvidence) -> Literal["too_low", "too_high"]:
    now, limits = evidence.reported(evidence.traits.value_of_data), evidence.limits
    return "too_high" if now is not None and limits is not None and now.value > limits[1] else "too_low"


def _first_remedy(evidence: RunEvidence, found: Divergence, step: int) -> str:
    """What the learner's folder advises first, or nothing where its numbers were not logged."""
    action_dim = evidence.spec.action.dim if evidence.spec else 1
    numbers = evidence.last_row()
    try:
        told = remedies(found, numbers, step, evidence.rewards, evidence.learner, action_dim, evidence.loop.precision)
    except KeyError:
        return ""
    return next((" ".join([*remedy.options(), remedy.action]).strip() for remedy in told), "")


def value_range(evidence: RunEvidence) -> list[Finding]:
    """Q of recorded actions below the smallest or above the largest return that there can be."""
    limits, key = evidence.limits, evidence.traits.value_of_data
    now = evidence.reported(key) or evidence.now("q_data")
    if limits is None or now is None or limits[0] <= now.value <= limits[1]:
        return []
    low, high = limits
    is_low = now.value < low
    steps, values = evidence.run.metrics.get(key, NO_VALUES)
    outside = steps[(values < low) | (values > high)]
    first = int(outside[0]) if len(outside) else now.step
    bound = f"below the smallest return there can be, {low:.4g}" if is_low else f"above the largest return, {high:.4g}"
    outer = widened(limits, RANGE_SLACK)
    found = Divergence(kind="too_low" if is_low else "too_high", name=key, reason="")
    advice = _first_remedy(evidence, found, now.step)
    if is_low and not evidence.rewards.lower_bound_returns:
        bounded = "--rewards.lower-bound-returns, which keeps targets of successes at their returns"
        advice = f"{bounded}; or {advice}" if advice else bounded
    return [
        Finding(
            level="warning" if outer[0] <= now.value <= outer[1] else "error",
            seen=f"Q of recorded actions is {now.value:.4g} at step {now.step}, {bound} (first at step {first})",
            why="no policy can earn that: the values are an artefact, and what is chosen by them is chance",
            advice=advice or "take an earlier checkpoint with ptr-fast select, and lower rates",
            numbers={"step": now.step, "q_data": now.value, "low": low, "high": high, "first_step": first},
        )
    ]


def discount_and_length(evidence: RunEvidence) -> list[Finding]:
    """A discount that leaves next to nothing of the end's value at the start of an episode of this length."""
    discount = evidence.traits.discount
    if discount is None or not len(evidence.lengths):
        return []
    median = int(np.quantile(evidence.lengths, 0.5, method="inverted_cdf"))
    left, whole = success_gap(median, evidence.rewards, discount)
    if left >= FAINT_SHARE * whole:
        return []
    advised = discount_that_leaves(CLEAR_SHARE, median, evidence.rewards)
    better, of = success_gap(median, evidence.rewards, advised)
    return [
        Finding(
            level="warning",
            seen=f"at discount {discount:g} and {median} steps (the median episode that did not fail) {left:.2g} of "
            f"the {whole:.3g} between success and failure are left at the start ({percent(left / whole)})",
            why="the critic tells a good start from a bad one by this difference alone, and its errors are larger",
            advice=f"{option('learner.discount', advised)} leaves {better:.2g} of {of:.3g}",
            numbers={"discount": discount, "median_steps": median, "share_left": left / whole, "advised": advised},
        )
    ]


def end_reached_start(evidence: RunEvidence) -> list[Finding]:
    """Whether the value of the end has come to the start of the episodes: measured, or else by what theory says."""
    if evidence.limits is None:
        return []
    rise, median = evidence.now("early_rise"), _median_length(evidence)
    needed = _updates_needed(evidence, median)
    if rise is not None:
        if rise.value >= MIN_EARLY_RISE:
            return []
        seen = (
            f"over the first half of held-out episodes Q rises by {percent(max(rise.value, 0))} of what their returns "
            f"rise by, at step {rise.step}"
            if rise.value >= 0
            else f"over the first half of held-out episodes Q falls where their returns rise, at step {rise.step}"
        )
        numbers = {"step": rise.step, "early_rise": rise.value}
    elif needed is not None and needed > max(evidence.run.last_step, 1) and not evidence.rewards.lower_bound_returns:
        seen = f"no held-out metric says so, but the end's value needs about {needed:,} updates to the start of an "
        seen += f"episode of {median} steps, and {evidence.run.last_step:,} are done"
        numbers = {"step": evidence.run.last_step}
    else:
        return []
    if needed is not None:
        numbers["updates_needed"] = needed
    return [
        Finding(
            level="error" if evidence.is_finished and rise is not None else "warning",
            seen=seen,
            why="until the end is seen from there, what the critic chooses at the start of an episode is noise",
            advice=_faster(evidence, median, needed),
            numbers=numbers,
        )
    ]


def _median_length(evidence: RunEvidence) -> int:
    """Steps of the median episode that did not fail; 0 where the episodes are not there."""
    return int(np.quantile(evidence.lengths, 0.5, method="inverted_cdf")) if len(evidence.lengths) else 0


def _updates_needed(evidence: RunEvidence, median: int) -> int | None:
    discount, tau = evidence.traits.discount, evidence.traits.target_rate
    if not median or discount is None or tau is None or success_gap(median, evidence.rewards, discount)[0] <= 0:
        return None
    return updates_to_reach(median, evidence.rewards, discount, tau)


def _faster(evidence: RunEvidence, median: int, needed: int | None) -> str:
    """What carries the end's value further with an update; more updates where all of it is done already."""
    ways = []
    if evidence.rewards.num_steps < 5:
        ways.append("--rewards.num-steps 5")
    if not evidence.rewards.lower_bound_returns:
        ways.append("--rewards.lower-bound-returns")
    tau = evidence.traits.target_rate
    if tau is not None and tau < 0.01 and evidence.has("tau"):
        ways.append(option("learner.tau", 0.01))
    if ways:
        return " and ".join(ways) + " (first what stands first)"
    more = max(2 * evidence.run.last_step, needed or 0)
    return f"more updates: {option('num-steps', more)}, and a smaller learner.cql_alpha where it is above 1"


def targets_pulled_down(evidence: RunEvidence) -> list[Finding]:
    """Targets that the policy's own actions, valued below the recorded ones, pull down step by step."""
    bias, gap = evidence.now("return_bias"), evidence.now("policy_gap")
    if evidence.limits is None or bias is None or gap is None:
        return []
    if bias.value >= -MAX_BIAS_OF_A_PREFERRED_POLICY * evidence.width or gap.value <= PULLING_GAP * evidence.width:
        return []
    ways = [] if evidence.rewards.lower_bound_returns else ["--rewards.lower-bound-returns"]
    if evidence.has("cql_alpha"):
        alpha = evidence.learner.cql_alpha  # type: ignore[attr-defined]
        ways += [option("learner.cql_alpha", alpha / 10)] if alpha > 1 else []
    if not evidence.has_many_modes:
        ways.append("a recipe whose targets take cloned proposals (pretrain states-proposals or sim-proposals)")
    return [
        Finding(
            level="warning",
            seen=f"Q of recorded actions lies {-bias.value:.3g} below the recorded returns at step {bias.step}, and "
            f"the policy's own actions, which the target takes, {gap.value:.3g} below the recorded ones",
            why="every step back along an episode loses that much again: Q sinks, and with it what tells success apart",
            advice=", or ".join(ways) or "more updates, and a larger --learner.tau",
            numbers={"step": bias.step, "return_bias": bias.value, "policy_gap": gap.value},
        )
    ]


def foreign_actions(evidence: RunEvidence) -> list[Finding]:
    """Random actions, or the policy's own, that the critic values above the recorded ones."""
    if evidence.limits is None:
        return []
    gaps = {"random": evidence.now("random_gap"), "the policy's own": evidence.now("policy_gap")}
    preference, bias = evidence.now("preference"), evidence.now("return_bias")
    random, policy = gaps["random"], gaps["the policy's own"]
    found, slack = [], MIN_PREFERENCE_FOR_POLICY * evidence.width
    is_chance = random is not None and preference is not None and preference.value < MIN_PREFERENCE
    if random is not None and (random.value < 0 or is_chance):
        share = "" if preference is None else f" (recorded ones beat {percent(preference.value)} of them)"
        how = f"{-random.value:.3g} above" if random.value < 0 else f"only {random.value:.3g} below"
        found.append((random.step, f"random actions are valued {how} the recorded ones{share}"))
    over = bias is None or bias.value > MAX_BIAS_OF_A_PREFERRED_POLICY * evidence.width
    if policy is not None and policy.value < -slack and over:
        by = "" if bias is None else f", and Q lies {bias.value:.3g} above the recorded returns"
        found.append((policy.step, f"the policy's own actions are valued {-policy.value:.3g} above the recorded{by}"))
    if not found:
        return []
    return [
        Finding(
            level="error" if random is not None and random.value < 0 else "warning",
            seen="; ".join(seen for _, seen in found) + f", at step {found[0][0]}",
            why="the critic errs about actions that nobody recorded, and whoever acts by it seeks these out",
            advice=_more_conservative(evidence),
            numbers={"step": found[0][0]}
            | {name: now.value for name, now in (("random_gap", random), ("policy_gap", policy)) if now},
        )
    ]


def _more_conservative(evidence: RunEvidence) -> str:
    """A larger conservative term; of a run that has hardly begun more updates, since its settings are not to blame."""
    needed = _updates_needed(evidence, _median_length(evidence))
    ways = ["train longer"]
    if needed is not None and evidence.run.last_step < EARLY * needed:
        ways = [f"more updates first ({option('num-steps', needed)}): so early this says nothing of the settings"]
    elif evidence.has("cql_alpha"):
        alpha = evidence.learner.cql_alpha  # type: ignore[attr-defined]
        ways = [option("learner.cql_alpha", 5 * alpha if alpha > 0 else 1.0)]
    if not evidence.has_many_modes:
        ways.append("act by search among cloned proposals (pretrain states-proposals or sim-proposals)")
    return ", or ".join(ways)


def conservative_term(evidence: RunEvidence) -> list[Finding]:
    """A conservative term that presses random actions down so hard that the returns hardly show."""
    gap, fit, rise = (evidence.now(name) for name in ("random_gap", "return_correlation", "early_rise"))
    low, high = evidence.now("q_min"), evidence.now("q_max")
    if evidence.limits is None or not evidence.has("cql_alpha"):
        return []
    if gap is None or fit is None or rise is None or low is None or high is None:
        return []
    alpha, varies = evidence.learner.cql_alpha, high.value - low.value  # type: ignore[attr-defined]
    is_clear = fit.value >= CLEAR_CORRELATION and rise.value >= CLEAR_RISE
    if alpha <= MODERATE_ALPHA or gap.value <= HIDING_GAP * varies or is_clear:
        return []
    return [
        Finding(
            level="warning",
            seen=f"random actions are pressed {gap.value:.3g} below the recorded ones, whose own Q varies by "
            f"{varies:.3g} in all and follows the returns with a correlation of {fit.value:.2g}, at step {gap.step}",
            why=f"cql_alpha {alpha:g} asks for the recorded action and for little else: the values of states are lost",
            advice=option("learner.cql_alpha", max(MODERATE_ALPHA, alpha / 10)),
            numbers={"step": gap.step, "random_gap": gap.value, "return_correlation": fit.value, "cql_alpha": alpha},
        )
    ]
