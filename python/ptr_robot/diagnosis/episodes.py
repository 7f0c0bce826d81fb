"""Checks of the episode table: lengths, ends, rewards, outcomes, damage on disk."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ptr_fast.config import CqlConfig, RewardConfig
from ptr_fast.data.store_meta import MAX_VERIFIED_BYTES
from ptr_fast.value_reach import FAINT_SHARE, describe_reach, success_gap
from ptr_robot.diagnosis.evidence import Evidence
from ptr_robot.diagnosis.finding import Finding, named, percent

__all__ = [
    "cut_episodes",
    "damaged_files",
    "outcomes",
    "record_counts",
    "short_episodes",
    "source_rewards",
    "terminal_flags",
    "value_reach",
]

NUM_FINAL_STEPS = 3
"""The paper's reward goes to the last 3 steps of an episode; a shorter episode is all reward."""
MIN_EPISODES = 5
CUT_SHARE = 0.5
"""Share of episodes of exactly the greatest length from which a limit, not the task, seems to have ended them."""


def damaged_files(evidence: Evidence) -> list[Finding]:
    """Parts whose bytes no longer match their checksums (stores of up to 2 GiB)."""
    if evidence.store.num_bytes > MAX_VERIFIED_BYTES:
        return []
    return [
        Finding(
            level="error",
            seen=message,
            why="bytes changed after they were written: a failing disk or an interrupted copy",
            advice="copy the store again, or convert again",
        )
        for message in evidence.store.damage()
    ]


def record_counts(evidence: Evidence) -> list[Finding]:
    """Episodes with another number of frames than their steps need."""
    extra = np.asarray(evidence.episodes.num_frames, np.int64) - evidence.lengths
    bad = np.flatnonzero((extra < 0) | (extra > 1))
    if not len(bad):
        return []
    worst = bad[np.argmax(np.abs(extra[bad]))]
    return [
        Finding(
            level="error",
            seen=f"{len(bad)} episodes have neither as many frames as steps nor one more; e.g. "
            f"{evidence.episodes.episode_id[worst]}: {evidence.lengths[worst]} steps, "
            f"{evidence.lengths[worst] + extra[worst]} frames",
            why="frames and actions do not belong together",
            advice="convert these episodes again",
            episodes=named(evidence.episodes.episode_id, bad),
        )
    ]


def short_episodes(evidence: Evidence) -> list[Finding]:
    """Episodes in which every step is a last step."""
    short = np.flatnonzero(evidence.lengths <= NUM_FINAL_STEPS)
    if not len(short):
        return []
    single = int((evidence.lengths == 1).sum())
    return [
        Finding(
            level="warning",
            seen=f"{len(short)} of {len(evidence.lengths)} episodes have {NUM_FINAL_STEPS} steps or fewer"
            + (f", {single} of them a single step" if single else ""),
            why=f"the last {NUM_FINAL_STEPS} steps of an episode are its success: here that is every step",
            advice="leave them out before converting; they are usually aborted recordings",
            episodes=named(evidence.episodes.episode_id, short),
            numbers={"short": len(short), "single_step": single},
        )
    ]


def cut_episodes(evidence: Evidence) -> list[Finding]:
    """Episodes that a limit seems to have ended: most have exactly the greatest length; failures are left out."""
    told = np.array([outcome != "failure" for outcome in evidence.episodes.outcome], bool)
    lengths = evidence.lengths[told]
    if len(lengths) < MIN_EPISODES or lengths.max() <= NUM_FINAL_STEPS:
        return []
    share = float((lengths == lengths.max()).mean())
    if share < CUT_SHARE:
        return []
    which = f"all {len(lengths)} episodes have" if share == 1.0 else f"{percent(share)} of {len(lengths)} episodes have"
    return [
        Finding(
            level="warning",
            seen=f"{which} exactly {int(lengths.max())} steps, the greatest length",
            why="demonstrations end when the task is done, at different times: equal lengths mean that the recordings "
            f"were cut, and then the label 'the last {NUM_FINAL_STEPS} steps are success' is wrong",
            advice="get the uncut episodes. If each does end in success within these steps, ignore this",
            numbers={"length": int(lengths.max()), "share": share},
        )
    ]


def terminal_flags(evidence: Evidence) -> list[Finding]:
    """A source in which no step is marked as the last."""
    if not evidence.meta.source.get("terminal_flags_all_zero"):
        return []
    return [
        Finding(
            level="warning",
            seen="the source marks no step of any episode as its last or as terminal",
            why="nothing says that the episodes are whole; the end of each record is taken for the end of the task",
            advice="rewards and ends are made when loading, from the position in the episode: right for whole "
            "demonstrations, wrong for ones cut short (see cut_episodes)",
        )
    ]


def source_rewards(evidence: Evidence) -> list[Finding]:
    """A source whose rewards are all zero."""
    if not evidence.meta.source.get("rewards_all_zero"):
        return []
    return [
        Finding(
            level="note",
            seen="the source's rewards are all zero",
            why="they cannot be used, and are not",
            advice=f"rewards are made when loading: the last {NUM_FINAL_STEPS} steps of an episode are its success",
        )
    ]


def outcomes(evidence: Evidence) -> list[Finding]:
    """How many episodes succeeded, and whether any did."""
    counts = Counter(evidence.episodes.outcome)
    words = ", ".join(f"{counts[name]} {name}" for name in ("success", "failure", "unknown") if counts[name])
    numbers = dict(counts)
    positive = {t for t, o in zip(evidence.episodes.task, evidence.episodes.outcome, strict=True) if o != "failure"}
    hopeless = sorted(set(evidence.episodes.task) - positive)
    if hopeless:
        everything = len(positive) == 0
        return [
            Finding(
                level="error" if everything else "warning",
                seen=f"outcomes: {words}; no episode succeeded for {len(hopeless)} task(s): "
                + ", ".join(repr(task) for task in hopeless[:5]),
                why="without a positive reward Q-learning learns that nothing helps, and cloning copies failures",
                advice="add successful demonstrations, or leave these tasks out",
                numbers=numbers,
            )
        ]
    meaning = "unknown counts as success" if counts["unknown"] else "failures get no positive reward"
    return [
        Finding(
            level="note",
            seen=f"outcomes: {words}",
            why=f"{meaning} when rewards are made",
            advice="store known failures with the outcome 'failure': they help Q-learning and harm behaviour cloning"
            if counts["unknown"]
            else "",
            numbers=numbers,
        )
    ]


def value_reach(evidence: Evidence) -> list[Finding]:
    """How much of the value of success is left at the start of an episode, and after how many updates it is there."""
    lengths = evidence.lengths[[outcome != "failure" for outcome in evidence.episodes.outcome]]
    if not len(lengths):
        return []
    published, rewards = CqlConfig(), RewardConfig()
    by_discount, by_updates = describe_reach(lengths, rewards, published.discount, published.tau)
    median, long = (int(np.quantile(lengths, share, method="inverted_cdf")) for share in (0.5, 0.9))
    left, whole = success_gap(median, rewards, published.discount)
    is_faint = left / whole < FAINT_SHARE
    return [
        Finding(
            level="warning" if is_faint else "note",
            seen=f"with the published labels {by_discount}",
            why="Q-learning tells a good start from a bad one by this difference alone. With the published settings "
            + by_updates,
            advice="take a higher --learner.discount; behaviour cloning needs none of this"
            if is_faint
            else "give a run of fewer updates --rewards.num-steps 5, --rewards.lower-bound-returns or a larger "
            "--learner.tau; behaviour cloning needs none of this",
            numbers={"median_steps": median, "long_steps": long, "gap_at_start": left, "gap_at_end": whole},
        )
    ]
