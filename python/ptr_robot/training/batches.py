"""From the sources of a run to its batches: where the frames lie is measured, chosen and told."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from ptr_fast.config import PolicySpec, RewardConfig
from ptr_fast.data.dali_loader import DaliLoader, why_not_dali
from ptr_fast.data.device_frames import DeviceFrames, num_frames_of
from ptr_fast.data.frames import FrameSource, FrameSourceInfo, free_memory, open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.store_meta import MAX_VERIFIED_BYTES
from ptr_fast.data.tiers import FrameSizes, Tier, choose_tier, explain_tiers, frame_tiers, step_reserve_bytes
from ptr_fast.data.transitions import Transitions
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.traits import Traits
from ptr_fast.types import FRAMES, Window
from ptr_robot.device import num_local_ranks
from ptr_robot.training.config import LoopConfig
from ptr_robot.training.sources import Source, transitions_of

__all__ = ["Batches", "open_batches"]

Batches = Loader | DeviceFrames | DaliLoader

_DECODED_SHARE = 0.5  # of the host's free memory
_MAX_THREADS = 8  # that copy or decode frames, of each process


def open_batches(
    sources: Sequence[Source],
    mix: float,
    spec: PolicySpec,
    rewards: RewardConfig,
    loop: LoopConfig,
    device: torch.device,
    ranks: Ranks,
    is_new: bool,
    traits: Traits,
) -> tuple[Batches, str]:
    """The batches of a run and the tier they come from: the fastest that fits, or the one asked for; prints it.

    Args:
        traits: of the learner: what its batches hold. Where it looks at no frames, none are read.

    Under ``auto`` all ranks take the same tier, and a run that goes on takes none that changes pixels.

    Raises:
        ValueError: the tier that is asked for cannot be had.
        DataError: a store or a frame is broken.
    """
    columns, window = traits.columns, traits.window
    sources = [source for source in sources if len(source.train)]
    tables = [transitions_of(source, spec, rewards, source.train) for source in sources]
    sizes = [
        [len(rows) for source, rows in zip(sources, tables, strict=True) if source.role == role]
        for role in ("prior", "target")
    ]
    weights = _weights(sources, tables)
    sampler = MixtureSampler(
        *([s for s in sizes if s], mix, loop.batch_size, loop.seed, ranks.rank, ranks.world_size),
        weights=None if weights is None else np.concatenate(weights),
    )

    # One object per folder, however it is written: two sources may be episodes of one store.
    folders = [source.store.path.resolve() for source in sources]
    by_path = {folder: source.store for folder, source in zip(folders, sources, strict=True)}
    stores = [by_path[folder] for folder in folders]
    budget = (int(loop.memory_gib * 2**30) or int(free_memory() * _DECODED_SHARE)) // num_local_ranks()
    tiers = _measure(tables, stores, spec, loop.batch_size // ranks.world_size, device, budget, columns, window)
    taken = choose_tier(tiers, loop.frames, keep_pixels=not is_new)
    if loop.frames == "auto":
        taken = tiers[int(ranks.largest(tiers.index(taken)))]  # what fits one rank need not fit another
    print(f"frames: {explain_tiers(tiers, taken, loop.frames)}")
    for source, rows, share in zip(sources, tables, _told_shares(sources, weights), strict=True):
        counts = f"{len(source.train)} episodes, {len(rows)} transitions"
        print(f"{source.role} data {source.store.path}: {counts}{share}")

    cameras = [camera.name for camera in spec.cameras]
    if taken.name == "jpeg" and device.type == "cuda":
        why_not = why_not_dali(stores, cameras)
        print("frames: decoded " + (f"on the CPU: {why_not}" if why_not else "by DALI ahead of the step"))
        if why_not is None:
            _verify(by_path.values())
            dali = DaliLoader(tables, stores, cameras, sampler, device, columns=columns, window=window)
            return dali, taken.name
    frames_per_sample = len(cameras) * len(set(FRAMES) & set(columns)) * window.num_observations
    # A learner on the CPU needs the cores itself, and its steps leave one thread time enough.
    cores = len(os.sched_getaffinity(0)) // num_local_ranks()
    threads = 1 if device.type == "cpu" else max(1, min(_MAX_THREADS, cores))
    opened = {
        folder: {c: open_frames(store, c, budget if taken.name == "host" else 0, threads) for c in cameras}
        for folder, store in by_path.items()
    }
    _verify(by_path.values())  # after decoding, which names the record of a damaged frame
    frames: list[Mapping[str, FrameSource]] = [opened[folder] for folder in folders]
    if taken.name in ("device", "device-yuv420"):
        layout: Literal["rgb", "yuv420"] = "rgb" if taken.name == "device" else "yuv420"
        held = DeviceFrames(tables, frames, sampler, device, taken.what, layout, columns, window)
        for by_camera in opened.values():
            for source_of_frames in by_camera.values():
                source_of_frames.close()
        _print_rate(held.describe(), loop.batch_size, frames_per_sample)
        return held, taken.name
    for folder, by_camera in opened.items():
        for camera, source_of_frames in by_camera.items():
            where = f"{by_path[folder].path}: " + (f"camera {camera!r}: " if len(cameras) > 1 else "")
            _print_rate(source_of_frames.describe(), loop.batch_size, frames_per_sample, where)
    return Loader(tables, frames, sampler, device, columns=columns, window=window), taken.name


def _weights(sources: Sequence[Source], tables: Sequence[Transitions]) -> list[np.ndarray] | None:
    """How often each transition of each table is drawn compared with others; None where all are alike."""
    if not any(source.weights for source in sources):
        return None
    by_episode = [[source.weights.get(task, 1.0) for task in source.store.episodes.task] for source in sources]
    return [np.array(factors)[rows.episode] for factors, rows in zip(by_episode, tables, strict=True)]


def _told_shares(sources: Sequence[Source], weights: Sequence[np.ndarray] | None) -> list[str]:
    """Which share of the samples of its role each source has, where they are weighted."""
    if weights is None:
        return ["" for _ in sources]
    sums = [float(part.sum()) for part in weights]
    wholes = [sum(s for s, other in zip(sums, sources, strict=True) if other.role == mine.role) for mine in sources]
    return [
        f", weighted: {100 * part / whole:.3g} % of the {source.role} samples"
        for source, part, whole in zip(sources, sums, wholes, strict=True)
    ]


def _verify(stores: Iterable[EpisodeStore]) -> None:
    """Compares the stores of a moderate size with their checksums."""
    for store in stores:
        if store.num_bytes <= MAX_VERIFIED_BYTES:
            store.verify()


def _measure(
    tables: Sequence[Transitions],
    stores: Sequence[EpisodeStore],
    spec: PolicySpec,
    batch_size: int,
    device: torch.device,
    budget: int,
    columns: Collection[str],
    window: Window,
) -> list[Tier]:
    distinct = list(dict.fromkeys(stores))
    sizes = []
    for camera in spec.cameras:
        num_of = {"jpeg": 0, "raw": 0}
        for store in distinct:
            num_of[store.meta.camera(camera.name).encoding] += store.num_records
        sizes.append(
            FrameSizes(
                height=camera.height,
                width=camera.width,
                num_named=num_frames_of(tables, stores, columns),
                num_jpeg=num_of["jpeg"],
                num_raw=num_of["raw"],
            )
        )
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else free_memory() // num_local_ranks()
    num_pixels = window.num_observations * sum(camera.height * camera.width for camera in spec.cameras)
    reserve = step_reserve_bytes(batch_size, num_pixels) if on_gpu else free // 2
    return frame_tiers(sizes, device.type, free, reserve, budget)


def _print_rate(info: FrameSourceInfo, batch_size: int, frames_per_sample: int, where: str = "") -> None:
    rate = info.frames_per_second / frames_per_sample
    print(f"frames: {where}{info}; about {rate:,.0f} samples/s, {rate / batch_size:,.0f} steps/s of {batch_size}")
