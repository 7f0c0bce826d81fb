"""Checks of task names."""

from __future__ import annotations

from collections import Counter, defaultdict

from ptr_robot.datasets.task_names import is_label
from ptr_robot.diagnosis.evidence import Evidence
from ptr_robot.diagnosis.finding import Finding, named

__all__ = ["task_count", "task_names"]

MANY_TASKS = 200
"""The task is a one-hot input: of so many slots each sees half a per cent of the data and learns alone."""


def task_names(evidence: Evidence) -> list[Finding]:
    """Empty names, and names that differ only in case, spaces or punctuation."""
    counts = Counter(evidence.episodes.task)
    findings = []
    empty = [i for i, task in enumerate(evidence.episodes.task) if not task.strip()]
    if empty:
        findings.append(
            Finding(
                level="warning",
                seen=f"{len(empty)} of {len(evidence.episodes.task)} episodes have no task name",
                why="they all become one task, whatever they show",
                advice="name them or leave them out before converting",
                episodes=named(evidence.episodes.episode_id, empty),
                numbers={"empty": len(empty)},
            )
        )
    guessed = [i for i, task in enumerate(evidence.episodes.task) if task.strip() and not is_label(task)]
    if guessed:
        words = ", ".join(repr(task) for task in dict.fromkeys(evidence.episodes.task[i] for i in guessed[:20]))
        findings.append(
            Finding(
                level="warning",
                seen=f"the task of {len(guessed)} episodes is a number, a date or a word such as run: {words}",
                why="it comes from a path or counter and does not say what is done: different tasks share a name, or "
                "one task has many",
                advice="convert again into a new folder; --task and --blank-task say what the source does not",
                episodes=named(evidence.episodes.episode_id, guessed),
                numbers={"guessed": len(guessed)},
            )
        )
    same = defaultdict(list)
    for task in counts:
        if task.strip():
            same[plain_name(task)].append(task)
    groups = [sorted(names) for names in same.values() if len(names) > 1]
    if groups:
        words = "; ".join(" / ".join(f"{name!r} ({counts[name]})" for name in group) for group in groups[:3])
        findings.append(
            Finding(
                level="warning",
                seen=f"{len(groups)} task(s) under several spellings: {words}",
                why="each spelling is a task of its own to the policy: one task's data is split",
                advice="give them one name before converting",
                numbers={"groups": groups[:20]},
            )
        )
    return findings


def task_count(evidence: Evidence) -> list[Finding]:
    """Tasks with one episode each, and more tasks than a one-hot input bears."""
    counts = Counter(evidence.episodes.task)
    num_episodes = len(evidence.episodes.task)
    single = [task for task, count in counts.items() if count == 1]
    findings = []
    mostly_single = len(single) > len(counts) / 2 and len(counts) >= 5
    if len(counts) > MANY_TASKS or mostly_single:
        findings.append(
            Finding(
                level="warning",
                seen=f"{len(counts)} tasks for {num_episodes} episodes; {len(single)} tasks have a single episode",
                why="the policy is told the task as one of so many slots: a slot seen a few times is noise",
                advice="names that describe episodes, not tasks, should be merged before converting",
                numbers={"tasks": len(counts), "single_episode_tasks": len(single)},
            )
        )
    elif single:
        findings.append(
            Finding(
                level="note",
                seen=f"{len(single)} of {len(counts)} tasks have a single episode: "
                + ", ".join(repr(task) for task in single[:5]),
                why="such a task cannot be split into training and validation",
                advice="fine for broad pre-training data",
                episodes=named(
                    evidence.episodes.episode_id, [i for i, t in enumerate(evidence.episodes.task) if t in set(single)]
                ),
                numbers={"single_episode_tasks": len(single)},
            )
        )
    return findings


def plain_name(task: str) -> str:
    """A task name without case, spaces and punctuation."""
    return " ".join("".join(c if c.isalnum() else " " for c in task.casefold()).split())
