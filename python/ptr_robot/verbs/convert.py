"""Converts robot data of other formats into a store.

Reads RLDS (TFRecord, without TensorFlow), raw Bridge folders and PTR's out.npy files. Run it again to go on after an
interruption: episodes that are in the store are skipped, and a finished conversion changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.errors import DataError
from ptr_robot.console.progress import Progress
from ptr_robot.datasets.detect import open_source
from ptr_robot.datasets.frames import JpegDecoders, convert_frames
from ptr_robot.datasets.options import Args
from ptr_robot.datasets.source import EpisodeHandle, Source, SourceEpisode
from ptr_robot.datasets.spaces import Space
from ptr_robot.datasets.summary import BAD_EPISODES, Summary, blank_told, list_bad, print_summary
from ptr_robot.datasets.target import (
    BlankTaskError,
    finish,
    matches_tasks,
    nothing_usable,
    open_writer,
    read_matching,
    remove_empty,
)

__all__ = ["BAD_EPISODES", "Args", "Summary", "convert", "main"]

EPISODES_PER_PART = 64
BYTES_PER_PART = 256 << 20


def main(args: Args) -> int:
    """Converts and says what came out; errors are raised."""
    source = open_source(args)
    for note in source.notes:
        print(f"note: {note}")
    summary = convert(args, source)
    print_summary(args, source, summary)
    return 0


def convert(args: Args, source: Source) -> Summary:
    """Reads every episode that the store does not have yet, in the source's order, and appends it.

    Raises:
        DataError: a bad episode with ``on_bad='stop'`` (what came before it is kept), episodes without an instruction
            (all others are kept), or no usable episode at all.
        ValueError: the store was made with other settings or from another source, or options do not fit the source.
    """
    summary, decoders = Summary(), _decoders(args)
    writer, space = open_writer(args, source)
    for note in space.notes:
        print(f"note: {note}")
    try:
        with writer, ThreadPoolExecutor(args.workers) as pool:
            try:
                _fill(args, source, writer, space, pool, decoders, summary)
            finally:  # what an error or Ctrl-C leaves is a whole store, too
                summary.space = finish(args, source, writer, space)
    finally:
        remove_empty(args.out)
    if summary.converted + summary.present > 0:
        list_bad(args.out, summary.bad)
    if summary.blank and args.on_bad == "stop":
        raise DataError(blank_told(args, summary))
    if summary.converted + summary.present == 0:
        raise DataError(nothing_usable(args, summary.bad))
    return summary


def _fill(
    args: Args,
    source: Source,
    writer: StoreWriter,
    space: Space,
    pool: ThreadPoolExecutor,
    decoders: JpegDecoders | None,
    summary: Summary,
) -> None:
    """Brings every episode into the store; what was read before an error or Ctrl-C is kept."""
    flags = {name: value for name, value in writer.meta.source.items() if isinstance(value, bool)}
    with Progress(_total(args, source), "convert", "episodes") as progress:
        try:
            for handle, result in _in_order(pool, args, source, writer, space, decoders):
                progress.advance()
                if result is None:
                    summary.present += 1
                else:
                    _take(args, handle, result, writer, flags, summary)
                if writer.num_pending >= EPISODES_PER_PART or writer.pending_bytes >= BYTES_PER_PART:
                    _commit(writer, flags)
                if args.limit is not None and summary.considered >= args.limit:
                    break
        except (DataError, KeyboardInterrupt):
            _commit(writer, flags)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    _commit(writer, flags)


def _decoders(args: Args) -> JpegDecoders | None:
    """What decodes whole episodes; None where simplejpeg, which the workers run side by side, is the faster one."""
    if args.decoder == "simplejpeg":
        return None
    import torch

    on_gpu = torch.cuda.is_available()
    if args.decoder == "auto" and not on_gpu:
        return None
    decoders = JpegDecoders(args.decoder, "cuda" if on_gpu else "cpu")
    print(f"decoder: {decoders.explain()}")
    return decoders


def _take(
    args: Args,
    handle: EpisodeHandle,
    result: Future[tuple[Episode, SourceEpisode] | None],
    writer: StoreWriter,
    flags: dict[str, bool],
    summary: Summary,
) -> None:
    """Adds one result to the writer, or counts it as filtered or bad."""
    try:
        made = result.result()
        if made is None:
            summary.filtered += 1
            return
        episode, read = made
        writer.add(episode)
    except DataError as error:
        if isinstance(error, BlankTaskError):
            summary.blank.append(handle.episode_id)  # all of them are listed before the conversion fails
        elif args.on_bad == "stop":
            raise
        summary.bad.append({"episode_id": handle.episode_id, "error": str(error)})
        return
    for name, value in read.flags.items():
        flags[name] = flags.get(name, True) and value
    summary.remarks.update(read.remarks if not args.task else ())
    summary.converted += 1


def _in_order(
    pool: ThreadPoolExecutor,
    args: Args,
    source: Source,
    writer: StoreWriter,
    space: Space,
    decoders: JpegDecoders | None,
) -> Iterator[tuple[EpisodeHandle, Future[Any] | None]]:
    """Handles in the source's order, each with its running work, or None where the store has it; few run ahead."""
    ahead: deque[tuple[EpisodeHandle, Future[Any] | None]] = deque()
    present = _tasks_by_shard(args.out)
    for shard in source.shards():
        tasks = present.get(shard.name, {})
        if shard.is_done(set(tasks)):
            handles: Iterable[EpisodeHandle] = [EpisodeHandle(episode_id=name, read=_never) for name in sorted(tasks)]
        else:
            handles = shard.episodes()
        for handle in handles:
            if handle.episode_id not in tasks:
                ahead.append((handle, pool.submit(_work, args, handle, writer.meta, space, decoders)))
            elif matches_tasks(args, tasks[handle.episode_id]):
                ahead.append((handle, None))
            if len(ahead) > 2 * args.workers:
                yield ahead.popleft()
    yield from ahead


def _work(
    args: Args, handle: EpisodeHandle, meta: StoreMeta, space: Space, decoders: JpegDecoders | None
) -> tuple[Episode, SourceEpisode] | None:
    """Reads one episode and converts its frames; None where its task is filtered out. Runs in a worker thread."""
    read = read_matching(args, handle)
    if read is None:
        return None
    frames = {
        camera.name: convert_frames(
            read.frames[camera.name],
            camera,
            args.jpeg_quality,
            f"episode {read.episode_id!r}, camera {camera.name!r}",
            decoders,
        )
        for camera in meta.cameras
    }
    names = ("episode_id", "task", "states", "domain", "split", "source", "outcome", "kind", "rewards")
    actions = _as_stored(read.actions, space)
    return Episode(**{name: getattr(read, name) for name in names}, actions=actions, frames=frames), read


def _as_stored(actions: np.ndarray, space: Space) -> np.ndarray:
    """Actions ``[T, A]`` with the gripper mirrored where that was asked for."""
    gripper = space.gripper
    if gripper is None or gripper.mirrored is None or gripper.dimension >= actions.shape[1]:
        return actions
    stored = actions.copy()
    stored[:, gripper.dimension] = gripper.mirrored - stored[:, gripper.dimension]
    return stored


def _commit(writer: StoreWriter, flags: dict[str, bool]) -> None:
    writer.commit()
    writer.update_meta(source={**writer.meta.source, **flags})


def _tasks_by_shard(path: Path) -> dict[str, dict[str, str]]:
    """Episode ids of the store and their tasks, by shard; an id is the shard's name, or that, ``#`` and a number."""
    out: dict[str, dict[str, str]] = {}
    episodes = EpisodeStore.open(path).episodes
    for episode_id, task in zip(episodes.episode_id, episodes.task, strict=True):
        out.setdefault(episode_id.rsplit("#", 1)[0], {})[episode_id] = task
    return out


def _total(args: Args, source: Source) -> int | None:
    """Episodes that will be looked at, where that is known."""
    counts = [shard.num_episodes for shard in source.shards()]
    known = [count for count in counts if count is not None]
    if args.tasks or len(known) < len(counts):
        return None
    return min(sum(known), args.limit or sum(known))


def _never() -> SourceEpisode:
    raise AssertionError("an episode of a finished shard is not read")
