"""``ptr-fast export``: the file acts like the checkpoint, says what it is, and is there only when it passed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from valued_run import BC, make_run, make_store

from ptr_fast import native
from ptr_fast.runtime.policy import Policy
from ptr_robot.cli import main as cli
from ptr_robot.verbs import export

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return make_run(folder / "run", make_store(folder / "store"), steps=(2,))


def half_range(policy):
    return 0.5 * (np.array(policy.spec.action.high) - np.array(policy.spec.action.low))


def test_a_file_for_a_camera_and_a_task_acts_like_the_checkpoint(run, tmp_path, capfd):
    policy = Policy.load(run)
    task, out = policy.spec.tasks.names[1], tmp_path / "deep" / "policy.onnx"
    code = cli(["export", "--checkpoint", str(run), "--out", str(out), "--camera", "60x80", "--task", task])
    shown = capfd.readouterr()
    assert code == 0, shown.err
    assert "inputs frame, state; largest difference on" in shown.out
    assert [path.name for path in out.parent.iterdir()] == ["policy.onnx"]
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    frame, state = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), rng.normal(size=7).astype(np.float32)
    (action,) = session.run(["action"], {"frame": frame, "state": state})
    assert (np.abs(action - policy.decide(frame, state, task)) / half_range(policy)).max() < 0.01
    told = {prop.key: prop.value for prop in onnx.load(out).metadata_props}
    assert json.loads(told["ptr_fast.action.names"]) == list(policy.spec.action.names)
    assert json.loads(told["ptr_fast.action.units"]) == list(policy.spec.action.units)
    assert json.loads(told["ptr_fast.frame"]) == {"height": 60, "width": 80, "order": "RGB"}
    assert (told["ptr_fast.task"], told["ptr_fast.step"]) == (task, "2")
    assert told["ptr_fast.checkpoint"] == str(policy.info.path)


def test_search_takes_its_noise_as_an_input(run, tmp_path, capfd):
    out = tmp_path / "search.onnx"
    command = ["export", "--checkpoint", str(run), "--out", str(out), "--mode", "search", "--num-frames", "4"]
    assert cli([*command, "--candidates", "6", "--elites", "2"]) == 0
    assert "mode search, mean of the best 2 of 6, inputs frame, state, task_id, noise" in capfd.readouterr().out
    with pytest.raises(
        ValueError, match=r"search.onnx: expected ptr_fast.act '.*50.*' of the checkpoint as it acts here, got '.*6"
    ):
        Policy.load(run, mode="search", engine=str(out)).warm_up()
    assert cli(command) == 0
    assert "mode search, best of 50, inputs frame, state, task_id, noise" in capfd.readouterr().out
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    shapes = {item.name: item.shape for item in session.get_inputs()}
    assert shapes == {"frame": [48, 48, 3], "state": [7], "task_id": [1], "noise": [50, 7]}


def test_a_file_that_acts_differently_is_not_written(run, tmp_path, monkeypatch, capfd):
    out = tmp_path / "policy.onnx"
    out.write_bytes(b"an older file")
    monkeypatch.setattr(Policy, "to_onnx", lambda *_: b"")
    for difference in (0.02, float("inf"), float("nan")):
        monkeypatch.setattr(export, "largest_difference", lambda *_, value=difference: value)
        assert cli(["export", "--checkpoint", str(run), "--out", str(out)]) == 2
        assert f"{out} is not written: it differs from the checkpoint on" in capfd.readouterr().err
    assert out.read_bytes() == b"an older file"


def test_int8_is_a_file_and_an_engine(run, tmp_path, capfd):
    pytest.importorskip("openvino")
    out = tmp_path / "int8.onnx"
    command = ["export", "--checkpoint", str(run), "--out", str(out), "--int8", "--num-frames", "8"]
    assert cli(command) == 0, capfd.readouterr().err
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    policy, fast = Policy.load(run), Policy.load(run, engine=str(out))
    task, rng = policy.spec.tasks.names[0], np.random.default_rng(0)
    frame, state = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), rng.normal(size=7).astype(np.float32)
    expected = policy.decide(frame, state, task)
    assert (np.abs(fast.decide(frame, state, task) - expected) / half_range(policy)).max() < 0.05
    assert "by OpenVINO, 8-bit convolutions, largest difference on 8 frames of 48x48" in fast.explain()
    if native.module() is not None:
        executor = fast.make_executor({"image_0": (60, 80)}, task)
        assert (np.abs(executor.run([frame], state)[0] - expected) / half_range(policy)).max() < 0.05


def test_a_file_of_another_checkpoint_or_camera_is_no_engine(run, tmp_path, capfd):
    pytest.importorskip("openvino")
    other = make_run(tmp_path / "run", make_store(tmp_path / "store"), steps=(2, 4))
    for options, checkpoint, entry in (([], other, "ptr_fast.step"), (["--camera", "60x80"], run, "ptr_fast.frame")):
        out = tmp_path / "policy.onnx"
        assert cli(["export", "--checkpoint", str(run), "--out", str(out), "--num-frames", "2", *options]) == 0
        with pytest.raises(ValueError, match=f"policy.onnx: expected {entry}"):
            Policy.load(checkpoint, engine=str(out)).warm_up()
    whole = out.read_bytes()
    weights = max((i.raw_data for i in onnx.load_from_string(whole).graph.initializer), key=len)
    middle = whole.index(weights) + len(weights) // 2
    damaged = whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :]
    for data, message in (
        (b"no model", "not an ONNX file"),
        (whole[:middle], "not an ONNX file|not a file of ptr-fast export"),
        (b"", "not a file of ptr-fast export"),
        (damaged, "policy.onnx: damaged: expected ptr_fast.sha256"),
    ):
        out.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            Policy.load(run, engine=str(out)).warm_up()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "480"], "camera: expected HEIGHTxWIDTH"),
        (["--camera", "480x9000"], "camera: expected at most 8192 pixels"),
        (["--task", "turn levr"], "did you mean"),
        (["--num-frames", "0"], "num-frames, num-calibration and bound must be positive"),
        (["--store", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_named(run, tmp_path, options, message, capfd):
    assert cli(["export", "--checkpoint", str(run), "--out", str(tmp_path / "p.onnx"), *options]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "p.onnx").exists()


def test_a_clone_cannot_search(tmp_path, capfd):
    run = make_run(tmp_path / "run", make_store(tmp_path / "store"), config=BC, steps=(2,))
    assert cli(["export", "--checkpoint", str(run), "--mode", "search"]) == 2
    assert "behaviour cloning acts in the modes mean, ema_mean" in capfd.readouterr().err


def test_a_policy_of_states_alone_is_refused_with_the_reason(tmp_path, capfd):
    blind = replace(BC, encoder=replace(BC.encoder, name="none"))
    run = make_run(tmp_path / "run", make_store(tmp_path / "store"), config=blind, steps=(2,))
    assert cli(["export", "--checkpoint", str(run), "--out", str(tmp_path / "p.onnx")]) == 2
    assert "it looks at states alone: only policies of frames can" in capfd.readouterr().err
    assert not (tmp_path / "p.onnx").exists()
