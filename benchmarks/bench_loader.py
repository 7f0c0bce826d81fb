"""Batches per second out of a store: the loader on every tier against a PyTorch DataLoader over the same store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from benchmarks.harness import compare
from benchmarks.peers.plain_batch import plain
from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.frames import open_frames
from ptr_fast.data.loader import Loader
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.data.transitions import Transitions
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

BATCH, EPISODES, STEPS, SIZE = 64, 40, 38, 64
STEPS_PER_ROUND = 10


def write_store(path: Path, encoding: str) -> EpisodeStore:
    names, units = ("x", "y", "z"), ("m", "m", "m")
    meta = StoreMeta(
        cameras=(CameraSpec(name="image_0", height=SIZE, width=SIZE, encoding=encoding),),
        action=ActionSpec(names=names, units=units, low=(-1.0,) * 3, high=(1.0,) * 3),
        state=StateSpec(names=names, units=units),
        control_hz=5.0,
    )
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    with StoreWriter.create(path, meta) as writer:
        for number in range(EPISODES):
            rng = np.random.default_rng(number)
            base = 127.5 + 60 * np.stack([np.sin(7 * x + number + c) + np.cos(9 * y) for c in range(3)], -1)
            images = np.clip(base + rng.normal(0, 6, (STEPS + 1, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
            coded = images if encoding == "raw" else [simplejpeg.encode_jpeg(image, quality=90) for image in images]
            writer.add(
                Episode(
                    episode_id=str(number),
                    task="bench",
                    states=rng.normal(size=(STEPS + 1, 3)).astype(np.float32),
                    actions=rng.uniform(-1, 1, (STEPS, 3)).astype(np.float32),
                    frames={"image_0": coded},
                )
            )
    return EpisodeStore.open(path)


class TorchDataset(torch.utils.data.Dataset):
    """What a user of PyTorch writes: decode frame and next frame, return a dict of arrays."""

    def __init__(self, table: Transitions, order: np.ndarray) -> None:
        self.table, self.order = table, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict:
        table, index = self.table, int(self.order[i])
        record, following = int(table.record[index]), int(table.next_record[index])
        return {
            "images": table.store.frame("image_0", record).copy(),
            "next_images": table.store.frame("image_0", following).copy(),
            "state": table.state[record],
            "next_state": table.state[following],
            "actions": table.action[record],
            "rewards": table.rewards[index],
            "masks": table.masks[index],
            "task_id": table.task_id[index],
        }


@pytest.mark.parametrize("tier", ["decoded", "mapped", "jpeg"])
def test_loader(tier: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", "raw" if tier == "mapped" else "jpeg")
    table = Transitions(
        store,
        task_table=TaskTable(names=("bench",), num_slots=1),
        action=store.meta.action,
        rewards=RewardConfig(),
    )
    frames = open_frames(store, "image_0", 0 if tier == "jpeg" else None)
    sampler = MixtureSampler([[len(table)]], 1.0, BATCH, 0)
    assert frames.describe().tier == tier
    order = np.concatenate([sampler.indices(step)[1] for step in range(STEPS_PER_ROUND)])
    torch_loader = torch.utils.data.DataLoader(TorchDataset(table, order), batch_size=BATCH)

    with Loader([table], [{"image_0": frames}], sampler) as loader:

        def gate() -> None:
            for step, batch in enumerate(torch_loader):
                ours = loader.batch(step)
                for name, value in vars(plain(ours)).items():
                    assert torch.equal(value, batch[name]), name

        row = compare(
            "loader",
            f"{tier}: {STEPS_PER_ROUND} batches of {BATCH} transitions, {SIZE}x{SIZE}",
            {
                "loader": lambda: [loader.batch(step) for step in range(STEPS_PER_ROUND)],
                "torch_dataloader": lambda: list(torch_loader),
            },
            gate,
            num_rounds=9,
        )
    per_second = STEPS_PER_ROUND * BATCH * 2 / row["variants"]["loader"]["median_ms"] * 1e3
    print(f"loader {tier}: {per_second:,.0f} frames/s")
