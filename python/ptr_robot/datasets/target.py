"""The store that a conversion fills: making it from the first episode, going on with it, and its action bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptr_fast.data.store import EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.errors import DataError
from ptr_fast.types import ActionSpec
from ptr_robot.datasets.frames import camera_spec
from ptr_robot.datasets.source import EpisodeHandle, Source, SourceEpisode, action_names, state_spec

if TYPE_CHECKING:
    from ptr_robot.convert import Args

__all__ = ["final_action_spec", "matches_tasks", "nothing_usable", "open_writer", "read_matching"]

BRIDGE_LOW, BRIDGE_HIGH = (-0.05,) * 3 + (-0.25,) * 3 + (0.0,), (0.05,) * 3 + (0.25,) * 3 + (1.0,)
PERCENTILES = (0.01, 0.99)
# Half of a range that data never leaves: keeps low < high for a dimension that does not move.
SMALLEST_HALF_RANGE = 1e-3


def open_writer(args: Args, source: Source) -> StoreWriter:
    """Goes on with the store at ``args.out``, or makes one that fits the first usable episode."""
    about = {
        "format": source.format,
        "name": args.source.resolve().name,
        "fingerprint": source.fingerprint(),
        "options": {
            "cameras": list(source.cameras),
            **{name: getattr(args, name) for name in ("image_size", "encoding", "jpeg_quality", "control_hz", "seed")},
        },
    }
    if not (args.out / "meta.json").exists():
        return StoreWriter.create(args.out, _first_meta(args, source, about))
    writer = StoreWriter.append(args.out)
    stored = writer.meta.source
    for name in ("format", "name", "options"):
        if stored.get(name) != about[name]:
            writer.close()
            raise ValueError(
                f"{args.out}: cannot go on with this store: it was made with {name} {stored.get(name)}, "
                f"now it is {about[name]}; choose another folder for the store"
            )
    writer.update_meta(source={**stored, **about})
    return writer


def _first_meta(args: Args, source: Source, about: dict[str, Any]) -> StoreMeta:
    bad = []
    for shard in source.shards():
        for handle in shard.episodes():
            try:
                episode = read_matching(args, handle)
                if episode is None:
                    continue
                cameras = tuple(
                    camera_spec(
                        name,
                        episode.frames[name][0],
                        args.image_size,
                        args.encoding,
                        f"episode {episode.episode_id!r}, camera {name!r}, step 0",
                    )
                    for name in source.cameras
                )
            except DataError as error:
                if args.on_bad == "stop":
                    raise
                bad.append({"error": str(error)})
                continue
            return StoreMeta(
                cameras=cameras,
                action=first_action_spec(args, episode.actions.shape[1]),
                state=state_spec(episode.states.shape[1]),
                control_hz=args.control_hz,
                source=about,
            )
    raise DataError(nothing_usable(args, bad))


def nothing_usable(args: Args, bad: list[dict[str, str]]) -> str:
    """Why a conversion has no episode at all, in one line."""
    wanted = f" whose task contains one of {list(args.tasks)}" if args.tasks else ""
    reason = f"; {len(bad)} bad ones, the first: {bad[0]['error']}" if bad else ""
    return f"{args.source}: no usable episode{wanted}{reason}"


def first_action_spec(args: Args, dim: int) -> ActionSpec:
    """The action space before the whole store was seen."""
    names, units = action_names(dim)
    if args.bounds == "data":
        low, high = (-1.0,) * dim, (1.0,) * dim
        return ActionSpec(names=names, units=units, low=low, high=high, bounds_source="unfinished")
    if dim != len(BRIDGE_LOW):
        raise ValueError(
            f"bounds 'reference' are Bridge's, for {len(BRIDGE_LOW)} dimensions; these actions have {dim}: "
            "use bounds 'data'"
        )
    return ActionSpec(names=names, units=units, low=BRIDGE_LOW, high=BRIDGE_HIGH, bounds_source="reference")


def final_action_spec(args: Args, action: ActionSpec, path: Path) -> ActionSpec:
    """The action space with its final bounds."""
    if args.bounds == "reference":
        return replace(first_action_spec(args, action.dim), clip=action.clip)
    store = EpisodeStore.open(path)
    rows = store.action[np.isfinite(store.action).all(axis=1)]
    low, high = np.quantile(rows.astype(np.float64), PERCENTILES, axis=0)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, SMALLEST_HALF_RANGE)
    low, high = (tuple(round(float(value), 9) for value in bound) for bound in (centre - half, centre + half))
    return replace(action, low=low, high=high, bounds_source="data")


def read_matching(args: Args, handle: EpisodeHandle) -> SourceEpisode | None:
    """The episode, or None where its task is filtered out."""
    if handle.task is not None and not matches_tasks(args, handle.task):
        return None
    episode = handle.read()
    return episode if matches_tasks(args, episode.task) else None


def matches_tasks(args: Args, task: str) -> bool:
    """Whether a task contains one of the wanted texts."""
    return not args.tasks or any(text.lower() in task.lower() for text in args.tasks)
