"""Where a run's frames lie, from its sources."""

import numpy as np
import pytest
import torch
import toy_robot

from ptr_fast.config import RewardConfig
from ptr_fast.data.store import EpisodeStore
from ptr_fast.learners.cql import CqlConfig
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.registry import traits_of
from ptr_robot.training.batches import open_batches
from ptr_robot.training.config import LoopConfig
from ptr_robot.training.sources import Source, make_spec


@pytest.mark.parametrize("frames", ["device", "host", "jpeg"])
def test_a_store_that_is_named_in_two_ways_is_held_once(frames, tmp_path, monkeypatch, capsys):
    path = toy_robot.write_store(tmp_path / "store", toy_robot.toy_episodes(4, cameras=("image_0",)))
    monkeypatch.chdir(tmp_path)
    none = np.zeros(0, np.int64)
    sources = [
        Source(role=role, store=EpisodeStore.open(name), train=np.arange(first, first + 2), validation=none)
        for role, name, first in (("prior", path, 0), ("target", path.relative_to(tmp_path), 2))
    ]
    loop = LoopConfig(batch_size=4, frames=frames)
    spec = make_spec(sources, [], 0)
    cpu = torch.device("cpu")
    batches, tier = open_batches(
        sources, 0.5, spec, RewardConfig(), loop, cpu, Ranks(), is_new=True, traits=traits_of(CqlConfig())
    )
    batches.close()
    assert tier == frames
    said = capsys.readouterr().out
    assert said.count(f" {sources[0].store.num_records} frames, ") == said.count(" frames/s") == 1
    assert said.splitlines()[0].endswith("as asked for")
