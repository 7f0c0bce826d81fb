"""Checks for the same episode twice, in one store or in several, and for stores that do not fit together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ptr_robot.diagnosis.actions import motion_gains
from ptr_robot.diagnosis.evidence import Evidence
from ptr_robot.diagnosis.finding import MAX_NAMED_EPISODES, Finding, Level
from ptr_robot.diagnosis.tasks import plain_name

__all__ = ["duplicate_episodes", "mismatched_stores", "shared_episodes"]

PREFIX_STEPS = 8
"""Episodes are compared in full where their first so many states and actions agree."""
ROUNDING = 1e-4
"""States and actions are compared at this share of their unit; re-encoding changes pictures, not numbers."""
DIFFERENT_GAIN = 2.0
"""Stores whose arms move twice as far for the same command do not mean the same by an action."""

Place = tuple[int, int]
"""(store, episode)"""


def duplicate_episodes(evidence: Evidence) -> list[Finding]:
    """The same episode more than once in one store, and in both of its splits."""
    groups = _groups([evidence])
    if not groups:
        return []
    splits = [{evidence.episodes.split[e] for _, e in group} for group in groups]
    leaking = [group for group, found in zip(groups, splits, strict=True) if {"train", "val"} <= found]
    findings = []
    if leaking:
        findings.append(_leak([evidence], leaking, "in both the training and the validation split"))
    rest = [group for group in groups if group not in leaking]
    if rest:
        findings.append(
            Finding(
                level="warning",
                seen=f"{len(rest)} episodes are stored more than once ({sum(map(len, rest))} copies, equal or cut): "
                + "; ".join(" = ".join(evidence.episodes.episode_id[e] for _, e in group) for group in rest[:3]),
                why="copies weigh more in training, and a random split puts one copy in training and one in validation",
                advice="leave the copies out before converting; a source read twice is the usual cause",
                episodes=_names([evidence], rest),
                numbers={"groups": len(rest), "copies": sum(map(len, rest))},
            )
        )
    return findings


def shared_episodes(stores: Sequence[Evidence]) -> list[Finding]:
    """The same episode in several stores: a leak where one is for training and the other for validation."""
    groups = [group for group in _groups(stores) if len({store for store, _ in group}) > 1]
    if not groups:
        return []
    leaking = []
    for group in groups:
        found = {stores[s].episodes.split[e] or _split_by_name(stores[s].path) for s, e in group}
        if {"train", "val"} <= found:
            leaking.append(group)
    findings = []
    if leaking:
        findings.append(_leak(stores, leaking, "both for training and for validation"))
    rest = [group for group in groups if group not in leaking]
    if rest:
        findings.append(
            Finding(
                level="warning",
                seen=f"{len(rest)} episodes are in more than one of these stores (equal, or one cut from the other)",
                why="they count twice when the stores are mixed; where one store is held out or is the new task, "
                "a result on it is not one on unseen data",
                advice="leave them out of one of the stores",
                episodes=_names(stores, rest),
                numbers={"shared": len(rest)},
            )
        )
    return findings


def mismatched_stores(stores: Sequence[Evidence]) -> list[Finding]:
    """Stores that cannot be mixed as they are: other actions, states, rates, cameras, spellings, motion per command."""
    findings = []
    first = stores[0]
    for other in stores[1:]:
        both = f"{first.path}, {other.path}"
        for level, fault in _mismatches(first, other):
            findings.append(
                Finding(
                    level=level,
                    store=both,
                    seen=fault,
                    why="mixed in one batch the same numbers mean different things",
                    advice="convert one of them to match before mixing",
                )
            )
    return findings


def _mismatches(a: Evidence, b: Evidence) -> list[tuple[Level, str]]:
    found: list[tuple[Level, str]] = []
    for field in ("names", "units"):
        for kind in ("action", "state"):
            left, right = getattr(getattr(a.meta, kind), field), getattr(getattr(b.meta, kind), field)
            if left != right:
                found.append(("error" if len(left) != len(right) else "warning", f"{kind} {field}: {left} and {right}"))
    if a.meta.action.names == b.meta.action.names:
        for field in ("low", "high"):
            left, right = getattr(a.meta.action, field), getattr(b.meta.action, field)
            if left != right:
                found.append(("warning", f"action bounds ({field}): {left} and {right}"))
        found += [("warning", fault) for fault in _different_gains(a, b)]
    if a.meta.control_hz != b.meta.control_hz:
        found.append(("warning", f"control rate: {a.meta.control_hz:g} and {b.meta.control_hz:g} Hz"))
    left, right = set(a.cameras), set(b.cameras)
    if not left & right:
        found.append(("warning", f"no camera of the same name: {sorted(left)} and {sorted(right)}"))
    spelled = {plain_name(task): task for task in a.episodes.task}
    twins = sorted({(spelled[k], t) for t in b.episodes.task if (k := plain_name(t)) in spelled and spelled[k] != t})
    if twins:
        found.append(("warning", "one task under two spellings: " + "; ".join(f"{x!r} / {y!r}" for x, y in twins[:3])))
    return found


def _different_gains(a: Evidence, b: Evidence) -> list[str]:
    left, right = motion_gains(a), motion_gains(b)
    names, faults = a.meta.action.names, []
    for pair in left.keys() & right.keys():
        (fit_a, gain_a), (fit_b, gain_b) = left[pair], right[pair]
        if min(abs(fit_a), abs(fit_b)) < 0.5 or gain_a == 0:
            continue
        ratio = gain_b / gain_a
        if not 1 / DIFFERENT_GAIN <= ratio <= DIFFERENT_GAIN:
            faults.append(f"{names[pair[0]]}: {gain_a:.3g} and {gain_b:.3g}")
    return ["motion per commanded unit: " + ", ".join(sorted(faults))] if faults else []


def _groups(stores: Sequence[Evidence]) -> list[list[Place]]:
    """Episodes that are the same: equal digest, or states and actions equal over the length of the shorter one."""
    by_digest: dict[str, list[Place]] = defaultdict(list)
    by_prefix: dict[bytes, list[Place]] = defaultdict(list)
    for s, evidence in enumerate(stores):
        for e, digest in enumerate(evidence.episodes.digest):
            if digest:
                by_digest[digest].append((s, e))
        for e, prefix in _prefixes(evidence):
            by_prefix[prefix].append((s, e))
    parent: dict[Place, Place] = {}

    def root(place: Place) -> Place:
        while parent.setdefault(place, place) != place:
            place = parent[place]
        return place

    for group in by_digest.values():
        for place in group[1:]:
            parent[root(place)] = root(group[0])
    for group in by_prefix.values():
        longest = max(group, key=lambda place: int(stores[place[0]].lengths[place[1]]))
        for place in group:
            if place != longest and _agree(stores, place, longest):
                parent[root(place)] = root(longest)
    joined: dict[Place, list[Place]] = defaultdict(list)
    for place in sorted(parent):
        joined[root(place)].append(place)
    return sorted(group for group in joined.values() if len(group) > 1)


def _numbers(evidence: Evidence, episode: int, count: int) -> np.ndarray:
    start = int(evidence.step_start[episode])
    return _rounded(evidence, np.arange(start, start + count))


def _rounded(evidence: Evidence, rows: np.ndarray) -> np.ndarray:
    """States and actions of some steps as whole numbers of ``ROUNDING``."""
    values = np.concatenate([evidence.states[rows], evidence.actions[rows]], axis=-1)
    return np.round(values / ROUNDING) + 0.0  # no negative zeros


def _prefixes(evidence: Evidence) -> Iterator[tuple[int, bytes]]:
    """(episode, digest of its first steps) of episodes that are long enough and move enough to be told apart."""
    long = np.flatnonzero(evidence.lengths >= PREFIX_STEPS)
    for block in np.array_split(long, max(1, len(long) // 4096)):
        numbers = _rounded(evidence, evidence.step_start[block][:, None] + np.arange(PREFIX_STEPS))
        changes = (np.diff(numbers, axis=1) != 0).any(axis=2).sum(axis=1)
        for episode, rows, changed in zip(block, numbers, changes, strict=True):
            if changed >= PREFIX_STEPS // 2:
                yield int(episode), hashlib.sha256(rows.tobytes()).digest()


def _agree(stores: Sequence[Evidence], a: Place, b: Place) -> bool:
    count = int(min(stores[a[0]].lengths[a[1]], stores[b[0]].lengths[b[1]]))
    left, right = _numbers(stores[a[0]], a[1], count), _numbers(stores[b[0]], b[1], count)
    return left.shape == right.shape and bool((left == right).all())


def _leak(stores: Sequence[Evidence], groups: list[list[Place]], where: str) -> Finding:
    return Finding(
        level="error",
        check="leaked_episodes",
        seen=f"{len(groups)} episodes are {where}",
        why="a validation result on episodes seen in training says nothing about new ones",
        advice="take validation episodes from training data of your own, and leave this split aside",
        episodes=_names(stores, groups),
        numbers={"leaked": len(groups)},
    )


def _names(stores: Sequence[Evidence], groups: list[list[Place]]) -> tuple[str, ...]:
    return tuple(stores[group[0][0]].episodes.episode_id[group[0][1]] for group in groups[:MAX_NAMED_EPISODES])


def _split_by_name(path: str) -> str:
    """The split that a store's folder is named after, if any."""
    words = set("".join(c if c.isalnum() else " " for c in path.rsplit("/", 1)[-1].lower()).split())
    return "val" if words & {"val", "validation", "test", "eval"} else "train" if "train" in words else ""
