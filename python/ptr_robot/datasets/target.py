"""The store that a conversion fills: making it from the first episodes, going on with it, finishing it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.data.store import EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.errors import DataError
from ptr_fast.types import CameraSpec
from ptr_robot.datasets.frames import camera_spec
from ptr_robot.datasets.options import Args
from ptr_robot.datasets.source import EpisodeHandle, Source, SourceEpisode
from ptr_robot.datasets.spaces import Space, describe, measured_bounds, refuted_by, share_outside

__all__ = [
    "BlankTaskError",
    "finish",
    "matches_tasks",
    "nothing_usable",
    "open_writer",
    "read_matching",
    "remove_empty",
]

LOOKED_INTO = 5
"""Usable episodes at the beginning whose majority says how many numbers and pixels all others have."""
CLIPPED = 0.01
"""Share of actions outside the bounds from which a conversion speaks of it."""


class BlankTaskError(DataError):
    """An episode without an instruction, where nothing was said about such episodes."""


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """What one of the first episodes looks like."""

    action_dim: int
    state_dim: int
    cameras: tuple[CameraSpec, ...]
    actions: np.ndarray

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.action_dim, self.state_dim, self.cameras


def open_writer(args: Args, source: Source) -> tuple[StoreWriter, Space]:
    """Goes on with the store at ``args.out``, or makes one that fits the first usable episodes.

    Raises:
        DataError: no episode can be used; ValueError: the options or the store do not fit the source.
    """
    if not (args.out / "meta.json").exists():
        samples = _first_samples(args, source)
        most = Counter(sample.shape for sample in samples).most_common(1)[0][0]
        alike = [sample for sample in samples if sample.shape == most]
        actions = np.concatenate([sample.actions for sample in alike])
        space = _described(args, source, most[0], most[1], actions)
        meta = StoreMeta(
            cameras=most[2],
            action=space.action,
            state=space.state,
            control_hz=space.control_hz,
            source=_about(args, source, space),
        )
        return StoreWriter.create(args.out, meta), space
    writer = StoreWriter.append(args.out)
    try:
        return writer, _gone_on_with(args, source, writer)
    except BaseException:
        writer.close()
        raise


def _gone_on_with(args: Args, source: Source, writer: StoreWriter) -> Space:
    stored, meta = writer.meta.source, writer.meta
    before = {"keys": {}, "flip_gripper": None, **stored.get("options", {})}
    mirrored = before["flip_gripper"]
    if args.flip_gripper != (mirrored is not None):
        made = "with" if mirrored is not None else "without"
        raise ValueError(f"{args.out}: cannot go on with this store: it was made {made} --flip-gripper")
    space = describe(
        args, source, source.layout, action_dim=meta.action.dim, state_dim=meta.state.dim, mirrored=mirrored
    )
    about = _about(args, source, space)
    if not before["keys"]:  # written before there was a choice
        before["keys"] = about["options"]["keys"]
    for name, then in (("format", stored.get("format")), ("name", stored.get("name")), ("options", before)):
        if then != about[name]:
            raise ValueError(
                f"{args.out}: cannot go on with this store: it was made with {name} {then}, "
                f"now it is {about[name]}; choose another folder for the store"
            )
    writer.update_meta(source={**stored, **about})
    return space


def _about(args: Args, source: Source, space: Space) -> dict[str, Any]:
    """``StoreMeta.source``: where the data comes from, and which settings its stored bytes depend on."""
    keys = {field: list(getattr(source.keys, field)) for field in ("action", "state") if getattr(source.keys, field)}
    options = {name: getattr(args, name) for name in ("image_size", "encoding", "jpeg_quality", "seed")}
    return {
        "format": source.format,
        "name": args.source.resolve().name,
        "fingerprint": source.fingerprint(),
        "layout": space.layout,
        "unknown": list(space.unknown),
        "options": {
            "cameras": list(source.cameras),
            **options,
            "control_hz": space.control_hz,
            "keys": keys,
            "flip_gripper": space.gripper.mirrored if space.gripper else None,
        },
    }


def _described(args: Args, source: Source, action_dim: int, state_dim: int, actions: np.ndarray) -> Space:
    """What is known of the numbers; nothing from a recognised layout that the first actions do not fit."""
    space = describe(args, source, source.layout, action_dim=action_dim, state_dim=state_dim, sample=actions)
    told = refuted_by(space, source.layout, actions)
    if told:
        space = describe(args, source, None, action_dim=action_dim, state_dim=state_dim, sample=actions)
    return replace(space, notes=(*space.notes, *([told] if told else [])))


def _first_samples(args: Args, source: Source) -> list[_Sample]:
    """The first usable episodes; one that is not is passed over, unless it is the very first and bad ones stop."""
    samples: list[_Sample] = []
    bad: list[dict[str, str]] = []
    for handle in _handles(source):
        try:
            episode = read_matching(args, handle, needs_task=False)
            if episode is None:
                continue
            sample = _sample(args, source, episode)
        except DataError as error:
            if args.on_bad == "stop" and not samples:
                raise
            bad.append({"error": str(error)})
            continue
        samples.append(sample)
        if len(samples) == LOOKED_INTO:
            break
    if not samples:
        raise DataError(nothing_usable(args, bad))
    return samples


def _handles(source: Source) -> Iterator[EpisodeHandle]:
    for shard in source.shards():
        yield from shard.episodes()


def _sample(args: Args, source: Source, episode: SourceEpisode) -> _Sample:
    cameras = []
    for name in source.cameras:
        where = f"episode {episode.episode_id!r}, camera {name!r}, step 0"
        cameras.append(camera_spec(name, episode.frames[name][0], args.image_size, args.encoding, where))
    return _Sample(
        action_dim=episode.actions.shape[1],
        state_dim=episode.states.shape[1],
        cameras=tuple(cameras),
        actions=episode.actions[np.isfinite(episode.actions).all(axis=1)],
    )


def finish(args: Args, source: Source, writer: StoreWriter, space: Space) -> Space:
    """Gives the store its final names, units and bounds, from all of its actions; returns them, with notes."""
    store = EpisodeStore.open(args.out)
    if store.num_episodes == 0:
        return space
    rows = store.action[np.isfinite(store.action).all(axis=1)]
    notes = []
    if told := refuted_by(space, source.layout, rows):
        notes.append(told)
        mirrored = space.gripper.mirrored if space.gripper else None
        action_dim, state_dim = space.action.dim, space.state.dim
        space = describe(args, source, None, action_dim=action_dim, state_dim=state_dim, mirrored=mirrored)
    action = space.action
    if action.bounds_source == "unfinished":
        action = measured_bounds(action, rows, space.gripper)
    share = share_outside(action, rows)
    if action.bounds_source != "data" and share.max() > CLIPPED:
        words = ", ".join(f"{100 * share[i]:.0f} % of {action.names[i]}" for i in np.flatnonzero(share > CLIPPED))
        notes.append(
            f"outside the bounds ({action.bounds_source}), and clipped when loaded: {words}; "
            "--bounds data measures them, ptr-fast doctor says more"
        )
    space = replace(space, action=replace(action, clip=writer.meta.action.clip), notes=tuple(notes))
    about = {"layout": space.layout, "unknown": list(space.unknown)}
    writer.update_meta(action=space.action, state=space.state, source={**writer.meta.source, **about})
    return space


def nothing_usable(args: Args, bad: list[dict[str, str]]) -> str:
    """Why a conversion has no episode at all, in one line."""
    wanted = f" whose task contains one of {list(args.tasks)}" if args.tasks else ""
    reason = f"; {len(bad)} bad ones, the first: {bad[0]['error']}" if bad else ""
    return f"{args.source}: no usable episode{wanted}{reason}"


def remove_empty(path: Path) -> None:
    """Removes a store that holds no episode, so that a conversion that failed leaves nothing behind."""
    if (path / "meta.json").exists() and EpisodeStore.open(path).num_episodes == 0:
        for name in ("meta.json", "writer.lock"):
            (path / name).unlink(missing_ok=True)
        for name in ("steps", "episodes"):
            shutil.rmtree(path / name, ignore_errors=True)
        if not any(path.iterdir()):
            path.rmdir()


def read_matching(args: Args, handle: EpisodeHandle, needs_task: bool = True) -> SourceEpisode | None:
    """The episode with its task, or None where that is filtered out.

    Raises:
        BlankTaskError: it has no instruction, a task is needed, and no option says one.
        DataError: it cannot be read.
    """
    known = args.task or handle.task
    if known and not matches_tasks(args, known):
        return None
    try:
        episode = handle.read()
    except OSError as error:
        raise DataError(f"episode {handle.episode_id!r}: {error.filename}: {error.strerror}") from error
    task = args.task or episode.task or args.blank_task
    if not matches_tasks(args, task):
        return None
    if needs_task and not task:
        raise BlankTaskError(
            f"episode {handle.episode_id!r} has no instruction: say its task with --task or --blank-task"
        )
    return replace(episode, task=task)


def matches_tasks(args: Args, task: str) -> bool:
    """Whether a task contains one of the wanted texts."""
    return not args.tasks or any(text.lower() in task.lower() for text in args.tasks)
