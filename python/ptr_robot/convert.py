"""Converts robot data of other formats into a store.

Reads RLDS (TFRecord, without TensorFlow), raw Bridge folders and PTR's out.npy files. Run it again to go on after an
interruption: episodes that are in the store are skipped, and a finished conversion changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically
from ptr_robot.datasets.detect import Format, open_source
from ptr_robot.datasets.frames import JpegDecoders, convert_frames
from ptr_robot.datasets.source import EpisodeHandle, Source, SourceEpisode
from ptr_robot.datasets.target import final_action_spec, matches_tasks, nothing_usable, open_writer, read_matching
from ptr_robot.progress import Progress

__all__ = ["Args", "Summary", "convert", "main"]

EPISODES_PER_PART = 64
BYTES_PER_PART = 256 << 20
BAD_EPISODES = "bad_episodes.json"
TASKS_SHOWN = 20


_LARGEST_JPEG = 65_500  # pixels of height or width, libjpeg's JPEG_MAX_DIMENSION


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to convert, and how."""

    source: Path
    """Folder of the source data."""
    out: Path
    """Store to make or to go on with."""
    format: Format = "auto"
    """Layout of the source; auto looks for features.json, raw/traj_group* folders and out.npy files."""
    cameras: tuple[str, ...] = ()
    """Cameras to take, e.g. image_0 image_1; none given takes all that are present."""
    image_size: int | None = None
    """Height and width of the stored frames, pixels (the paper: 128); None keeps the source's size."""
    encoding: Literal["jpeg", "raw"] = "jpeg"
    """jpeg keeps JPEG frames of the right size byte for byte; raw stores pixels (faster to read, 10 times larger)."""
    jpeg_quality: int = 95
    """Quality of frames that are encoded anew, 1 to 100."""
    workers: int = 2
    """Threads that decode, resize and encode."""
    decoder: Literal["auto", "simplejpeg", "dali"] = "auto"
    """What decodes JPEG frames that have to be resized; auto takes DALI where there is a GPU, which decodes there."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What a bad episode does: stop with its error, or skip it and list it in bad_episodes.json of the store."""
    bounds: Literal["reference", "data"] = "reference"
    """Action range that becomes [-1, 1]: reference is Bridge's (0.05 m, 0.25 rad, gripper 0 to 1); data takes the 1st
    and 99th percentile of each dimension over the whole store (low-dimensional columns only)."""
    control_hz: float = 5.0
    """Steps per second of the source."""
    tasks: tuple[str, ...] = ()
    """Only episodes whose task contains one of these texts (case does not matter)."""
    limit: int | None = None
    """Only the first so many matching episodes of the source; None takes all."""
    seed: int = 0
    """Of the train/validation split where the source has none (raw Bridge)."""

    def __post_init__(self) -> None:
        for name, least in (("image_size", 1), ("workers", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name.replace('_', '-')} must be at least {least}, got {value}")
        if self.image_size is not None and self.image_size > _LARGEST_JPEG:
            raise ValueError(f"image-size must be at most {_LARGEST_JPEG} pixels (of JPEG), got {self.image_size}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg-quality must lie in 1..100, got {self.jpeg_quality}")
        if not self.control_hz > 0:
            raise ValueError(f"control-hz must be positive, got {self.control_hz}")


@dataclass
class Summary:
    """What a conversion did."""

    converted: int = 0
    present: int = 0
    filtered: int = 0
    bad: list[dict[str, str]] = field(default_factory=list)

    @property
    def considered(self) -> int:
        """Episodes that count towards a limit."""
        return self.converted + self.present + len(self.bad)


def main(args: Args) -> int:
    """Converts and says what came out; errors are raised."""
    source = open_source(args.source, args.format, args.cameras, args.seed)
    for note in source.notes:
        print(f"note: {note}")
    summary = convert(args, source)
    store = EpisodeStore.open(args.out)
    frame = ", ".join(f"{c.name} {c.height}x{c.width} {c.encoding}" for c in store.meta.cameras)
    print(f"{args.out}: {store.num_episodes} episodes, {store.num_steps} steps, {frame}")
    print(f"now: {summary.converted} converted, {summary.present} there already, {summary.filtered} filtered out")
    counts = Counter(store.episodes.task).most_common()
    for task, count in counts[:TASKS_SHOWN]:
        print(f"  {count:6d}  {task}")
    if len(counts) > TASKS_SHOWN:
        print(f"          and {len(counts) - TASKS_SHOWN} more tasks")
    if summary.bad:
        print(f"{len(summary.bad)} bad episodes left out, all in {args.out / BAD_EPISODES}; the first:")
        print(f"  {summary.bad[0]['error']}")
    return 0


def convert(args: Args, source: Source) -> Summary:
    """Reads every episode that the store does not have yet, in the source's order, and appends it.

    Raises:
        DataError: a bad episode with ``on_bad='stop'`` (what came before it is kept), or no usable episode at all.
        ValueError: the store was made with other settings or from another source.
    """
    summary, decoders = Summary(), _decoders(args)
    with open_writer(args, source) as writer, ThreadPoolExecutor(args.workers) as pool:
        flags = {name: value for name, value in writer.meta.source.items() if isinstance(value, bool)}
        with Progress(_total(args, source), "convert", "episodes") as progress:
            try:
                for handle, result in _in_order(pool, args, source, writer, decoders):
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
        if summary.converted + summary.present == 0:
            raise DataError(nothing_usable(args, summary.bad))
        writer.update_meta(action=final_action_spec(args, writer.meta.action, args.out))
    _report_bad(args.out, summary.bad)
    return summary


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
    result: Future[tuple[Episode, dict[str, bool]] | None],
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
        episode, own_flags = made
        writer.add(episode)
    except DataError as error:
        if args.on_bad == "stop":
            raise
        summary.bad.append({"episode_id": handle.episode_id, "error": str(error)})
        return
    for name, value in own_flags.items():
        flags[name] = flags.get(name, True) and value
    summary.converted += 1


def _in_order(
    pool: ThreadPoolExecutor, args: Args, source: Source, writer: StoreWriter, decoders: JpegDecoders | None
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
                ahead.append((handle, pool.submit(_work, args, handle, writer.meta, decoders)))
            elif matches_tasks(args, tasks[handle.episode_id]):
                ahead.append((handle, None))
            if len(ahead) > 2 * args.workers:
                yield ahead.popleft()
    yield from ahead


def _work(
    args: Args, handle: EpisodeHandle, meta: StoreMeta, decoders: JpegDecoders | None
) -> tuple[Episode, dict[str, bool]] | None:
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
    names = ("episode_id", "task", "states", "actions", "domain", "split", "source")
    return Episode(**{name: getattr(read, name) for name in names}, frames=frames), dict(read.flags)


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


def _report_bad(path: Path, bad: list[dict[str, str]]) -> None:
    file = path / BAD_EPISODES
    if bad:
        write_atomically(file, (json.dumps(bad, indent=2, ensure_ascii=False) + "\n").encode())
    else:
        file.unlink(missing_ok=True)


def _never() -> SourceEpisode:
    raise AssertionError("an episode of a finished shard is not read")
