"""Make a store of others: merge them, drop or split off episodes, rename tasks and cameras, say outcomes.

No frame is rewritten: the new store shares its frames with the old ones by hard links, which stay as they are. Episodes
are chosen by FIELD=PATTERN; FIELD is id, task, outcome, kind, domain, split or source, PATTERN may have * and ?:
--drop outcome=failure, --keep 'task=*drawer*'.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from ptr_robot.datasets.options import Values, pairs
from ptr_robot.datasets.task_names import is_blank

if TYPE_CHECKING:
    from ptr_fast.data.store import EpisodeStore
    from ptr_robot.datasets.edited_store import Edit

__all__ = ["Args", "main"]

FIELDS = {"id": "episode_id", **{name: name for name in ("task", "outcome", "kind", "domain", "split", "source")}}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which stores, and what becomes of them.

    Attributes:
        stores: One store, or several to merge.
        out: Store to make; it must not exist.
        keep: Only episodes that match one of these, FIELD=PATTERN.
        drop: No episode that matches one of these.
        rest: Store to make of all other episodes: splits in two. It must not exist.
        rename_task: OLD=NEW names of tasks; two with one new name become one task.
        rename_camera: OLD=NEW names of cameras.
        success: Episodes that have succeeded, FIELD=PATTERN, whatever was recorded.
        failure: Episodes that have failed.
        unknown: Episodes whose outcome is not known.
        prefix: Put the name of its store and a slash before each episode's id: stores to merge may use the same ids.
    """

    stores: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    keep: Values = ()
    drop: Values = ()
    rest: Path | None = None
    rename_task: Values = ()
    rename_camera: Values = ()
    success: Values = ()
    failure: Values = ()
    unknown: Values = ()
    prefix: bool = False

    def __post_init__(self) -> None:
        for name in ("keep", "drop", "rename_task", "rename_camera", "success", "failure", "unknown"):
            groups = ((group,) if isinstance(group, str) else group for group in getattr(self, name))
            object.__setattr__(self, name, tuple(value for group in groups for value in group))
        if not self.stores:
            raise ValueError("expected a store, or several to merge")
        if self.rest is not None and not (self.keep or self.drop):
            raise ValueError("--rest takes what --keep and --drop leave out: give one of them")
        if self.rest is not None:
            rest, out = self.rest.resolve(), self.out.resolve()
            if rest == out or rest in out.parents or out in rest.parents:
                told = f"got {self.rest} and {self.out}" if rest != out else f"got {self.out} for both"
                raise ValueError(f"--rest and --out: expected two folders, none inside the other, {told}")


def main(args: Args) -> int:
    """Makes the store, or both, and says what is in them."""
    from ptr_fast.data.store import EpisodeStore
    from ptr_fast.data.store_meta import refuse_inside_a_store
    from ptr_robot.datasets.edited_store import write_edited

    stores = [EpisodeStore.open(path) for path in args.stores]
    _check_used(args, stores)
    edits = [_edit(args, store) for store in stores]
    targets = [(args.out, edits)] + ([(args.rest, [_others(edit) for edit in edits])] if args.rest else [])
    for out, chosen in targets:  # before the first is written: both are made or none
        if out.exists():
            raise ValueError(f"{out}: there already; choose another folder")
        refuse_inside_a_store(out)
        if not any(edit.keep.any() for edit in chosen):
            raise ValueError(f"{out}: no episode would be in it")
    copies: list[int] = []
    try:
        for out, chosen in targets:
            copies.append(write_edited(out, chosen))
    except BaseException:
        for out, _ in targets[: len(copies)]:
            shutil.rmtree(out)
        raise
    for (out, chosen), copied in zip(targets, copies, strict=True):
        made = EpisodeStore.open(out)
        told = f", {copied / 1e6:.0f} MB copied (another file system)" if copied else ", no frame copied"
        of = sum(edit.store.num_episodes for edit in chosen)
        print(f"{out}: {made.num_episodes} of {of} episodes, {made.num_steps} steps{told}")
    return 0


def _edit(args: Args, store: EpisodeStore) -> Edit:
    from ptr_robot.datasets.edited_store import Edit

    table = store.episodes
    columns: dict[str, list[str]] = {}
    if args.rename_task:
        tasks = _renames(args.rename_task, "rename-task")
        columns["task"] = [tasks.get(task, task) for task in table.task]
    columns["outcome"] = _outcomes(args, store)
    if args.prefix:
        name = store.path.resolve().name
        columns["episode_id"] = [f"{name}/{episode_id}" for episode_id in table.episode_id]
    keep = np.array(_matching(store, args.keep), bool) if args.keep else np.ones(store.num_episodes, bool)
    keep &= ~np.array(_matching(store, args.drop), bool)
    cameras = _renames(args.rename_camera, "rename-camera")
    own = {old: new for old, new in cameras.items() if old in {camera.name for camera in store.meta.cameras}}
    return Edit(store=store, keep=keep, columns=columns, cameras=own)


def _outcomes(args: Args, store: EpisodeStore) -> list[str]:
    """Outcome of each episode; ValueError where two options say different ones."""
    outcomes, told = list(store.episodes.outcome), [""] * store.num_episodes
    for outcome in ("success", "failure", "unknown"):
        for e in np.flatnonzero(_matching(store, getattr(args, outcome))):
            if told[e]:
                episode_id = store.episodes.episode_id[e]
                raise ValueError(f"--{told[e]} and --{outcome}: both match episode {episode_id!r} of {store.path}")
            outcomes[e] = told[e] = outcome
    return outcomes


def _others(edit: Edit) -> Edit:
    from dataclasses import replace

    return replace(edit, keep=~edit.keep)


def _matching(store: EpisodeStore, patterns: Iterable[Any]) -> list[bool]:
    """Whether each episode matches one of the patterns, by what it was called before."""
    hits = [False] * store.num_episodes
    for text in patterns:
        field, pattern = _split(text)
        values = getattr(store.episodes, FIELDS[field])
        hits = [hit or fnmatchcase(value, pattern) for hit, value in zip(hits, values, strict=True)]
    return hits


def _split(text: str) -> tuple[str, str]:
    field, equals, pattern = text.partition("=")
    if not equals or field not in FIELDS:
        raise ValueError(f"expected FIELD=PATTERN with FIELD one of {list(FIELDS)}, got {text!r}")
    return field, pattern


def _renames(values: Iterable[Any], option: str) -> dict[str, str]:
    names = pairs(values, option)
    if blank := next((new for new in names.values() if is_blank(new)), None):
        raise ValueError(f"--{option}: expected a name, got {blank!r}")
    if option == "rename-camera" and (slashed := next((new for new in names.values() if "/" in new), None)):
        raise ValueError(f"--{option}: expected a name without '/', which names files, got {slashed!r}")
    return names


def _check_used(args: Args, stores: Sequence[EpisodeStore]) -> None:
    """Every pattern matches an episode and every old name is there: a slip of the pen changes nothing in silence.

    Raises:
        ValueError: names the option, and what there is.
    """
    for option in ("keep", "drop", "success", "failure", "unknown"):
        for text in getattr(args, option):
            if not any(any(_matching(store, [text])) for store in stores):
                raise ValueError(f"--{option} {text}: no episode matches")
    tasks = {task for store in stores for task in store.episodes.task}
    cameras = {camera.name for store in stores for camera in store.meta.cameras}
    for option, values, known in (
        ("rename-task", args.rename_task, tasks),
        ("rename-camera", args.rename_camera, cameras),
    ):
        for old in _renames(values, option):
            if old not in known:
                raise ValueError(f"--{option}: no {option[7:]} {old!r}; there are {sorted(known)[:20]}")
