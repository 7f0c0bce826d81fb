"""Stores of JPEG files with restart markers: the same pixels and batches, also from packed frames on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simplejpeg
import torch

from ptr_fast import native
from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.device_frames import DeviceFrames
from ptr_fast.data.frames import open_frames
from ptr_fast.data.jpeg_restart import add_restarts, why_not_restart
from ptr_fast.data.loader import Loader
from ptr_fast.data.packed_frames import why_not_packed
from ptr_fast.data.sampler import MixtureSampler
from ptr_fast.data.store import EpisodeStore, StoreWriter
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError
from ptr_fast.kernels.augment import yuv420
from ptr_fast.types import PooledFrames
from ptr_robot.cli import main
from ptr_robot.verbs.repack import repack

TASKS = TaskTable(names=("put carrot on plate",), num_slots=4)
CPU = torch.device("cpu")


@pytest.fixture(params=["444", "420"])
def store(request, tmp_path, make_meta, make_episode):
    """A JPEG store with colours at full or at half the resolution: its path."""
    meta = make_meta(cameras=("image_0", "wrist"))
    with StoreWriter.create(tmp_path / "store", meta) as writer:
        for number, num_steps in enumerate((5, 3, 4)):
            images = make_episode(f"episode {number}", make_meta("raw", cameras=("image_0", "wrist")), num_steps)
            frames = {
                name: [simplejpeg.encode_jpeg(image, 80, "RGB", request.param) for image in mine]
                for name, mine in images.frames.items()
            }
            writer.add(replace(images, frames=frames))
            if number == 1:
                writer.commit()
    return tmp_path / "store"


def opened(path):
    store = EpisodeStore.open(path)
    table = Transitions(store, task_table=TASKS, action=store.meta.action, rewards=RewardConfig())
    frames = {name: open_frames(store, name, 0) for name in ("image_0", "wrist")}
    return [table], [frames], MixtureSampler([[len(table)]], 1.0, 6, seed=3)


def tensors(batch):
    out = {}
    for name, value in batch.tensors().items():
        if isinstance(value, PooledFrames):
            frames = yuv420.rgb_frames(value.pool, value.index.flatten())
            value = frames.unflatten(0, value.index.shape)
        out[name] = value.clone()
    return out


def test_a_repacked_store_gives_the_same_batches(store, tmp_path, capsys):
    assert main(["repack", str(store)]) == 0
    told = capsys.readouterr().out
    new = tmp_path / "store-restart"
    assert told.startswith(f"{new}: 30 frames, ")
    assert told.endswith("the pixels are the same\n")
    old, packed = EpisodeStore.open(store), EpisodeStore.open(new)
    assert {camera.encoding for camera in packed.meta.cameras} == {"jpeg-restart"}
    assert packed.meta.source["repacked_from"] == old.fingerprint()
    packed.verify()
    assert np.array_equal(old.state, packed.state)
    assert np.array_equal(old.action, packed.action, equal_nan=True)
    for name in ("episode_id", "task", "outcome", "kind", "domain", "split", "source"):
        assert getattr(old.episodes, name) == getattr(packed.episodes, name)
    for record in range(old.num_records):
        before, after = old.frame_bytes("wrist", record), packed.frame_bytes("wrist", record)
        assert why_not_restart(before) is not None
        assert why_not_restart(after) is None
        module = native.require()
        assert np.array_equal(module.jpeg_coefficients(before), module.jpeg_coefficients(after))
        assert np.array_equal(old.frame("wrist", record), packed.frame("wrist", record))
    device = DeviceFrames(*opened(new), layout="jpeg")
    assert str(device.describe()).startswith("device-jpeg (asked for): 30 frames")
    with Loader(*opened(store)) as one, Loader(*opened(new)) as two:
        for step in (0, 1, 7):
            wanted = tensors(one.batch(step))
            for got in (two.batch(step), device.batch(step), device.batch(torch.tensor(step))):
                for name, value in tensors(got).items():
                    assert torch.equal(value, wanted[name]), name


def test_an_interrupted_repack_goes_on(store, tmp_path, monkeypatch):
    calls = []

    def interrupted(frame):
        calls.append(frame)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return add_restarts(frame)

    monkeypatch.setattr("ptr_robot.verbs.repack.add_restarts", interrupted)
    out = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        repack(store, out)
    assert not out.exists()
    partial = tmp_path / "new.partial"
    assert EpisodeStore.open(partial).num_episodes == 2
    sizes = repack(store, out)
    assert len(calls) == 25 + 10
    assert not partial.exists()
    assert sizes.num_frames == 30
    assert sizes.after == sum(len(f) for n in ("image_0", "wrist") for f in _files(out, n))
    assert EpisodeStore.open(out).episodes.episode_id == EpisodeStore.open(store).episodes.episode_id


def _files(path, camera):
    store = EpisodeStore.open(path)
    return [store.frame_bytes(camera, record) for record in range(store.num_records)]


def test_what_repack_refuses(store, make_store, tmp_path, make_meta, make_episode, capsys):
    with pytest.raises(ValueError, match="no camera holds JPEG frames"):
        repack(make_store(encoding="raw", name="raw"), tmp_path / "a")
    new = tmp_path / "b"
    repack(store, new)
    with pytest.raises(ValueError, match="stored as jpeg-restart already"):
        repack(new, tmp_path / "c")
    with pytest.raises(ValueError, match="lies inside the store"):
        repack(store, store / "steps" / "d")
    assert not list(store.rglob("d*.partial"))
    with pytest.raises(ValueError, match="b: exists already"):
        repack(store, new)
    import io

    from PIL import Image

    meta = make_meta()
    episode = make_episode("of a phone", make_meta("raw"), 2)
    files = []
    for image in episode.frames["image_0"]:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", progressive=True)
        files.append(out.getvalue())
    with StoreWriter.create(tmp_path / "odd", meta) as writer:
        writer.add(replace(episode, frames={"image_0": files}))
    assert main(["repack", str(tmp_path / "odd")]) == 2
    assert (
        "episode 'of a phone', camera 'image_0', step 0: expected a baseline JPEG, this one is progressive"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "odd-restart").exists()


def test_a_writer_takes_no_other_files(tmp_path, make_meta, make_episode):
    with (
        StoreWriter.create(tmp_path / "store", make_meta("jpeg-restart")) as writer,
        pytest.raises(DataError, match="step 0: expected a JPEG with restart markers: it has no restart marker"),
    ):
        writer.add(make_episode("plain", make_meta("jpeg")))


def test_what_cannot_lie_packed_on_a_device(store, make_store, tmp_path):
    new = EpisodeStore.open(store)
    why_not = why_not_packed([new], "wrist", CPU)
    assert why_not is not None
    assert "not stored as jpeg-restart, ptr-fast repack makes a store where they are" in why_not
    repack(store, tmp_path / "new")
    assert why_not_packed([EpisodeStore.open(tmp_path / "new")], "wrist", CPU) is None
    raw = EpisodeStore.open(make_store(encoding="raw", name="raw"))
    frames = {"image_0": open_frames(raw, "image_0")}
    table = Transitions(raw, task_table=TASKS, action=raw.meta.action, rewards=RewardConfig())
    with pytest.raises(ValueError, match="expected frames that are JPEG files, got MappedFrames"):
        DeviceFrames([table], [frames], MixtureSampler([[len(table)]], 1.0, 4, seed=0), layout="jpeg")


def test_a_damaged_frame_is_named_by_its_record(store, tmp_path):
    new = tmp_path / "new"
    repack(store, new)
    tables, (frames,), sampler = opened(new)
    encoded = frames["wrist"].encoded

    def damaged(records):
        files = encoded(records)
        return [bytes(f[:-9]) + b"\xff\xd9" if r == 6 else f for f, r in zip(files, records, strict=True)]

    frames["wrist"].encoded = damaged
    with pytest.raises(DataError, match=r"new: camera 'wrist', record 6: a segment (ends before|goes on)"):
        DeviceFrames(tables, [frames], sampler, layout="jpeg")
