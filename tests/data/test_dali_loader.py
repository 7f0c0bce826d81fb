"""The DALI loader gives what the loader gives, on its CPU pipeline here; and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.dali_loader import DaliLoader, why_not_dali
from ptr_fast.data.frames import open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError

HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
TASKS = TaskTable(names=("put carrot on plate",), num_slots=4)
MIN_PSNR_DB = 40.0  # nvJPEG against libjpeg-turbo, both with fancy upsampling; the CPU decoders differ by one at most


def open_sources(make_store):
    stores = [EpisodeStore.open(make_store(parts=((5, 3), (4,)), name="old"))]
    stores.append(EpisodeStore.open(make_store(parts=((6,),), name="new")))
    tables = [Transitions(s, task_table=TASKS, action=s.meta.action, rewards=RewardConfig()) for s in stores]
    return tables, stores, MixtureSampler([[len(tables[0])], [len(tables[1])]], 0.5, 8, 0)


def same(ours, theirs) -> None:
    wanted = theirs.tensors()
    for name, a in ours.tensors().items():
        a, b = a.cpu(), wanted[name]
        if "images" in name:
            error = (a.double() - b.double()).square().mean()
            assert error == 0 or 10 * torch.log10(255.0**2 / error) > MIN_PSNR_DB, name
        else:
            assert torch.equal(a, b), name


@needs_dali
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_the_same_batches_as_the_loader_in_any_order_of_steps(make_store, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    tables, stores, sampler = open_sources(make_store)
    frames = [{"image_0": open_frames(store, "image_0")} for store in stores]
    with Loader(tables, frames, sampler) as loader, DaliLoader(tables, stores, ["image_0"], sampler, device) as dali:
        for step in (0, 1, 2, 3, 4, 5, 9, 10, 2, 2):
            same(dali.batch(step), loader.batch(step))
        assert dali.wait_seconds > 0.0


@needs_dali
def test_no_more_than_the_prefetched_steps_are_read_ahead(make_store):
    tables, stores, sampler = open_sources(make_store)
    asked = []
    counting = SimpleNamespace(indices=lambda step: (asked.append(step), sampler.indices(step))[1])
    with DaliLoader(tables, stores, ["image_0"], counting, prefetch=2) as dali:
        dali.batch(100)
        dali.batch(101)
    assert asked == [0, 100, 101, 102, 103]  # 0: the size of a batch


def uses(tables, sampler, step, source, record) -> bool:
    sources, indices = sampler.indices(step)
    mine = indices[sources == source]
    return bool((tables[source].record[mine] == record).any() or (tables[source].next_record[mine] == record).any())


@needs_dali
def test_a_damaged_frame_is_named_and_survived(make_store):
    tables, stores, sampler = open_sources(make_store)
    # A frame that step 0 does not need and a later one does.
    source, record, first = next(
        (source, record, step)
        for source, store in enumerate(stores)
        for record in range(store.num_records)
        for step in (1, 2)
        if [uses(tables, sampler, s, source, record) for s in range(step + 1)] == [False] * step + [True]
    )
    broken, healthy = stores[source], stores[source].frame_bytes
    frames = [{"image_0": open_frames(store, "image_0")} for store in stores]
    with DaliLoader(tables, stores, ["image_0"], sampler) as dali, Loader(tables, frames, sampler) as loader:
        broken.frame_bytes = lambda camera, r: b"no JPEG" if r == record else healthy(camera, r)
        for step in range(first):  # a step does not suffer from the damage of a later one that is worked on already
            same(dali.batch(step), loader.batch(step))
        for _ in range(2):
            with pytest.raises(DataError, match=f"camera 'image_0', record {record}: not a JPEG file"):
                dali.batch(first)
        del broken.frame_bytes
        same(dali.batch(first), loader.batch(first))


@needs_dali
def test_closed_and_wrong_arguments(make_store):
    tables, stores, sampler = open_sources(make_store)
    loader = DaliLoader(tables, stores, ["image_0"], sampler)
    loader.close()
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        loader.batch(0)
    with pytest.raises(ValueError, match="one store per table"):
        DaliLoader(tables, stores[:1], ["image_0"], sampler)
    with pytest.raises(ValueError, match="prefetch"):
        DaliLoader(tables, stores, ["image_0"], sampler, prefetch=0)
    raw = EpisodeStore.open(make_store(parts=((3,),), encoding="raw", name="raw"))
    with pytest.raises(RuntimeError, match="holds raw frames"):
        DaliLoader([tables[0]], [raw], ["image_0"], sampler)


def test_why_not_without_dali(make_store, monkeypatch):
    store = EpisodeStore.open(make_store(parts=((3,),)))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("nvidia") else find_spec(name)
    )
    assert "not installed" in why_not_dali([store], ["image_0"])


@needs_dali
def test_columns_have_the_loaders_dtypes(make_store):
    tables, stores, sampler = open_sources(make_store)
    with DaliLoader(tables, stores, ["image_0"], sampler) as dali:
        batch = dali.batch(0)
    assert batch.images["image_0"].dtype == torch.uint8
    assert batch.task_id.dtype == torch.int64
    assert batch.state.dtype == batch.rewards.dtype == torch.float32
    assert batch.images["image_0"].shape == (8, 1, 16, 24, 3)
