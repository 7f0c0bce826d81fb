"""Stores: what goes in comes out, parts never change, damage is found and named, a crash leaves nothing."""

import contextlib
import json
import os
import resource
import sys
import textwrap

import numpy as np
import pytest
import simplejpeg
import warm_python

from ptr_fast.data.store import EpisodeStore, StoreWriter
from ptr_fast.errors import DataError


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def damage_of(path):
    try:
        EpisodeStore.open(path).verify()
    except DataError as error:
        return str(error)
    return None


def stamps(path):
    files = sorted(path.glob("*/*.arrow"))
    return {file.name: (file.parent.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("extra_frame", [True, False])
def test_everything_comes_back(tmp_path, make_meta, make_episode, encoding, extra_frame):
    meta = make_meta(encoding, cameras=("image_0", "wrist"), source={"name": "made here"})
    episodes = [
        make_episode(
            "a", meta, 5, extra_frame, seed=1, outcome="failure", kind="noisy", domain="kitchen 1", split="val"
        ),
        make_episode("b", meta, 1, extra_frame, seed=2, task="lift", source="b.npy"),
        make_episode("c", meta, 7, extra_frame, seed=3),
    ]
    with StoreWriter.create(tmp_path / "s", meta) as writer:
        writer.add(episodes[0])
        writer.add(episodes[1])
        writer.commit()
        writer.add(episodes[2])
    store = EpisodeStore.open(tmp_path / "s")
    assert (store.num_parts, store.num_episodes, store.num_steps) == (2, 3, 13)
    assert store.num_records == 13 + 3 * extra_frame
    assert store.meta.tasks == ("put carrot on plate", "lift")
    assert store.meta.source == {"name": "made here"}
    table = store.episodes
    assert table.episode_id == ["a", "b", "c"]
    assert table.outcome == ["failure", "unknown", "unknown"]
    assert (table.kind[0], table.domain[0], table.split[0], table.source[1]) == ("noisy", "kitchen 1", "val", "b.npy")
    assert table.part.tolist() == [0, 0, 1]
    assert len(set(table.digest)) == 3
    for number, episode in enumerate(episodes):
        first = table.first[number]
        np.testing.assert_array_equal(store.state[first : first + episode.num_frames], episode.states)
        np.testing.assert_array_equal(store.action[first : first + episode.num_steps], episode.actions)
        assert np.isnan(store.action[first + episode.num_steps : first + episode.num_frames]).all()
        for camera in ("image_0", "wrist"):
            for t, frame in enumerate(episode.frames[camera]):
                image = frame if encoding == "raw" else simplejpeg.decode_jpeg(frame)
                assert bytes(store.frame_bytes(camera, first + t)) == bytes(memoryview(frame).cast("B"))
                np.testing.assert_array_equal(store.frame(camera, first + t), image)
    store.verify()


def test_reads_are_views_of_the_memory_map(make_store):
    store = EpisodeStore.open(make_store(parts=((5, 3), (4,)), encoding="raw"))
    parts = store.frame_parts("image_0")
    assert [first for first, _, _ in parts] == [0, 10]
    for _, offsets, data in parts:
        assert not data.flags.owndata
        assert not data.flags.writeable
        assert offsets.dtype == np.int64
        assert data.dtype == np.uint8
    _, offsets, data = parts[1]
    view = store.frame_bytes("image_0", 12)
    assert np.shares_memory(np.frombuffer(view, np.uint8), data)
    assert np.shares_memory(store.frame("image_0", 12), data)
    assert np.array_equal(data[offsets[2] : offsets[3]], np.frombuffer(view, np.uint8))
    assert np.shares_memory(data, store.frame_parts("image_0")[1][2])


def test_append_rewrites_nothing(make_store, make_episode):
    path = make_store()
    before = stamps(path)
    with StoreWriter.append(path) as writer:
        writer.add(make_episode("later", writer.meta, task="lift"))
    after = stamps(path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    store = EpisodeStore.open(path)
    assert store.meta.tasks == ("put carrot on plate", "lift")
    assert json.loads((path / "meta.json").read_text())["tasks"] == ["put carrot on plate", "lift"]
    with StoreWriter.append(path):
        pass
    assert stamps(path) == after


def test_half_written_part_is_invisible(make_store, make_episode):
    path = make_store(parts=((5,), (4,)))
    (path / "episodes" / "000001.arrow").unlink()
    (path / "steps" / "000002.arrow.123.tmp").write_bytes(b"half")
    store = EpisodeStore.open(path)
    assert store.episodes.episode_id == ["episode 0"]
    with StoreWriter.append(path) as writer:
        writer.add(make_episode("new", writer.meta, 2))
    store = EpisodeStore.open(path)
    assert store.episodes.episode_id == ["episode 0", "new"]
    store.verify()
    assert not list(path.glob("*/*.tmp"))


def test_an_exception_commits_nothing(make_store, make_episode):
    path = make_store()

    def interrupted():
        with StoreWriter.append(path) as writer:
            writer.add(make_episode("lost", writer.meta))
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        interrupted()
    assert "lost" not in EpisodeStore.open(path).episodes.episode_id


def test_two_writers_give_a_clear_error(make_store):
    path = make_store()
    with StoreWriter.append(path), pytest.raises(RuntimeError, match=rf"another writer.*process {os.getpid()}"):
        StoreWriter.append(path)
    StoreWriter.append(path).close()


def test_lock_of_a_dead_process_is_taken_over(make_store, make_episode):
    path = make_store()
    code = f"""
        import os, sys
        from ptr_fast.data.store import StoreWriter
        writer = StoreWriter.append({str(path)!r})
        sys.stdout.write("held")
        sys.stdout.flush()
        os._exit(1)
    """
    done = warm_python.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment()
    )
    assert done.stdout == "held", done.stderr
    assert (path / "writer.lock").read_text().isdigit()
    with StoreWriter.append(path) as writer:
        writer.add(make_episode("next", writer.meta))
    assert EpisodeStore.open(path).num_episodes == 4


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_store_as_it_was(make_store, make_episode):
    path = make_store()
    before = stamps(path)
    writer = StoreWriter.append(path)
    writer.add(make_episode("big", writer.meta, num_steps=300))
    with (
        files_of_at_most(20_000),
        pytest.raises(RuntimeError, match=r"cannot write part .*steps/000002.arrow.*File too large"),
    ):
        writer.commit()
    assert stamps(path) == before
    assert not list(path.glob("*/*.tmp"))
    EpisodeStore.open(path).verify()
    writer.commit()  # there is room again: nothing was lost
    writer.close()
    assert EpisodeStore.open(path).episodes.episode_id[-1] == "big"


def test_a_store_that_could_not_be_made_is_made_by_the_same_call(tmp_path, make_meta):
    path = tmp_path / "store"
    with files_of_at_most(0), pytest.raises(OSError, match=r"cannot write .*store/writer.lock: no space left"):
        StoreWriter.create(path, make_meta())
    (path / ".meta.json.1.tmp").write_text("{")  # as a kill between two steps leaves it
    StoreWriter.create(path, make_meta()).close()
    assert EpisodeStore.open(path).num_episodes == 0


@pytest.mark.parametrize("column", ["state", "action", "frame.image_0"])
def test_flipped_bit_is_named(make_store, column):
    path = make_store()
    store = EpisodeStore.open(path)
    part = path / "steps" / "000001.arrow"
    needle = {"state": store.state[10:].tobytes()[:64], "action": store.action[10:].tobytes()[:64]}
    needle["frame.image_0"] = bytes(store.frame_bytes("image_0", 12))
    offset = part.read_bytes().index(needle[column])
    del store
    flip(part, offset + 40)
    damaged = EpisodeStore.open(path)
    with pytest.raises(DataError, match=rf"steps/000001.arrow: column '{column}': expected CRC-32 0x\w+, got 0x\w+"):
        damaged.verify()
    if column != "frame.image_0":
        with pytest.raises(DataError, match=r"000001.arrow: column"):
            getattr(damaged, column)


def test_flipped_bits_anywhere_are_found_and_never_crash(make_store):
    path = make_store(parts=((2,),))
    for folder in ("steps", "episodes"):
        part = path / folder / "000000.arrow"
        good = part.read_bytes()
        for offset in np.random.default_rng(0).choice(len(good), 150, replace=False):
            flip(part, int(offset))
            message = damage_of(path)
            part.write_bytes(good)
            # a flip in the padding or key names of an episode part is harmless: all that it describes is checked
            assert message is not None or folder == "episodes", f"byte {offset} of {part} was not found"
            assert message is None or "000000.arrow" in message
    EpisodeStore.open(path).verify()


def test_column_names_that_are_no_text_are_damage(make_store):
    path = make_store(parts=((2,),))
    part = path / "steps" / "000000.arrow"
    part.write_bytes(part.read_bytes().replace(b"frame_index", b"frame\xffindex"))
    with pytest.raises(DataError, match=r"steps/000000.arrow: not a readable Arrow file"):
        EpisodeStore.open(path)


def test_truncated_part_is_named(make_store):
    path = make_store()
    part = path / "steps" / "000000.arrow"
    size = part.stat().st_size
    part.write_bytes(part.read_bytes()[: size - 100])
    with pytest.raises(DataError, match=rf"steps/000000.arrow: expected {size} bytes, got {size - 100}"):
        EpisodeStore.open(path)
    part.unlink()
    with pytest.raises(DataError, match=r"steps/000000.arrow: missing"):
        EpisodeStore.open(path)


def test_missing_episode_part_is_named(make_store):
    path = make_store()
    (path / "episodes" / "000000.arrow").unlink()
    with pytest.raises(DataError, match=r"episodes/000000.arrow is missing"):
        EpisodeStore.open(path)


def test_damaged_offsets_are_refused(make_store):
    path = make_store()
    store = EpisodeStore.open(path)
    offsets = store.frame_parts("image_0")[0][1]
    part = path / "steps" / "000000.arrow"
    at = part.read_bytes().index(offsets.tobytes())
    del store, offsets
    flip(part, at + 8 * 3 + 3)
    with pytest.raises(DataError, match=r"'frame.image_0': the offsets"):
        EpisodeStore.open(path).frame_bytes("image_0", 0)


def test_meta_of_another_version_is_refused(make_store):
    path = make_store()
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, "schema_version": 99}))
    with pytest.raises(DataError, match=r"schema_version is 99, this program reads version 1"):
        EpisodeStore.open(path)
    (path / "meta.json").write_text(json.dumps({**meta, "control_Hz": 5}))
    with pytest.raises(DataError, match=r"unknown key 'control_Hz' \(did you mean 'control_hz'\?\)"):
        EpisodeStore.open(path)
    camera = {**meta["cameras"][0], "height": 0}
    (path / "meta.json").write_text(json.dumps({**meta, "cameras": [camera]}))
    with pytest.raises(DataError, match=r"meta.json: StoreMeta.cameras\[0\]: .*height"):
        EpisodeStore.open(path)
    (path / "meta.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        EpisodeStore.open(path)
    (path / "meta.json").unlink()
    with pytest.raises(DataError, match="not a store"):
        EpisodeStore.open(path)


def test_create_and_append_check_their_arguments(tmp_path, make_store, make_meta):
    path = make_store()
    with pytest.raises(ValueError, match="there is a store already"):
        StoreWriter.create(path, make_meta())
    with pytest.raises(ValueError, match="cannot append, cameras differs"):
        StoreWriter.append(path, make_meta(encoding="raw"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected an empty or new folder"):
        StoreWriter.create(tmp_path / "other", make_meta())
    with pytest.raises(DataError, match="not a store"):
        StoreWriter.append(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "won"}, "outcome: expected one of"),
        ({"split": "test"}, "split: expected one of"),
        ({"actions": np.zeros((5, 6), np.float32)}, r"actions: expected floats \[n, 7\], got float32 \[5, 6\]"),
        ({"actions": np.zeros((5, 7), np.int64)}, r"actions: expected floats .* got int64"),
        ({"actions": np.zeros((0, 7), np.float32)}, "expected at least one step, got none"),
        ({"states": np.zeros((4, 7), np.float32)}, "states: expected 5 or 6 for 5 actions, got 4"),
        ({"states": np.full((6, 7), np.inf, np.float32)}, "states, step 0: expected finite numbers, got .*inf"),
        ({"frames": {}}, r"frames: expected cameras \['image_0'\], got \[\]"),
        ({"frames": {"image_0": [b"x"] * 6}}, "camera 'image_0', step 0: not a JPEG file"),
        ({"frames": {"image_0": [b"x"] * 5}}, "camera 'image_0': expected 6 frames, got 5"),
        (
            {"frames": {"image_0": [simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))] * 6}},
            "step 0: expected a JPEG of 16x24, got 8x8",
        ),
        ({"frames": {"image_0": np.zeros((6, 16, 24, 3), np.uint8)}}, "expected JPEG files"),
    ],
)
def test_bad_episode_is_refused(tmp_path, make_meta, make_episode, change, message):
    meta = make_meta()
    with StoreWriter.create(tmp_path / "s", meta) as writer:
        with pytest.raises(DataError, match=f"episode 'bad', {message}|episode 'bad'.*{message}"):
            writer.add(make_episode("bad", meta, **change))
        writer.add(make_episode("bad", meta))
        with pytest.raises(DataError, match="episode 'bad' is in the store already"):
            writer.add(make_episode("bad", meta))
    assert EpisodeStore.open(tmp_path / "s").num_episodes == 1


def test_fingerprint_follows_the_content(make_store, make_episode):
    path = make_store()
    first = EpisodeStore.open(path).fingerprint()
    assert first == EpisodeStore.open(path).fingerprint()
    assert first == EpisodeStore.open(make_store(name="twin")).fingerprint()
    with StoreWriter.append(path) as writer:
        writer.add(make_episode("later", writer.meta))
    assert EpisodeStore.open(path).fingerprint() != first


def test_empty_store_opens(tmp_path, make_meta):
    StoreWriter.create(tmp_path / "s", make_meta()).close()
    store = EpisodeStore.open(tmp_path / "s")
    assert (store.num_episodes, store.num_records, store.state.shape) == (0, 0, (0, 7))
    with pytest.raises(ValueError, match="record 0 is outside"):
        store.frame_bytes("image_0", 0)
    with pytest.raises(ValueError, match="no camera 'front'"):
        store.frame_parts("front")
