"""Declared dtypes, shapes and names decide what is a camera, a state, an action, an instruction."""

import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image
from rlds_writer import jpegs, picture, tensor, text, usual, usual_steps, write

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.datasets.detect import open_source
from ptr_robot.datasets.layout import Keys
from ptr_robot.datasets.options import Args
from ptr_robot.datasets.rlds import RldsSource


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def with_camera(tmp_path, path, spec, frames):
    """A data set with one picture more, at a path below the observation."""
    steps, values = usual_steps(), usual()
    place = steps["observation"]
    *above, leaf = path.split("/")
    for name in above:
        place = place.setdefault(name, {})
    place[leaf] = spec
    values[f"steps/observation/{path}"] = frames
    return write(tmp_path / "own", steps, [values])


RGBA, GREY = np.zeros((16, 24, 4), np.uint8), np.zeros((16, 24), np.uint8)


@pytest.mark.parametrize(
    ("path", "spec", "frames", "told"),
    [
        ("depth", picture(channels=1, dtype="float32"), [png(RGBA)] * 4, r"depth \(float32 \[16, 24, 1\]"),
        ("a_range", picture(channels=1, dtype="uint16"), [png(GREY)] * 4, r"a_range \(uint16 \[16, 24, 1\]"),
        ("a_picture", picture(dtype="float32"), [png(RGBA)] * 4, r"a_picture \(float32 \[16, 24, 3\]"),
        ("depth_0", picture(channels=1), [png(GREY)] * 4, r"depth_0 \(uint8 \[16, 24, 1\]"),
        ("mask", picture(channels=1), [png(GREY)] * 4, r"mask \(uint8 \[16, 24, 1\]"),
        ("a_segmentation", picture(), jpegs(4), r"a_segmentation \(uint8 \[16, 24, 3\], called 'segment'\)"),
        ("a/depth", tensor(16, 24, 1), np.zeros(16 * 24 * 4), r"depth \(float32 \[16, 24, 1\]"),
        ("a_map", tensor(16, 24), np.zeros(16 * 24 * 4), r"a_map \(float32 \[16, 24\]"),
        ("a_mask", tensor(16, 24, dtype="bool"), np.zeros(16 * 24 * 4, np.int64), r"a_mask \(bool \[16, 24\]"),
        ("alpha", picture(channels=4), [png(RGBA)] * 4, r"alpha \(uint8 \[16, 24, 4\], 4 channels\)"),
    ],
)
def test_no_camera_and_named(tmp_path, run, path, spec, frames, told):
    source = with_camera(tmp_path, path, spec, frames)
    (note,) = RldsSource(source).notes
    assert note.startswith("left out, as these are no colour pictures: ")
    assert re.search(told, note)
    store = EpisodeStore.open(run(source)[1])
    assert [camera.name for camera in store.meta.cameras] == ["image"]


def test_what_can_be_read_is_read_where_it_is_asked_for(tmp_path, run):
    source = with_camera(tmp_path, "mask", picture(channels=1), [png(GREY + 7)] * 4)
    store = EpisodeStore.open(run(source, cameras=("mask",), encoding="raw")[1])
    assert store.frame("mask", 0).tolist() == np.full((16, 24, 3), 7).tolist()
    source = with_camera(tmp_path / "d", "depth", picture(channels=1, dtype="float32"), [png(RGBA)] * 4)
    with pytest.raises(ValueError, match=r"camera 'depth' is float32 \[16, 24, 1\], no colour picture"):
        run(source, out="other", cameras=("depth",))


def test_no_camera_at_all(tmp_path, run):
    steps, values = usual_steps(), usual()
    steps["observation"]["depth"] = picture(channels=1, dtype="float32")
    steps["observation"]["grey"] = picture(channels=1)
    del steps["observation"]["image"], values["steps/observation/image"]
    source = write(tmp_path / "own", steps, [values])
    with pytest.raises(DataError, match=r"no camera found: .*depth \(float32.*grey \(uint8.*--cameras grey takes them"):
        run(source)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["images/front", "images/wrist"], ["front", "image", "wrist"]),
        (["front/rgb", "wrist/rgb"], ["front_rgb", "image", "wrist_rgb"]),
        (["a/b/c/left"], ["image", "left"]),
        (["images/image"], ["image", "images_image"]),
    ],
)
def test_nested_cameras(tmp_path, run, paths, names):
    steps, values = usual_steps(), usual()
    for number, path in enumerate(paths):
        place = steps["observation"]
        for name in path.split("/")[:-1]:
            place = place.setdefault(name, {})
        place[path.rsplit("/", 1)[1]] = picture()
        values[f"steps/observation/{path}"] = jpegs(4, seed=number + 5)
    source = write(tmp_path / "own", steps, [values])
    store = EpisodeStore.open(run(source)[1])
    assert [camera.name for camera in store.meta.cameras] == names
    chosen = EpisodeStore.open(run(source, out="one", cameras=(paths[0],))[1])
    name = chosen.meta.cameras[0].name
    assert bytes(chosen.frame_bytes(name, 1)) == values[f"steps/observation/{paths[0]}"][1]


def test_cameras_outside_of_the_observation(tmp_path, run):
    steps, values = usual_steps(), usual()
    steps["front"] = steps["observation"].pop("image")
    values["steps/front"] = values.pop("steps/observation/image")
    store = EpisodeStore.open(run(write(tmp_path / "own", steps, [values]))[1])
    assert [camera.name for camera in store.meta.cameras] == ["front"]


def test_a_camera_that_is_a_tensor(tmp_path, run):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3))
    source = with_camera(tmp_path, "front", tensor(16, 24, 3, dtype="uint8"), pixels.reshape(-1))
    store = EpisodeStore.open(run(source, encoding="raw")[1])
    np.testing.assert_array_equal(store.frame("front", 2), pixels[2])


@pytest.mark.parametrize("last", [("open_gripper", "bool"), ("gripper_closedness_action", "float32")])
def test_action_in_pieces(tmp_path, run, last):
    """The Open-X layout: pieces of the action, the instruction as a tensor of one string in the observation."""
    name, dtype = last
    steps = {
        "action": {
            name: tensor(dtype=dtype) if dtype == "bool" else tensor(1),
            "rotation_delta": tensor(3),
            "terminate_episode": tensor(),
            "world_vector": tensor(3),
        },
        "observation": {
            "image": picture(),
            "natural_language_embedding": tensor(512),
            "natural_language_instruction": tensor(dtype="string"),
            "state": tensor(7),
        },
    }
    values = {
        "steps/action/world_vector": np.arange(12.0),
        "steps/action/rotation_delta": np.arange(12.0) + 100,
        f"steps/action/{name}": np.array([1, 0, 0, 1]) if dtype == "bool" else np.array([1.0, 0, 0, 1]),
        "steps/action/terminate_episode": np.zeros(4),
        "steps/observation/image": jpegs(4),
        "steps/observation/natural_language_instruction": [b"open drawer"] * 4,
        "steps/observation/state": np.arange(28.0),
    }
    source = write(tmp_path / "other_robot", steps, [values], name="other_robot")
    store = EpisodeStore.open(run(source)[1])
    assert store.episodes.task == ["open drawer"]
    assert store.action[1].tolist() == [3, 4, 5, 103, 104, 105, 0]
    assert store.meta.action.names[::3] == ("world_vector_0", "rotation_delta_0", name)
    assert store.meta.action.units[6] == ("1 = open, 0 = closed" if dtype == "bool" else "unknown")
    assert any("left out of it: ['terminate_episode']" in note for note in RldsSource(source).notes)
    bridge = write(tmp_path / "bridge", steps, [values], name="bridge")
    assert EpisodeStore.open(run(bridge, out="bridge_store", layout="bridge")[1]).meta.action.names[6] == "gripper"


def test_keys(tmp_path, run):
    steps, values = usual_steps(), usual()
    steps["observation"]["proprio"] = {"arm": tensor(6), "hand": tensor()}
    del steps["observation"]["state"], steps["language_instruction"]
    steps["told"] = text()
    steps["command"] = {"arm": tensor(6), "hand": tensor(1)}
    values["steps/observation/proprio/arm"] = np.arange(24.0)
    values["steps/observation/proprio/hand"] = np.array([7.0, 8, 9, 10])
    values["steps/command/arm"], values["steps/command/hand"] = np.arange(24.0) * 10, np.arange(4.0)
    values["steps/told"] = [b"stir"] * 4
    source = write(tmp_path / "own", steps, [values])
    with pytest.raises(DataError, match=r"state: 'steps/observation/state' is not there; .*'observation/proprio/arm"):
        run(source)
    key = ("state=observation/proprio/arm,observation/proprio/hand", "action=command/arm,steps/command/hand")
    with pytest.raises(DataError, match=r"1 episodes have no instruction"):
        run(source, key=key)
    assert any("--key language=PATH names one of ['steps/told']" in n for n in open_source(
        Args(source=source, out=tmp_path, key=key)).notes)  # fmt: skip
    store = EpisodeStore.open(run(source, key=(*key, "language=told"))[1])
    assert store.episodes.task == ["stir"]
    assert store.state[1].tolist() == [6, 7, 8, 9, 10, 11, 8]
    assert store.action[1].tolist() == [60, 70, 80, 90, 100, 110, 1]
    assert store.meta.state.names[-1] == "hand"
    assert store.meta.source["options"]["keys"]["action"] == ["steps/command/arm", "steps/command/hand"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "state=observation/nothing",
            r"state: 'observation/nothing' is not there; what can be named with --key state=P",
        ),
        ("state=observation/image", r"state: 'observation/image' is uint8 \[16, 24, 3\]; what can be named"),
        ("action=language_instruction", r"action: 'language_instruction' is text \[\]; what can be named"),
        (
            "language=action",
            r"language: 'action' is float32 \[7\]; what can be named .*\['language_instruction \[\]'\]",
        ),
        ("proprio=observation/state", r"--key: expected state=... or action=... or language=..."),
        ("state", r"--key: expected state=..."),
    ],
)
def test_wrong_keys(tmp_path, run, key, message):
    source = write(tmp_path / "own", usual_steps(), [usual()])
    with pytest.raises(ValueError, match=message):
        run(source, key=(key,))


def test_keys_are_for_formats_that_name_features(tmp_path, run, make_npy):
    make_npy(tmp_path / "npy" / "kitchen" / "open_door" / "train" / "out.npy")
    with pytest.raises(ValueError, match="--key is for formats that name their features"):
        run(tmp_path / "npy", key=("state=observation/state",))


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_encoded_tensors(tmp_path, run, encoding):
    steps, values = usual_steps(), usual()
    steps["observation"]["state"] = tensor(7, dtype="float64", encoding=encoding)
    rows = np.arange(28.0).reshape(4, 7)
    pack = zlib.compress if encoding == "zlib" else bytes
    values["steps/observation/state"] = [pack(row.tobytes()) for row in rows]
    store = EpisodeStore.open(run(write(tmp_path / "own", steps, [values]))[1])
    np.testing.assert_array_equal(store.state, rows)
    values["steps/observation/state"] = [b"x"] * 4
    with pytest.raises(DataError, match=rf"state: expected float64 \[7\] in {encoding}"):
        run(write(tmp_path / "bad", steps, [values]), out="bad_store")


def test_instruction_as_codes_of_characters(tmp_path, run):
    steps, values = usual_steps(), usual()
    steps["observation"]["instruction"] = tensor(512, dtype="int32")
    del steps["language_instruction"], values["steps/language_instruction"]
    codes = np.zeros((4, 512), np.int64)
    codes[:, :7] = list(b"push it")
    values["steps/observation/instruction"] = codes.reshape(-1)
    source = write(tmp_path / "own", steps, [values])
    assert EpisodeStore.open(run(source)[1]).episodes.task == ["push it"]
    values["steps/observation/instruction"] = (codes + 1000).reshape(-1)  # numbers of words in a vocabulary
    with pytest.raises(DataError, match="1 episodes have no instruction"):
        run(write(tmp_path / "words", steps, [values]), out="words_store")


def test_the_first_of_several_instructions_that_is_not_blank(tmp_path, run):
    steps, values = usual_steps(), usual(task=b"")
    for number, words in ((2, b"lift it"), (3, b"raise it")):
        steps[f"language_instruction_{number}"] = text()
        values[f"steps/language_instruction_{number}"] = [words] * 4
    source = write(tmp_path / "own", steps, [values])
    assert EpisodeStore.open(run(source)[1]).episodes.task == ["lift it"]
    assert [k.rsplit("/", 1)[1] for k in RldsSource(source).keys.language] == [
        "language_instruction",
        "language_instruction_2",
        "language_instruction_3",
    ]


def test_a_size_that_varies_is_no_state(tmp_path):
    steps = usual_steps()
    steps["observation"]["state"] = tensor(-1)
    source = write(tmp_path / "own", steps, [usual()])
    with pytest.raises(DataError, match=r"state: 'steps/observation/state' is float32 \[-1\]"):
        RldsSource(source)
    assert RldsSource(source, keys=Keys(state=("action",))).keys.state == ("steps/action",)
