"""Batches from frames on the device: bit by bit the loader's, also with the step in a tensor, and at any size."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.device_frames import DeviceFrames, num_frames_of
from ptr_fast.data.frames import open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.kernels.augment import yuv420
from ptr_fast.kernels.dispatch import use_backend
from ptr_fast.types import TRANSITION, Batch, PooledFrames

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
TASKS = TaskTable(names=("put carrot on plate",), num_slots=4)


@pytest.fixture
def sources(make_store):
    """Three tables, two of one store, which holds episodes that no table names: (tables, frame sources)."""
    old = EpisodeStore.open(make_store(parts=((5, 3), (4, 7)), name="old"))
    new = EpisodeStore.open(make_store(parts=((6,),), encoding="raw", name="new"))

    def table(store, *episodes):
        options = dict(task_table=TASKS, action=store.meta.action, rewards=RewardConfig())
        return Transitions(store, episodes=np.array(episodes), **options)

    tables = [table(old, 0, 1), table(new, 0), table(old, 3)]
    opened = {store: {"image_0": open_frames(store, "image_0")} for store in (old, new)}
    return tables, [opened[t.store] for t in tables]


def mixture(tables, batch_size=8, weights=None):
    sizes = [len(t) for t in tables]
    return MixtureSampler([sizes[:2], sizes[2:]], 0.5, batch_size, seed=3, weights=weights)


def plain(batch: Batch) -> dict[str, torch.Tensor]:
    """All tensors of a batch, frames gathered, on the CPU."""
    return {
        name: (gathered(v) if isinstance(v, PooledFrames) else v).cpu().clone() for name, v in batch.tensors().items()
    }


def gathered(frames: PooledFrames) -> torch.Tensor:
    return yuv420.rgb_frames(frames.pool, frames.index.flatten()).unflatten(0, frames.index.shape)


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_the_loaders(sources, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    tables, frames = sources
    held = DeviceFrames(tables, frames, mixture(tables), device)
    with Loader(tables, frames, mixture(tables)) as loader:
        for step in (0, 1, 2, 3, 100):
            wanted, got = plain(loader.batch(step)), held.batch(step)
            counter = torch.tensor(step, device=device)
            for batch in (got, held.batch(counter)):
                for name, value in plain(batch).items():
                    assert torch.equal(value, wanted[name]), name
                    assert value.dtype == wanted[name].dtype


@pytest.mark.parametrize("device", DEVICES)
def test_targets_further_ahead_are_the_loaders(sources, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    tables, frames = sources
    rewards = RewardConfig(num_final_steps=1, num_steps=2, lower_bound_returns=True)
    tables = [
        Transitions(
            table.store,
            task_table=TASKS,
            action=table.store.meta.action,
            rewards=rewards,
            discount=0.9,
            episodes=np.unique(table.episode),
        )
        for table in tables
    ]
    columns = TRANSITION | {"returns"}
    held = DeviceFrames(tables, frames, mixture(tables), device, columns=columns)
    with Loader(tables, frames, mixture(tables), columns=columns) as loader:
        for step in (0, 1, 100):
            wanted, got = plain(loader.batch(step)), plain(held.batch(torch.tensor(step, device=device)))
            assert got.keys() == wanted.keys()
            for name, value in got.items():
                assert torch.equal(value, wanted[name]), name
            assert torch.isfinite(got["returns"]).all()
            assert (got["masks"] == np.float32(0.9)).any()


@pytest.mark.parametrize("device", DEVICES)
def test_planes_are_those_of_the_loaders_frames(sources, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    tables, frames = sources
    raw = DeviceFrames(tables, frames, mixture(tables), device)
    held = DeviceFrames(tables, frames, mixture(tables), device, layout="yuv420")
    assert held._pools["image_0"].nbytes * 2 == raw._pools["image_0"].nbytes
    assert str(held.describe()).startswith("device-yuv420 (asked for): 25 frames")
    for step in range(3):
        assert held.batch(step).images["image_0"].shape == raw.batch(step).images["image_0"].shape == (8, 1, 16, 24, 3)
        wanted, got = plain(raw.batch(step)), plain(held.batch(step))
        for name, value in wanted.items():
            if "images" in name:
                value = yuv420.decode(yuv420.encode(value[:, 0]))[:, None]
            assert torch.equal(got[name], value), name


def test_every_frame_is_held_once_and_no_other(sources):
    tables, frames = sources
    held = DeviceFrames(tables, frames, mixture(tables))
    assert held.num_frames == num_frames_of(tables, frames) == (6 + 4) + 7 + 8  # steps and last frame of each episode
    batch = held.batch(0)
    assert batch.images["image_0"].pool is batch.next_images["image_0"].pool
    assert held.num_bytes > held.num_frames * 16 * 24 * 3
    text = str(held.describe())
    assert text.startswith("device (asked for): 25 frames")


def test_what_is_compiled_at_first_is_not_part_of_the_rate(sources):
    tables, frames = sources
    held, compiling = DeviceFrames(tables, frames, mixture(tables)), [0.3]
    rows = held._sampler.rows

    def rows_after_compiling(step, device):
        time.sleep(compiling.pop() if compiling else 0.0)
        return rows(step, device)

    held._sampler = SimpleNamespace(rows=rows_after_compiling)
    assert held.describe().frames_per_second > 2 * 8 / 0.3


def test_loading_in_pieces(sources, monkeypatch):
    tables, frames = sources
    layouts = ("rgb", "yuv420")
    whole = [DeviceFrames(tables, frames, mixture(tables), layout=layout)._pools["image_0"] for layout in layouts]
    monkeypatch.setattr("ptr_fast.data.device_frames._LOAD_BYTES", 3 * 16 * 24 * 3)
    for layout, pool in zip(layouts, whole, strict=True):
        assert torch.equal(DeviceFrames(tables, frames, mixture(tables), layout=layout)._pools["image_0"], pool)


def test_sources_that_do_not_fit_together(sources):
    tables, frames = sources
    with pytest.raises(ValueError, match="one mapping of frame sources per table"):
        DeviceFrames(tables, frames[:1], mixture(tables))
    odd = {"image_0": SimpleNamespace(height=8, width=8, num_frames=1)}
    with pytest.raises(ValueError, match="all sources need the same cameras"):
        DeviceFrames(tables, [frames[0], odd, frames[2]], mixture(tables))


class SyntheticFrames:
    """Tiny frames that a number makes."""

    height = width = 2

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames

    def gather(self, records, out, rows=None):
        out[slice(None, len(records)) if rows is None else rows] = (records % 251).astype(np.uint8)[:, None, None, None]


def synthetic(num_steps: int) -> tuple[SimpleNamespace, SyntheticFrames]:
    record = np.arange(num_steps, dtype=np.int64)
    table = SimpleNamespace(
        record=record,
        next_record=record + 1,
        first_record=np.zeros(num_steps, np.int64),
        last_record=np.full(num_steps, num_steps - 1),
        state=np.zeros((num_steps + 1, 7), np.float32),
        action=np.zeros((num_steps + 1, 7), np.float32),
        rewards=np.zeros(num_steps, np.float32),
        masks=np.ones(num_steps, np.float32),
        task_id=np.zeros(num_steps, np.int64),
    )
    return table, SyntheticFrames(num_steps + 1)


@pytest.mark.parametrize("kind", ["loader", "device"])
def test_a_sample_costs_the_same_at_any_size(kind):
    """Best of many batches of 256 samples, 10^3 to 10^6 steps in turn: none costs three times as much as the first."""
    sizes = (10**3, 10**4, 10**5, 10**6)
    makers = []
    for num_steps in sizes:
        table, frames = synthetic(num_steps)
        sampler = MixtureSampler([[num_steps]], 1.0, 256, seed=0)
        if kind == "device":
            makers.append(DeviceFrames([table], [{"image_0": frames}], sampler).batch)
        else:
            with Loader([table], [{"image_0": frames}], sampler) as loader:
                slot = loader._free[0]
            makers.append(lambda step, loader=loader, slot=slot: loader._fill(slot, step))
    best = [float("inf")] * len(sizes)
    for step in range(60):
        for number, make in enumerate(makers):
            begin = time.perf_counter()
            make(step)
            best[number] = min(best[number], time.perf_counter() - begin)
    assert max(best) < 3.0 * best[0], dict(zip(sizes, best, strict=True))


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_device_sampler_reads_nothing_back(sources, is_weighted):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tape import capturable

    tables, frames = sources
    weights = 1.0 + np.arange(sum(map(len, tables))) % 3 if is_weighted else None
    held = DeviceFrames(tables, frames, mixture(tables, weights=weights))
    step = torch.tensor(5)
    with use_backend("counter_random=reference"):
        held.batch(step)  # the constants of the sampler are made once
        with capturable():
            held.batch(step)
