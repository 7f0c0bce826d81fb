"""Writes a store of JPEG frames anew so that a GPU can decode them inside its step (--frames device-jpeg).

Every frame gets restart markers and the standard Huffman tables; its coefficients, and so its pixels, stay what they
are, and all else is copied. The store itself is not touched. The new one appears under its name when it is whole; run
the verb again to go on after an interruption.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ptr_fast.data.jpeg_restart import ENCODING, add_restarts
from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.data.store_meta import refuse_inside_a_store
from ptr_fast.errors import DataError
from ptr_fast.files import sync_directory
from ptr_robot.console.progress import Progress

__all__ = ["Args", "Sizes", "main", "repack"]

EPISODES_PER_PART = 64
BYTES_PER_PART = 256 << 20
BESIDE = ("bad_episodes.json",)  # of a store, and copied with it


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to repack.

    Attributes:
        store: Store whose cameras hold JPEG frames.
        out: The new store. Default: beside the old one, with -restart behind its name.
    """

    store: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of all frames.

    Attributes:
        num_frames: of all cameras.
        before, after: bytes of their files.
    """

    num_frames: int
    before: int
    after: int


def main(args: Args) -> int:
    """Repacks and says the sizes; errors are raised."""
    out = args.out or args.store.resolve().with_name(args.store.resolve().name + "-restart")
    sizes = repack(args.store, out)
    change = 100.0 * (sizes.after / sizes.before - 1.0)
    print(
        f"{out}: {sizes.num_frames} frames, {sizes.before / 1e6:.1f} MB before, {sizes.after / 1e6:.1f} MB after "
        f"({change:+.1f} %); the pixels are the same"
    )
    return 0


def repack(path: Path, out: Path) -> Sizes:
    """Writes the store at ``path`` to ``out`` with every JPEG frame repacked.

    Raises:
        DataError: a frame that is no baseline JPEG in grey or YCbCr, with its episode, camera and step; what came
            before it is kept for the next try.
        ValueError: no camera holds JPEG frames, all have restart markers already, ``out`` exists or lies inside a
            store, or another store was being repacked to it.
    """
    store = EpisodeStore.open(path)
    meta = _repacked_meta(store)
    refuse_inside_a_store(out)
    if out.exists():
        raise ValueError(f"{out}: exists already; choose another --out")
    partial = out.with_name(out.name + ".partial")
    with _writer(partial, meta) as writer:
        try:
            _fill(writer, store)
        except (DataError, KeyboardInterrupt):
            writer.commit()
            raise
    for name in BESIDE:
        if (path / name).is_file():
            shutil.copy2(path / name, partial / name)
    (partial / "writer.lock").unlink(missing_ok=True)
    os.rename(partial, out)
    sync_directory(out.parent)
    return _sizes(store, EpisodeStore.open(out))


def _fill(writer: StoreWriter, store: EpisodeStore) -> None:
    with Progress(store.num_episodes, "repack", "episodes") as progress:
        for episode in _episodes(store, writer):
            if episode is not None:
                writer.add(_repacked(episode, store.path, writer.meta))
            if writer.num_pending >= EPISODES_PER_PART or writer.pending_bytes >= BYTES_PER_PART:
                writer.commit()
            progress.advance()


def _repacked_meta(store: EpisodeStore) -> StoreMeta:
    meta = store.meta
    if store.num_records == 0:
        raise ValueError(f"{store.path}: the store holds no episode")
    if not any(camera.is_jpeg for camera in meta.cameras):
        raise ValueError(f"{store.path}: no camera holds JPEG frames, there is nothing to repack")
    if all(camera.encoding != "jpeg" for camera in meta.cameras):
        raise ValueError(f"{store.path}: its JPEG frames are stored as {ENCODING} already")
    cameras = tuple(replace(camera, encoding=ENCODING) if camera.is_jpeg else camera for camera in meta.cameras)
    source: dict[str, Any] = {**meta.source, "repacked_from": store.fingerprint()}
    if source.get("options", {}).get("encoding") == "jpeg":  # a conversion that goes on does so in the same encoding
        source["options"] = {**source["options"], "encoding": ENCODING}
    return replace(meta, cameras=cameras, source=source)


def _writer(partial: Path, meta: StoreMeta) -> StoreWriter:
    if not (partial / "meta.json").exists():
        return StoreWriter.create(partial, meta)
    writer = StoreWriter.append(partial, meta)
    if writer.meta.source != meta.source:
        writer.close()
        raise ValueError(f"{partial}: another store was being repacked to here; remove it or choose another --out")
    return writer


def _episodes(store: EpisodeStore, writer: StoreWriter) -> Iterator[Episode | None]:
    """Episodes in the order of the store; None where the new store has it."""
    table = store.episodes
    words = ("episode_id", "task", "outcome", "kind", "domain", "split", "source", "rewards")
    for number in range(len(table)):
        about = {name: getattr(table, name)[number] for name in words}
        if about["episode_id"] in writer:
            yield None
            continue
        first, steps = int(table.first[number]), int(table.num_steps[number])
        records = range(first, first + int(table.num_frames[number]))
        frames: dict[str, Any] = {
            camera.name: [bytes(store.frame_bytes(camera.name, record)) for record in records]
            for camera in store.meta.cameras
        }
        states, actions = store.state[first : records.stop], store.action[first : first + steps]
        yield Episode(**about, states=states, actions=actions, frames=frames)


def _repacked(episode: Episode, path: Path, meta: StoreMeta) -> Episode:
    frames: dict[str, Any] = dict(episode.frames)
    for camera in meta.cameras:
        if not camera.is_jpeg:
            continue
        packed = []
        for step, frame in enumerate(episode.frames[camera.name]):
            try:
                packed.append(add_restarts(frame))
            except DataError as error:
                where = f"{path}: episode {episode.episode_id!r}, camera {camera.name!r}, step {step}"
                raise DataError(f"{where}: {error}") from error
        frames[camera.name] = packed
    return replace(episode, frames=frames)


def _sizes(old: EpisodeStore, new: EpisodeStore) -> Sizes:
    def total(store: EpisodeStore) -> int:
        names = [camera.name for camera in store.meta.cameras if camera.is_jpeg]
        return sum(int(offsets[-1]) for name in names for _, offsets, _ in store.frame_parts(name))

    num_cameras = sum(camera.is_jpeg for camera in old.meta.cameras)
    return Sizes(num_frames=num_cameras * old.num_records, before=total(old), after=total(new))
