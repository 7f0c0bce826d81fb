"""Where a run's frames lie, from its sources."""

import numpy as np
import pytest
import torch
import toy_robot

from ptr_fast.config import EncoderConfig, RewardConfig
from ptr_fast.data.store import EpisodeStore
from ptr_fast.learners.cql import CqlConfig
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.registry import traits_of
from ptr_robot.training.batches import open_batches
from ptr_robot.training.config import DataConfig, LoopConfig
from ptr_robot.training.matching import make_spec
from ptr_robot.training.sources import Source


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


def one_source(path, cameras, **meta):
    toys = toy_robot.toy_episodes(4, cameras=cameras)
    store = EpisodeStore.open(toy_robot.write_store(path, toys, toy_robot.toy_meta(cameras, **meta)))
    return Source(role="prior", store=store, train=np.arange(4), validation=np.zeros(0, np.int64))


def opened(source, cameras, config, frames="auto"):
    spec, loop = make_spec([source], cameras, 0), LoopConfig(batch_size=4, frames=frames)
    cpu, ranks = torch.device("cpu"), Ranks()
    return open_batches([source], 1.0, spec, RewardConfig(), loop, cpu, ranks, is_new=True, traits=traits_of(config))


def test_a_learner_of_states_reads_no_frame(tmp_path, monkeypatch, capsys):
    """Neither pixels nor checksums of them, and none is held in memory."""
    source = one_source(tmp_path / "store", ("image_0",))

    def touched(*_):
        raise AssertionError("a frame was read")

    for name in ("frame_parts", "frame_bytes", "frame", "verify"):
        monkeypatch.setattr(EpisodeStore, name, touched)
    blind = CqlConfig(encoder=EncoderConfig(name="none"), critic_head="plain")
    batches, tier = opened(source, [], blind)
    with batches:
        batch = batches.batch(0)
    assert tier == "none"
    assert set(batch.columns()) == traits_of(blind).columns
    assert batch.images is None
    assert "frames: none, since CQL looks at states alone here" in capsys.readouterr().out


@pytest.mark.parametrize("frames", ["host", "device"])
def test_the_bytes_of_every_camera_count(frames, tmp_path, capsys):
    source = one_source(tmp_path / "store", ("front", "wrist"))
    batches, tier = opened(source, ["wrist", "front"], CqlConfig(), frames)
    assert tier == frames
    batch = batches.batch(0)
    assert list(batch.images) == list(batch.next_images) == ["wrist", "front"]
    batches.close()
    said = capsys.readouterr().out
    store = source.store
    num_bytes = 2 * store.num_records * store.meta.cameras[0].height * store.meta.cameras[0].width * 3
    assert f"{num_bytes / 1e6:.1f} MB" in said.splitlines()[0]
    if frames == "host":
        assert "store: camera 'wrist': decoded" in said
        assert "store: camera 'front': decoded" in said
    else:
        assert f"{2 * store.num_records} frames, " in said


def test_a_camera_is_named_once_and_must_be_there(tmp_path):
    source = one_source(tmp_path / "store", ("front", "wrist"))
    with pytest.raises(ValueError, match=r"no camera 'side'; it has \['front', 'wrist'\]"):
        make_spec([source], ["front", "side"], 0)
    with pytest.raises(ValueError, match=r"data.cameras: name each camera once, got front, front"):
        DataConfig(stores=(tmp_path,), cameras=("front", "front"))
    assert [camera.name for camera in make_spec([source], [], 0).cameras] == ["front"]
