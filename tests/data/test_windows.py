"""Windows of observations and actions, several cameras, chosen columns: every tier gives what the definition says."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack, closing

import numpy as np
import pytest
import torch

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.cuda_graph import CapturedStep
from ptr_fast.data.columns import SCALARS
from ptr_fast.data.dali_loader import DaliLoader
from ptr_fast.data.device_frames import DeviceFrames
from ptr_fast.data.frames import open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.data.transitions import Transitions
from ptr_fast.kernels.augment import yuv420
from ptr_fast.types import FRAMES, TRANSITION, ActionSpec, Batch, CameraSpec, PooledFrames, StateSpec, Window

TASKS = TaskTable(names=("task",), num_slots=1)
SIZES = {"front": (8, 12), "wrist": (6, 4), "top": (4, 8)}  # cameras need not have one size
ALL = TRANSITION | {"observation_mask", "action_mask", "returns", "critic_weight"}
AHEAD = RewardConfig(num_steps=2, lower_bound_returns=True)
TIERS = ("map", "jpeg", "host", "device", "device-yuv420", "dali")


def random_store(path, rng, encoding: str, cameras: tuple[str, ...], num_episodes: int) -> EpisodeStore:
    """Episodes of 1 to 6 steps, some failed, some without the frame after the last action."""
    names, units = ("x", "y"), ("m", "m")
    specs = tuple(
        CameraSpec(name=name, height=SIZES[name][0], width=SIZES[name][1], encoding=encoding) for name in cameras
    )
    meta = StoreMeta(
        cameras=specs,
        action=ActionSpec(names=names, units=units, low=(-1.0, -2.0), high=(1.0, 2.0)),
        state=StateSpec(names=names, units=units),
        control_hz=5.0,
    )
    with StoreWriter.create(path, meta) as writer:
        for number in range(num_episodes):
            num_steps = int(rng.integers(1, 7)) if number else 4  # one that can always be used
            num_frames = num_steps + (int(rng.integers(0, 2)) if number else 1)
            frames = {
                camera.name: rng.integers(0, 256, (num_frames, camera.height, camera.width, 3), dtype=np.uint8)
                for camera in specs
            }
            if encoding == "jpeg":
                import simplejpeg

                frames = {n: [simplejpeg.encode_jpeg(frame) for frame in seen] for n, seen in frames.items()}
            writer.add(
                Episode(
                    episode_id=str(number),
                    task="task",
                    states=rng.normal(size=(num_frames, 2)).astype(np.float32),
                    actions=rng.uniform(-1, 1, (num_steps, 2)).astype(np.float32),
                    frames=frames,
                    outcome="failure" if rng.random() < 0.3 and number else "success",
                )
            )
            if rng.random() < 0.5:
                writer.commit()
    return EpisodeStore.open(path)


def defined(tables, stores, sampler, step, cameras, columns, window) -> dict[str, torch.Tensor]:
    """A batch row by row, as the words say it."""
    rows = []
    for number, index in zip(*sampler.indices(step), strict=True):
        table, store = tables[number], stores[number]
        episode, record = int(table.episode[index]), int(table.record[index])
        first, num_steps = int(store.episodes.first[episode]), int(store.episodes.num_steps[episode])
        row = {name: getattr(table, name)[index] for name in SCALARS}
        for prefix, now in (("", record), ("next_", int(table.next_record[index]))):
            past = [max(now - age, first) for age in reversed(range(window.num_observations))]
            row[f"{prefix}state"] = np.stack([store.state[one] for one in past])
            for camera in cameras:
                row[f"{prefix}images.{camera}"] = np.stack([store.frame(camera, one) for one in past])
        row["observation_mask"] = np.array([record - age >= first for age in reversed(range(window.num_observations))])
        ahead = [record + i for i in range(window.num_actions)]
        last = first + num_steps - 1
        row["actions"] = np.stack([table.action[min(one, last)] for one in ahead])
        row["action_mask"] = np.array([one <= last for one in ahead])
        rows.append({name: value for name, value in row.items() if name.partition(".")[0] in columns})
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def as_plain(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor, frames gathered, kept."""

    def gathered(value):
        if isinstance(value, PooledFrames):
            return yuv420.rgb_frames(value.pool, value.index.flatten()).unflatten(0, value.index.shape)
        return value.clone()

    return {name: gathered(value) for name, value in batch.tensors().items()}


def open_tier(tier, tables, stores, sampler, cameras, columns, window):
    options = {"columns": columns, "window": window}
    if tier == "dali":
        return DaliLoader(tables, stores, cameras, sampler, **options)
    budget = None if tier in ("host", "device", "device-yuv420") else 0
    by_store = {id(store): {name: open_frames(store, name, budget) for name in cameras} for store in stores}
    frames = [by_store[id(store)] for store in stores]
    if tier.startswith("device"):
        return DeviceFrames(tables, frames, sampler, layout="rgb" if tier == "device" else "yuv420", **options)
    return Loader(tables, frames, sampler, **options)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("seed", range(6))
def test_every_tier_gives_what_the_definition_says(tier, seed, tmp_path):
    if tier == "dali" and (
        importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None
    ):
        pytest.skip("DALI is not installed")
    rng = np.random.default_rng(seed)
    cameras = tuple(rng.permutation(list(SIZES))[: 1 + seed % 3])
    encoding = "raw" if tier == "map" else "jpeg"
    stores = [random_store(tmp_path / name, rng, encoding, cameras, 4) for name in ("old", "new")]
    window = Window(num_observations=int(rng.integers(1, 4)), num_actions=int(rng.integers(1, 5))) if seed else Window()
    columns = ALL if seed < 3 else frozenset(name for name in ALL if rng.random() < 0.6) | {"images", "actions"}
    ahead = RewardConfig(num_steps=1 + seed, lower_bound_returns=True)  # the next observation lies up to so far ahead
    tables = [Transitions(s, task_table=TASKS, action=s.meta.action, rewards=ahead, discount=0.9) for s in stores]
    for table in tables:
        table.critic_weight = rng.random(len(table), dtype=np.float32)
    sampler = MixtureSampler([[len(tables[0])], [len(tables[1])]], 0.5, 8, seed)
    with closing(open_tier(tier, tables, stores, sampler, cameras, columns, window)) as batches:
        for step in (0, 1, 7):
            wanted = defined(tables, stores, sampler, step, cameras, columns, window)
            got = as_plain(batches.batch(step))
            assert got.keys() == wanted.keys()
            for name, value in wanted.items():
                if tier == "device-yuv420" and "images" in name:
                    value = yuv420.decode(yuv420.encode(value.flatten(0, 1))).view_as(value)
                assert got[name].dtype == value.dtype, name
                if tier == "dali" and "images" in name:  # another decoder; one off at most
                    assert int((got[name].int() - value.int()).abs().max()) <= 1, name
                else:
                    assert torch.equal(got[name], value), name


def test_frames_that_no_column_asks_for_are_not_read(tmp_path):
    """Cloning reads no next frame, and a learner of states alone opens no frames at all."""
    store = random_store(tmp_path / "store", np.random.default_rng(0), "raw", ("front",), 4)
    table = Transitions(store, task_table=TASKS, action=store.meta.action, rewards=RewardConfig())
    sampler = MixtureSampler([[len(table)]], 1.0, 8, 0)
    read = []

    class Counting:
        height, width = SIZES["front"]
        num_frames = store.num_records

        def gather(self, records, out, rows=None):
            read.append(len(records))

    cloning = frozenset({"images", "state", "task_id", "actions"})
    with Loader([table], [{"front": Counting()}], sampler, columns=cloning) as loader:
        batch = loader.batch(0)
        assert set(batch.columns()) == cloning
        assert batch.next_images is None
        assert batch.rewards is None
    assert set(read) == {8}
    held = [
        DeviceFrames([table], [{"front": Counting()}], sampler, columns=c).num_frames for c in (cloning, TRANSITION)
    ]
    assert held[0] == len(np.union1d(table.record, table.last_record)) < held[1]  # not the frame after the last action

    blind = TRANSITION - set(FRAMES)
    with Loader([table], [{}], sampler, columns=blind) as loader:
        held = DeviceFrames([table], [{}], sampler, columns=blind)
        assert held.num_frames == 0
        for step in range(3):
            ours, theirs = held.batch(step).tensors(), loader.batch(step).tensors()
            assert ours.keys() == theirs.keys() == blind
            assert all(torch.equal(ours[name], theirs[name]) for name in blind)


def test_a_column_that_no_batch_has_and_sources_that_differ_are_named(tmp_path):
    rng = np.random.default_rng(0)
    stores = [random_store(tmp_path / name, rng, "raw", ("front", "wrist"), 2) for name in ("old", "new")]
    tables = [Transitions(s, task_table=TASKS, action=s.meta.action, rewards=RewardConfig()) for s in stores]
    sampler = MixtureSampler([[len(tables[0])], [len(tables[1])]], 0.5, 8, 0)
    frames = [{name: open_frames(store, name) for name in ("front", "wrist")} for store in stores]
    with pytest.raises(ValueError, match=r"columns: a batch has \['images', .*, got \['image'\]"):
        Loader(tables, frames, sampler, columns={"image"})
    with pytest.raises(
        ValueError, match=r"all sources need the same cameras of one .height, width., got .*wrist.* and"
    ):
        Loader(tables, [frames[0], {"front": frames[1]["front"]}], sampler)
    with pytest.raises(ValueError, match="window: num_actions must be at least 1, got 0"):
        Window(num_actions=0)


class Sums:
    """A learner that adds up what it is given."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.total = torch.zeros((), dtype=torch.float64)

    def optimizers(self):
        return {}

    def update(self, batch: Batch, step) -> dict[str, torch.Tensor]:
        tensors = batch.tensors().values()
        parts = [value.pool[value.index] if isinstance(value, PooledFrames) else value for value in tensors]
        self.total.mul_(0.5).add_(sum(part.double().clamp(min=-9.0).mean() for part in parts))
        return {"total": self.total.clone()}


@pytest.mark.parametrize("tier", ["device", "map"])
def test_a_captured_step_gathers_windows_of_several_cameras(tier, tmp_path):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tape import DirectRecorder, TapeRecorder

    from ptr_fast.kernels.dispatch import use_backend

    store = random_store(tmp_path / "store", np.random.default_rng(3), "raw", ("front", "wrist"), 5)
    table = Transitions(store, task_table=TASKS, action=store.meta.action, rewards=AHEAD, discount=0.9)
    table.critic_weight = np.ones(len(table), np.float32)
    sampler, window = MixtureSampler([[len(table)]], 1.0, 8, 0), Window(num_observations=3, num_actions=4)
    totals = []
    with ExitStack() as stack, use_backend("counter_random=reference"):
        for taped in (False, True):
            batches = open_tier(tier, [table], [store], sampler, ("front", "wrist"), ALL, window)
            stack.enter_context(closing(batches))
            learner = Sums()
            step = CapturedStep(learner, batches, 0, recorder=DirectRecorder())
            if taped:
                step._recorder = TapeRecorder(
                    lambda step=step, learner=learner: [learner.total, step._step, step._readout.values]
                )
            totals.append([])
            for _ in range(8):
                step.run()
                totals[-1].append(float(learner.total))
            assert step.why_eager is None
    assert totals[0] == totals[1]
    assert len(set(totals[0])) == 8
