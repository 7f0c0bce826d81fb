"""From the sources of a run to its batches: where the frames lie is measured, chosen and told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from ptr_fast.config import PolicySpec, RewardConfig
from ptr_fast.data.dali_loader import DaliLoader, why_not_dali
from ptr_fast.data.device_frames import DeviceFrames, num_frames_of
from ptr_fast.data.frames import FrameSource, FrameSourceInfo, free_memory, open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.packed_frames import why_not_packed
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.store_meta import MAX_VERIFIED_BYTES
from ptr_fast.data.tiers import FrameSizes, Tier, choose_tier, explain_tiers, frame_tiers, step_reserve_bytes
from ptr_fast.data.transitions import Transitions
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.traits import Traits
from ptr_fast.types import FRAMES
from ptr_robot.device import num_local_ranks
from ptr_robot.training.config import LoopConfig
from ptr_robot.training.sources import Source, transitions_of

__all__ = ["Batches", "open_batches"]

Batches = Loader | DeviceFrames | DaliLoader

_LAYOUTS: dict[str, Literal["rgb", "yuv420", "jpeg"]] = {
    "device": "rgb",
    "device-yuv420": "yuv420",
    "device-jpeg": "jpeg",
}
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
    critic_mix: float | None = None,
) -> tuple[Batches, str]:
    """The batches of a run and the tier they come from: the fastest that fits, or the one asked for; prints it.

    Under ``auto`` all ranks take the same tier, and a run that goes on takes none that changes pixels. Where the
    learner looks at no frames, none are read, and the tier is ``none``.

    Args:
        mix: share of the prior sources in a batch.
        traits: of the learner: which columns its batches have, and how much of an episode.
        critic_mix: share of the prior sources in the critic's loss; None: as in the batches.

    Raises:
        ValueError: the tier that is asked for cannot be had.
        DataError: a store or a frame is broken.
    """
    if rewards.lower_bound_returns:
        traits = replace(traits, columns=traits.columns | {"returns"})
    sources = [source for source in sources if len(source.train)]
    tables = [transitions_of(source, spec, rewards, source.train, traits.discount) for source in sources]
    if critic_mix is not None:
        traits = replace(traits, columns=traits.columns | {"critic_weight"})
        weight = {"prior": critic_mix / mix, "target": (1.0 - critic_mix) / (1.0 - mix)}
        for source, table in zip(sources, tables, strict=True):
            table.critic_weight = np.full(len(table), weight[source.role], np.float32)
        told = f"a sample of it counts {weight['prior']:.3g} times, one of the new task {weight['target']:.3g} times"
        print(f"critic: {critic_mix:g} of its loss from prior data: {told}")
    weights = _weights(sources, tables)
    sampler = _sampler(sources, tables, mix, weights, loop, ranks)
    # One object per folder, however it is written: two sources may be episodes of one store.
    folders = [(source.store.path.resolve(), tuple(source.store.stored_names.items())) for source in sources]
    by_folder = {folder: source.store for folder, source in zip(folders, sources, strict=True)}
    stores = [by_folder[folder] for folder in folders]
    data = _Data(tables, stores, sampler, traits, [camera.name for camera in spec.cameras], device, loop.batch_size)
    if data.frames_per_sample:
        budget = (int(loop.memory_gib * 2**30) or int(free_memory() * _DECODED_SHARE)) // num_local_ranks()
        tiers = _measure(data, spec, ranks.world_size, budget)
        taken = choose_tier(tiers, loop.frames, keep_pixels=not is_new)
        if loop.frames == "auto":
            taken = tiers[int(ranks.largest(tiers.index(taken)))]  # what fits one rank need not fit another
        print(f"frames: {explain_tiers(tiers, taken, loop.frames)}")
    else:
        print(f"frames: none, since {traits.name} looks at states alone here")
    for source, rows, share in zip(sources, tables, _told_shares(sources, weights), strict=True):
        counts = f"{len(source.train)} episodes, {len(rows)} transitions"
        print(f"{source.role} data {source.store.path}: {counts}{share}")
    if not data.frames_per_sample:
        return data.without_frames(), "none"
    if taken.name == "jpeg" and device.type == "cuda":
        why_not = why_not_dali(stores, data.cameras)
        print("frames: decoded " + (f"on the CPU: {why_not}" if why_not else "by DALI ahead of the step"))
        if why_not is None:
            _verify(stores)
            return DaliLoader(tables, stores, data.cameras, sampler, device, **data.form), taken.name
    return data.with_frames(taken, budget), taken.name


@dataclass(frozen=True)
class _Data:
    """What the batches of a run are made of; ``stores`` are those of the tables."""

    tables: list[Transitions]
    stores: list[EpisodeStore]
    sampler: MixtureSampler
    traits: Traits
    cameras: list[str]
    device: torch.device
    batch_size: int

    @property
    def form(self) -> dict[str, Any]:
        """Which columns a batch has, and how much of an episode: arguments of everything that makes batches."""
        return {"columns": self.traits.columns, "window": self.traits.window}

    @property
    def frames_per_sample(self) -> int:
        """Frames of all cameras that one sample is made of."""
        columns = [name for name in FRAMES if name in self.traits.columns]
        return len(self.cameras) * len(columns) * self.traits.window.num_observations

    def without_frames(self) -> Batches:
        """Batches of states alone; the stores' frames are not touched."""
        by_store: dict[EpisodeStore, dict[str, FrameSource]] = {store: {} for store in self.stores}
        none = [by_store[store] for store in self.stores]
        if self.device.type == "cuda":
            return DeviceFrames(self.tables, none, self.sampler, self.device, "no frames", **self.form)
        return Loader(self.tables, none, self.sampler, self.device, **self.form)

    def with_frames(self, taken: Tier, budget: int) -> Batches:
        """Batches with the frames in a tier; prints how fast they come."""
        # A learner on the CPU needs the cores itself, and its steps leave one thread time enough.
        cores = len(os.sched_getaffinity(0)) // num_local_ranks()
        threads = 1 if self.device.type == "cpu" else max(1, min(_MAX_THREADS, cores))
        decoded = budget if taken.name == "host" else 0
        opened = {
            store: {camera: open_frames(store, camera, decoded, threads) for camera in self.cameras}
            for store in dict.fromkeys(self.stores)
        }
        _verify(opened)  # after decoding, which names the record of a damaged frame
        frames: list[Mapping[str, FrameSource]] = [opened[store] for store in self.stores]
        if taken.name not in _LAYOUTS:
            for store, by_camera in opened.items():
                for camera, source in by_camera.items():
                    which = f"{store.path}: " + (f"camera {camera!r}: " if len(self.cameras) > 1 else "")
                    self._print_rate(source.describe(), which)
            return Loader(self.tables, frames, self.sampler, self.device, **self.form)
        layout = _LAYOUTS[taken.name]
        held = DeviceFrames(self.tables, frames, self.sampler, self.device, taken.what, layout, **self.form)
        for by_camera in opened.values():
            for source in by_camera.values():
                source.close()
        self._print_rate(held.describe())
        return held

    def _print_rate(self, info: FrameSourceInfo, where: str = "") -> None:
        rate = info.frames_per_second / self.frames_per_sample
        steps = f"{rate / self.batch_size:,.0f} steps/s of {self.batch_size}"
        print(f"frames: {where}{info}; about {rate:,.0f} samples/s, {steps}")


def _sampler(
    sources: Sequence[Source],
    tables: Sequence[Transitions],
    mix: float,
    weights: Sequence[np.ndarray] | None,
    loop: LoopConfig,
    ranks: Ranks,
) -> MixtureSampler:
    """Which transitions make up a batch: those of the prior sources and of the target in the proportion ``mix``."""
    sizes = [
        [len(rows) for source, rows in zip(sources, tables, strict=True) if source.role == role]
        for role in ("prior", "target")
    ]
    return MixtureSampler(
        *([s for s in sizes if s], mix, loop.batch_size, loop.seed, ranks.rank, ranks.world_size),
        weights=None if weights is None else np.concatenate(weights),
    )


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


def _measure(data: _Data, spec: PolicySpec, num_ranks: int, budget: int) -> list[Tier]:
    sizes = []
    for camera in spec.cameras:
        num_of = {True: 0, False: 0}
        jpeg_bytes = 0
        for store in dict.fromkeys(data.stores):
            is_jpeg = store.meta.camera(camera.name).is_jpeg
            num_of[is_jpeg] += store.num_records
            if is_jpeg:
                jpeg_bytes += sum(int(offsets[-1]) for _, offsets, _ in store.frame_parts(camera.name))
        sizes.append(
            FrameSizes(
                height=camera.height,
                width=camera.width,
                num_named=num_frames_of(data.tables, data.stores, data.traits.columns),
                num_jpeg=num_of[True],
                num_raw=num_of[False],
                jpeg_bytes=jpeg_bytes,
                why_not_packed=why_not_packed(data.stores, camera.name, data.device),
            )
        )
    on_gpu = data.device.type == "cuda"
    free = torch.cuda.mem_get_info(data.device)[0] if on_gpu else free_memory() // num_local_ranks()
    num_pixels = data.traits.window.num_observations * sum(camera.height * camera.width for camera in spec.cameras)
    reserve = step_reserve_bytes(data.batch_size // num_ranks, num_pixels) if on_gpu else free // 2
    return frame_tiers(sizes, data.device.type, free, reserve, budget)
