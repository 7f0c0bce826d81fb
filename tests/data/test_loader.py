"""Loader: right content, any order of steps, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.dali_loader import DaliLoader, why_not_dali
from ptr_fast.data.frames import JpegFrames, open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError
from ptr_fast.types import TRANSITION, Batch

TASKS = TaskTable(names=("put carrot on plate",), num_slots=4)


@pytest.fixture
def sources(make_store):
    """Two stores, one JPEG and one raw: (transitions, frame sources, stores)."""
    stores = [
        EpisodeStore.open(make_store(parts=((5, 3), (4,)), name="old")),
        EpisodeStore.open(make_store(parts=((6,),), encoding="raw", name="new")),
    ]
    tables = [Transitions(s, task_table=TASKS, action=s.meta.action, rewards=RewardConfig()) for s in stores]
    return tables, [{"image_0": open_frames(s, "image_0")} for s in stores], stores


def mixture(tables, batch_size=8, seed=0):
    return MixtureSampler([[len(tables[0])], [len(tables[1])]], 0.5, batch_size, seed)


def snapshot(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in batch.tensors().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_content(sources):
    tables, frames, stores = sources
    sampler = mixture(tables)
    with Loader(tables, frames, sampler) as loader:
        for step in range(5):
            batch = loader.batch(step)
            which, index = sampler.indices(step)
            assert len(batch) == len(which) == 8
            for row, (number, i) in enumerate(zip(which, index, strict=True)):
                table, store = tables[number], stores[number]
                record, following = int(table.record[i]), int(table.next_record[i])
                assert np.array_equal(batch.images["image_0"][row, 0], store.frame("image_0", record))
                assert np.array_equal(batch.next_images["image_0"][row, 0], store.frame("image_0", following))
                assert np.array_equal(batch.state[row, 0], store.state[record])
                assert np.array_equal(batch.next_state[row, 0], store.state[following])
                assert np.array_equal(batch.actions[row, 0], table.actions[i])
                for name in ("rewards", "masks", "task_id"):
                    assert getattr(batch, name)[row] == getattr(table, name)[i]


def test_returns_are_a_column_that_is_asked_for(sources):
    tables, frames, stores = sources
    rewards = RewardConfig(num_steps=3, lower_bound_returns=True)
    options = dict(task_table=TASKS, rewards=rewards, discount=0.9)
    tables = [Transitions(s, action=s.meta.action, **options) for s in stores]
    sampler = mixture(tables)
    with Loader(tables, frames, sampler, columns=TRANSITION | {"returns"}) as loader:
        batch = loader.batch(0)
        which, index = sampler.indices(0)
        for row, (number, i) in enumerate(zip(which, index, strict=True)):
            assert batch.returns[row] == tables[number].returns[i]
            assert np.array_equal(batch.next_state[row, 0], stores[number].state[tables[number].next_record[i]])
    with Loader(tables, frames, sampler) as loader:
        assert loader.batch(0).returns is None


def test_dtypes(sources):
    tables, frames, _ = sources
    with Loader(tables, frames, mixture(tables)) as loader:
        batch = loader.batch(0)
        assert batch.images["image_0"].dtype == batch.next_images["image_0"].dtype == torch.uint8
        assert batch.task_id.dtype == torch.int64
        for name in ("state", "next_state", "actions", "rewards", "masks"):
            assert getattr(batch, name).dtype == torch.float32


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_a_batch_depends_on_its_step_alone(sources, prefetch):
    tables, frames, _ = sources
    with Loader(tables, frames, mixture(tables), prefetch=1) as loader:
        wanted = [snapshot(loader.batch(step)) for step in range(12)]
    with Loader(tables, frames, mixture(tables), prefetch=prefetch) as loader:
        for step in (0, 1, 2, 7, 8, 3, 3, 4, 11, 0, 1):
            assert_equal(snapshot(loader.batch(step)), wanted[step])
    with Loader(tables, frames, mixture(tables), prefetch=prefetch) as loader:  # as after a restart
        assert_equal(snapshot(loader.batch(9)), wanted[9])


def test_batches_are_prepared_ahead_and_no_further(sources):
    tables, frames, _ = sources
    asked = []
    sampler = mixture(tables)
    counting = SimpleNamespace(indices=lambda step: (asked.append(step), sampler.indices(step))[1])
    with Loader(tables, frames, counting, prefetch=3) as loader:
        time.sleep(0.05)
        assert asked == [0]  # the size of a batch; nothing is prepared before the first step is known
        loader.batch(100)
        deadline = time.monotonic() + 5
        while len(asked) < 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert asked == [0, 100, 101, 102, 103]
        buffers = {loader.batch(step).images["image_0"].data_ptr() for step in range(101, 120)}
        assert len(buffers) == 4  # prefetch + the one in use


def test_an_error_belongs_to_its_step(sources):
    tables, frames, _ = sources
    sampler = mixture(tables)
    broken = {3}

    def indices(step):
        if step in broken:
            raise DataError(f"step {step} is broken")
        return sampler.indices(step)

    with Loader(tables, frames, SimpleNamespace(indices=indices), prefetch=2) as loader:
        for step in range(3):
            loader.batch(step)
        for _ in range(2):
            with pytest.raises(DataError, match="step 3 is broken"):
                loader.batch(3)
        loader.batch(4)
        broken.clear()
        again = snapshot(loader.batch(3))
    with Loader(tables, frames, sampler) as loader:
        assert_equal(snapshot(loader.batch(3)), again)


def test_close_leaves_no_thread(sources):
    tables, frames, _ = sources
    before = threading.active_count()
    loader = Loader(tables, frames, mixture(tables))
    loader.batch(0)
    assert threading.active_count() == before + 1
    loader.close()
    loader.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        loader.batch(1)
    with pytest.raises(ZeroDivisionError), Loader(tables, frames, mixture(tables)):
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_wait_seconds(sources):
    tables, frames, _ = sources
    sampler = mixture(tables)

    def indices(step):
        if step:
            time.sleep(0.05)
        return sampler.indices(step)

    with Loader(tables, frames, SimpleNamespace(indices=indices), prefetch=1) as loader:
        assert loader.wait_seconds == 0.0
        loader.batch(1)
        waited = loader.wait_seconds
        assert waited >= 0.04
        time.sleep(0.2)
        loader.batch(2)
        assert loader.wait_seconds - waited < 0.04


def test_wrong_arguments(sources, make_store):
    tables, frames, _ = sources
    with pytest.raises(ValueError, match="one mapping of frame sources per table"):
        Loader(tables, frames[:1], mixture(tables))
    with pytest.raises(ValueError, match="prefetch must be at least 1"):
        Loader(tables, frames, mixture(tables), prefetch=0)
    odd = {"image_0": SimpleNamespace(height=8, width=8, num_frames=1)}
    with pytest.raises(ValueError, match="all sources need the same cameras"):
        Loader(tables, [frames[0], odd], mixture(tables))


def test_the_next_observation_is_neither_stored_nor_moved_twice(sources):
    """A store has a record per step and one for the end of each episode; a batch moves two frames a transition."""
    tables, frames, stores = sources
    for table, store in zip(tables, stores, strict=True):
        assert store.num_records == store.num_steps + store.num_episodes
        assert np.array_equal(table.next_record, table.record + 1)
    moved = []

    class Counting:
        def __init__(self, source):
            self.source, self.height, self.width = source, source.height, source.width

        def gather(self, records, out, rows=None):
            moved.append(len(records))
            self.source.gather(records, out, rows)

    with Loader(tables, [{"image_0": Counting(source["image_0"])} for source in frames], mixture(tables)) as loader:
        for step in range(10):
            loader._fill(loader._free[0], step)
    assert sum(moved) == 10 * 2 * 8


def private_bytes() -> int:
    """Memory of this process that is not a file's: the page cache behind the store is not the loader's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/self/status has no RssAnon")


@pytest.mark.parametrize("kind", ["pixels", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("jpeg", "dali"))])
def test_memory_after_20_000_batches_is_that_after_2_000(sources, kind):
    tables, frames, stores = sources
    if kind == "dali":
        reason = why_not_dali(stores[:1], ["image_0"])
        if reason:
            pytest.skip(reason)
        opened: Any = DaliLoader(tables[:1], stores[:1], ["image_0"], MixtureSampler([[len(tables[0])]], 1.0, 8, 0))
    else:
        if kind == "jpeg":
            frames = [{"image_0": JpegFrames(stores[0], "image_0")}, frames[1]]
        opened = Loader(tables, frames, mixture(tables))
    with opened as loader:
        held = {}
        for step in range(20_000):
            loader.batch(step)
            if step + 1 in (2_000, 20_000):
                held[step + 1] = private_bytes()
    assert held[20_000] - held[2_000] <= 2**20, held  # one leaked batch in ten would be 20 MB


@pytest.mark.cuda
def test_batches_on_a_gpu(sources):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    tables, frames, _ = sources
    with Loader(tables, frames, mixture(tables)) as loader:
        wanted = [snapshot(loader.batch(step)) for step in range(6)]
    with Loader(tables, frames, mixture(tables), "cuda", prefetch=2) as loader:
        kept = [loader.batch(step) for step in range(6)]
        for batch, cpu in zip(kept, wanted, strict=True):
            assert batch.images["image_0"].device.type == "cuda"
            assert_equal({name: value.cpu() for name, value in snapshot(batch).items()}, cpu)
