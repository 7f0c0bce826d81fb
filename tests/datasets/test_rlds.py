"""RLDS: the real Bridge episodes to the byte, and every kind of damage with its name."""

import hashlib
import json
import struct
from collections import Counter

import numpy as np
import pytest
from rlds_writer import example, message, varint

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.resize import resize
from ptr_robot.datasets.rlds import RldsSource
from ptr_robot.datasets.rlds_features import read_features
from ptr_robot.datasets.tfrecord import index_records, masked_crc32c, parse_example, read_record
from ptr_robot.verbs.convert import BAD_EPISODES

FILE = "bridge_dataset-train.tfrecord-00000-of-00001"


def flip(file, offset):
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_real_episodes(rlds, run):
    summary, out = run(rlds)
    assert (summary.converted, summary.bad) == (25, [])
    store = EpisodeStore.open(out)
    store.verify()
    assert (store.num_episodes, store.num_steps, store.num_records) == (25, 250, 250)
    assert (store.episodes.num_steps == 10).all()
    assert sorted(Counter(store.episodes.task).values()) == [5, 6, 6, 8]
    assert Counter(store.episodes.task)["put carrot on plate"] == 8
    assert set(store.episodes.split) == {"train"}
    assert set(store.episodes.domain) == {"toysink2_bww"}
    assert [camera.name for camera in store.meta.cameras] == [f"image_{i}" for i in range(4)]
    assert all((c.height, c.width, c.resize) == (64, 64, "none") for c in store.meta.cameras)
    for flag in ("rewards_all_zero", "terminal_flags_all_zero", "has_image_flags_all_zero"):
        assert store.meta.source[flag] is True
    # values as measured with TensorFlow's own reader
    expected = [0.0016, -0.0010, -0.0029, -0.0099, -0.0048, -0.0053, 0.7392]
    np.testing.assert_allclose(store.action.mean(axis=0), expected, atol=6e-5)
    np.testing.assert_allclose(store.state.std(axis=0), [0.035, 0.063, 0.042, 0.223, 0.130, 0.324, 0.177], atol=6e-4)
    assert all(store.frame("image_3", r).max() == 0 for r in range(0, 250, 10))
    assert store.frame("image_0", 0).mean() > 20


def test_frames_states_and_actions_are_the_sources_to_the_byte(rlds, run):
    _, out = run(rlds)
    store = EpisodeStore.open(out)
    offsets = index_records(rlds / FILE).offsets
    for episode in (0, 7, 24):
        example = parse_example(read_record(rlds / FILE, offsets[episode]))
        first = store.episodes.first[episode]
        assert store.episodes.episode_id[episode] == f"{FILE}#{episode}"
        for name, column in (("steps/observation/state", store.state), ("steps/action", store.action)):
            np.testing.assert_array_equal(column[first : first + 10], example[name].reshape(10, 7))
        for camera in ("image_0", "image_3"):
            for t, jpeg in enumerate(example[f"steps/observation/{camera}"]):
                assert bytes(store.frame_bytes(camera, first + t)) == bytes(jpeg)
    data = (rlds / FILE).read_bytes()
    jpeg = bytes(store.frame_bytes("image_1", 123))
    assert data.count(jpeg) == 1
    assert hashlib.sha256(jpeg).digest()[:1] != hashlib.sha256(bytes(store.frame_bytes("image_1", 124))).digest()


def test_resized_and_raw_frames(rlds, run):
    _, out = run(rlds, cameras=("image_1",), image_size=32, encoding="raw")
    store, original = EpisodeStore.open(out), EpisodeStore.open(run(rlds, out="same", cameras=("image_1",))[1])
    camera = store.meta.cameras[0]
    assert (camera.height, camera.source_height, camera.resize, camera.encoding) == (32, 64, "lanczos", "raw")
    for record in (0, 99):
        np.testing.assert_array_equal(store.frame("image_1", record), resize(original.frame("image_1", record), 32, 32))
    _, jpeg = run(rlds, out="jpeg", cameras=("image_1",), image_size=32)
    error = EpisodeStore.open(jpeg).frame("image_1", 0).astype(int) - store.frame("image_1", 0)
    assert 0 < np.abs(error).mean() < 3


def test_record_checksums(rlds):
    index = index_records(rlds / FILE)
    assert (len(index.offsets), index.damage) == (25, "")
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("where", "message", "kept"),
    [
        ("data", r"episode '\S+#3': .*record at byte \d+: CRC-32C of the data: expected 0x\w+, got 0x\w+", 24),
        ("length", r"record 3 at byte \d+: CRC-32C of the length: expected 0x\w+, got 0x\w+", 3),
        ("end", r"record 24 at byte \d+: expected \d+ bytes, the file ends after \d+ \(truncated\?\)", 24),
        ("header", r"record 3 at byte \d+: expected a header of 12 bytes, the file ends after 5", 3),
        ("missing record", r"expected 25 episodes \(dataset_info.json\), got 24", 24),
    ],
)
def test_damaged_records(rlds, run, where, message, kept):
    file, offsets = rlds / FILE, index_records(rlds / FILE).offsets
    if where == "data":
        flip(file, offsets[3] + 5000)
    elif where == "length":
        flip(file, offsets[3] + 1)
    else:
        size = {"end": file.stat().st_size - 7, "header": offsets[3] + 5, "missing record": offsets[24]}[where]
        file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DataError, match=message):
        run(rlds)
    before = (rlds.parent / "store" / "meta.json").exists()
    summary, out = run(rlds, on_bad="skip")
    assert before
    assert EpisodeStore.open(out).num_episodes == kept
    report = json.loads((out / BAD_EPISODES).read_text())
    assert len(report) == len(summary.bad) == 1
    assert FILE in report[0]["episode_id"]


def test_go_on_after_the_damage_is_repaired(rlds, run):
    good = (rlds / FILE).read_bytes()
    flip(rlds / FILE, index_records(rlds / FILE).offsets[3] + 5000)
    _, out = run(rlds, on_bad="skip")
    (rlds / FILE).write_bytes(good)
    summary, out = run(rlds)
    assert (summary.converted, summary.present) == (1, 24)
    assert EpisodeStore.open(out).num_episodes == 25
    assert not (out / BAD_EPISODES).exists()


def test_wrong_shapes_are_named(rlds, run):
    def widen(content):
        steps = content["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
        steps["action"]["tensor"]["shape"]["dimensions"] = ["8"]

    edit(rlds / "features.json", widen)
    with pytest.raises(DataError, match=r"steps/action: expected a multiple of 8 numbers, got 70"):
        run(rlds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["featuresDict"]["features"].pop("steps"), "expected features under 'steps'"),
        (lambda c: c.clear(), "expected features under 'steps'"),
        (lambda c: steps(c).pop("action"), r"action: 'steps/action/world_vector' is not there; .*--key action=PATH"),
        (lambda c: observation(c).pop("state"), r"state: 'steps/observation/state' is not there; .*--key state=PATH"),
        (lambda c: [observation(c).pop(f"image_{i}") for i in range(4)], "no camera found"),
        (lambda c: steps(c)["observation"].update(featuresDict=[]), "not a feature tree"),
    ],
)
def test_wrong_features(rlds, run, change, message):
    edit(rlds / "features.json", change)
    with pytest.raises(DataError, match=rf"features.json: .*{message}"):
        run(rlds, format="rlds")


def steps(content):
    return content["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]


def observation(content):
    return steps(content)["observation"]["featuresDict"]["features"]


def test_features_not_json(rlds):
    (rlds / "features.json").write_text("{")
    with pytest.raises(DataError, match=r"features.json: not valid JSON"):
        read_features(rlds / "features.json")


def test_missing_files(rlds, run, tmp_path):
    (rlds / "dataset_info.json").unlink()  # it is not needed
    assert run(rlds)[0].converted == 25
    (rlds / FILE).rename(rlds / FILE.replace("of-00001", "of-00003"))
    with pytest.raises(DataError, match=r"split 'train': 2 of 3 files are missing, e.g. \S+-00001-of-00003"):
        RldsSource(rlds)
    (rlds / FILE.replace("of-00001", "of-00003")).unlink()
    with pytest.raises(DataError, match=r"no \*.tfrecord\* file"):
        RldsSource(rlds)
    (rlds / "features.json").unlink()
    with pytest.raises(DataError, match=r"features.json: missing"):
        RldsSource(rlds)
    with pytest.raises(DataError, match="no such folder"):
        run(tmp_path / "nowhere")


def test_absent_split_is_noted_and_other_formats_are_refused(rlds):
    assert RldsSource(rlds).notes == ("split 'val' is named in dataset_info.json, but none of its files is here",)
    assert RldsSource(rlds.parent).root == rlds
    edit(rlds / "dataset_info.json", lambda c: c.update(fileFormat="array_record"))
    with pytest.raises(DataError, match=r"fileFormat is 'array_record', only 'tfrecord'"):
        RldsSource(rlds)


def test_unknown_camera(rlds, run):
    with pytest.raises(ValueError, match=r"no camera \['wrist'\]; present: \['image_0'"):
        run(rlds, cameras=("wrist",))


def test_wire_format():
    numbers = np.array([0, 127, 128, -1, 2**40])
    parsed = parse_example(example({"n": numbers, "f": np.array([1.5, -2.0]), "b": [b"", b"xy"]}))
    np.testing.assert_array_equal(parsed["n"], numbers)
    np.testing.assert_array_equal(parsed["f"], np.float32([1.5, -2.0]))
    assert [bytes(value) for value in parsed["b"]] == [b"", b"xy"]
    unpacked = varint(1 << 3 | 5) + struct.pack("<f", 2.5)
    assert parse_example(message(1, message(1, message(1, b"u") + message(2, message(2, unpacked)))))["u"] == [2.5]


def test_broken_wire_format_never_crashes():
    payload = example({"n": np.arange(5), "f": np.arange(3.0)})
    for cut in range(1, len(payload)):
        with pytest.raises(DataError, match=r"not a tf\.Example"):
            parse_example(payload[:-cut])
