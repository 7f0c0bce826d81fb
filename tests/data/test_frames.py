"""Frame sources: every tier gives the same pixels as the store, and refuses what is out of range."""

from __future__ import annotations

import numpy as np
import pytest

from ptr_fast import native
from ptr_fast.data import frames as frames_module
from ptr_fast.data.frames import DecodedFrames, JpegFrames, MappedFrames, free_memory, open_frames
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError

RECORDS = np.array([13, 0, 7, 7, 3, 14, 9], np.int64)


@pytest.fixture(params=["native", "numpy"])
def copier(request, monkeypatch):
    """With the native copy and with numpy's."""
    if request.param == "native" and native.module() is None:
        pytest.skip(str(native.why_missing()))
    if request.param == "numpy":
        monkeypatch.setattr(frames_module, "_make_copier", lambda parts, size: frames_module._NumpyCopier(parts, size))
    return request.param


def open_tier(make_store, tier, num_threads=1):
    store = EpisodeStore.open(make_store(encoding="raw" if tier == "mapped" else "jpeg"))
    budget = 0 if tier == "jpeg" else None
    return store, open_frames(store, "image_0", budget, num_threads)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("tier", ["mapped", "decoded", "jpeg"])
def test_gather(make_store, copier, tier, num_threads):
    store, source = open_tier(make_store, tier, num_threads)
    assert {"mapped": MappedFrames, "decoded": DecodedFrames, "jpeg": JpegFrames}[tier] is type(source)
    assert (source.num_frames, source.height, source.width) == (store.num_records, 16, 24)
    wanted = np.stack([store.frame("image_0", int(record)) for record in RECORDS])
    out = np.full((len(RECORDS), 16, 24, 3), 77, np.uint8)
    source.gather(RECORDS, out)
    assert np.array_equal(out, wanted)
    rows = np.array([9, 2, 0, 5, 6, 1, 3], np.int64)
    out = np.full((10, 16, 24, 3), 77, np.uint8)
    source.gather(RECORDS, out, rows)
    assert np.array_equal(out[rows], wanted)
    assert (out[[4, 7, 8]] == 77).all()
    source.gather(RECORDS[:0], out)
    source.close()


@pytest.mark.parametrize("tier", ["mapped", "decoded", "jpeg"])
def test_out_of_range_is_refused_before_anything_is_written(make_store, copier, tier):
    store, source = open_tier(make_store, tier)
    out = np.full((4, 16, 24, 3), 77, np.uint8)
    good = np.array([0, 1], np.int64)
    for bad in (-1, store.num_records, 1 << 60):
        with pytest.raises(ValueError, match=rf"records\[1\]: expected 0 to {store.num_records - 1}, got {bad}"):
            source.gather(np.array([0, bad], np.int64), out)
    with pytest.raises(ValueError, match=r"rows\[1\]: expected 0 to 3, got 4"):
        source.gather(good, out, np.array([0, 4], np.int64))
    with pytest.raises(ValueError, match="room for 5"):
        source.gather(np.zeros(5, np.int64), out)
    with pytest.raises(ValueError, match="rows"):
        source.gather(good, out, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="records"):
        source.gather(good.astype(np.int32), out)
    for wrong in (out[:, :8], out.astype(np.float32), out[:, ::-1]):
        with pytest.raises(ValueError, match="out: expected contiguous uint8"):
            source.gather(good, wrong)
    assert (out == 77).all()


def test_parts_that_do_not_hold_frames_are_refused(copier):
    data, offsets = np.zeros(100, np.uint8), np.array([0, 48, 96], np.int64)
    assert MappedFrames([(0, offsets, data)], 4, 4).num_frames == 2
    for bad in (np.array([0, 48, 95], np.int64), np.array([8, 56, 104], np.int64), np.array([-48, 0, 48], np.int64)):
        with pytest.raises(ValueError, match=r"record|part"):
            MappedFrames([(0, bad, data)], 4, 4)


def test_choice_follows_the_budget(make_store):
    store = EpisodeStore.open(make_store())
    needed = store.num_records * 16 * 24 * 3
    assert open_frames(store, "image_0", needed).describe().tier == "decoded"
    assert open_frames(store, "image_0", needed - 1).describe().tier == "jpeg"
    assert open_frames(store, "image_0").describe().tier == "decoded"
    raw = EpisodeStore.open(make_store(encoding="raw", name="raw"))
    assert open_frames(raw, "image_0", 0).describe().tier == "mapped"
    with pytest.raises(ValueError, match="no camera 'wrist'"):
        open_frames(store, "wrist")
    assert free_memory() > 1 << 20


@pytest.mark.parametrize("tier", ["mapped", "decoded", "jpeg"])
def test_describe(make_store, tier):
    store, source = open_tier(make_store, tier)
    info = source.describe()
    assert info.num_frames == store.num_records
    assert info.frames_per_second > 0
    assert info.num_bytes > 0
    assert tier in str(info)


def test_a_damaged_frame_is_named_by_its_record(make_store):
    path = make_store()
    store = EpisodeStore.open(path)
    first = store.frame_parts("image_0")[1][0]
    frame = bytes(store.frame_bytes("image_0", first + 1))
    file = path / "steps" / "000001.arrow"
    data = bytearray(file.read_bytes())
    at = data.find(frame)
    assert at > 0
    data[at : at + 40] = bytes(40)
    file.write_bytes(data)
    damaged = EpisodeStore.open(path)
    out = np.empty((3, 16, 24, 3), np.uint8)
    with pytest.raises(DataError, match=f"camera 'image_0', record {first + 1}: "):
        JpegFrames(damaged, "image_0").gather(np.array([0, first + 1, 2], np.int64), out)
    with pytest.raises(DataError, match=f"record {first + 1}: "):
        open_frames(damaged, "image_0")
