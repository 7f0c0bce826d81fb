"""Trials on a robot in real time, as real processes: the sheet, the page, and every way a run can go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest
import warm_python
from kitchen_policy import TASK, save_policy
from verb_here import run_here

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.learners import make_learner
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.types import CameraSpec
from ptr_robot.device import pick_device
from ptr_robot.robots.limits_file import write_limits
from ptr_robot.robots.simulated import SimulatedRobot
from ptr_robot.sim.environment import STATE_SPEC, action_spec
from ptr_robot.trials.page import decisions_late, millisecond_ticks, pooled_legs, told_late
from ptr_robot.trials.run import _slowness, _tell, robot_options
from ptr_robot.trials.sheet import TrialRecord, TrialSheet
from ptr_robot.verbs.rollout import Args, _labels


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"), 1, {"split": {"sources": []}})


def command(checkpoint, out, *more, options=()) -> list[str]:
    return [
        *(sys.executable, "-m", "ptr_robot", "rollout", "--robot", "simulated", "--out", str(out)),
        *(["--checkpoint", str(checkpoint), "--engine", "eager"] if checkpoint else []),
        *("--max-steps", "12", "--robot-options", "image_size=32", *options),
        *more,
    ]


def run(*args, **kwargs):
    """In this process: starting one takes longer than a trial."""
    return run_here(*command(*args, **kwargs)[3:])


def sheet(out) -> list[dict]:
    return [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]


def test_trials_of_two_policies_in_blinded_order(checkpoint, tmp_path):
    out = tmp_path / "out"
    done = run(checkpoint, out, "--trials", "2", "--label", "one", "--against", str(checkpoint), "--video", "gif")
    assert done.returncode == 0, done.stderr
    trials = sheet(out)
    assert [t["index"] for t in trials] == [0, 1, 2, 3]
    assert len({t["policy"] for t in trials[:2]}) == len({t["policy"] for t in trials[2:]}) == 2
    assert trials[0]["seed"] == trials[1]["seed"] != trials[2]["seed"], "both meet the same start"
    blinded = re.findall(r"trial \d/4: (?:failure|success)", done.stdout)
    assert len(blinded) == 4, done.stdout
    for trial in trials:
        assert trial["success"] is False
        assert trial["num_steps"] == 12
        assert trial["arm_stopped"] is True
        assert trial["legs_ms"]["capture_to_command"]["p50"] > 0
        assert sum(trial["decisions_late"]) == 12
        assert (out / trial["video"]).stat().st_size > 0
    result = json.loads((out / "result.json").read_text())
    assert result["policies"]["one"]["judged"] == 2
    assert result["policies"]["one"]["acts_by"] == "mean"
    assert "one, step 1 (mean): 0/2 succeeded" in done.stdout
    assert sum(result["decisions_late"]) == 4 * 12
    page = (out / "report.html").read_text()
    for word in (
        "95 % interval",
        "frame to command sent",
        "p99.9",
        "workspace",
        "<svg",
        "trial-001.gif",
        "whole decisions late",
    ):
        assert word in page, word
    assert "safety of simulated" in done.stdout
    assert "one acts by eager" in done.stdout
    again = run(checkpoint, out, "--trials", "2", "--label", "one", "--against", str(checkpoint), "--video", "gif")
    assert again.returncode == 0
    assert "4 trials are done, 0 to go" in again.stdout
    other = run(checkpoint, out, "--trials", "3", "--label", "one")
    assert other.returncode == 2
    assert "is of another evaluation" in other.stderr


def test_a_frozen_camera_stops_the_arm_and_the_next_trial_begins(checkpoint, tmp_path):
    out = tmp_path / "out"
    done = run(checkpoint, out, "--trials", "1", "--max-steps", "200", options=("freeze_after_s=0.5",))
    assert done.returncode == 2, "a trial that the robot broke is no success of the verb"
    assert "simulated failed in trial 1 of 1: step" in done.stderr
    (trial,) = sheet(out)
    assert trial["reason"] == "stopped_stale"
    assert "the observation is too old" in trial["message"]
    assert trial["num_held"] > 0
    assert trial["interventions"]["held_stale"] > 0
    assert trial["arm_stopped"]
    assert "stopped_stale" in done.stdout


def started(arguments):
    return warm_python.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, what: str) -> None:
    for line in process.stdout:
        if what in line:
            return
    raise AssertionError(f"{what!r} never came: {process.stderr.read()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_mid_motion_and_gone_on_with(checkpoint, tmp_path, number, code):
    out = tmp_path / "out"
    arguments = command(checkpoint, out, "--trials", "2", "--max-steps", "20")
    process = started(arguments)
    wait_for(process, "trial 1/2")
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert time.monotonic() - begin < 10
    assert "run it again to go on" in stdout
    assert [t["index"] for t in sheet(out)] == [0]
    done = run_here(*arguments[3:])
    assert done.returncode == 0
    assert "1 trials are done, 1 to go" in done.stdout
    assert [t["index"] for t in sheet(out)] == [0, 1]


def test_killed_in_mid_motion_nothing_recorded_is_lost(checkpoint, tmp_path):
    out = tmp_path / "out"
    process = started(command(checkpoint, out, "--trials", "3", "--video", "none"))
    wait_for(process, "trial 1/3")
    process.kill()
    process.communicate()
    assert [t["index"] for t in sheet(out)][:1] == [0]
    done = run(checkpoint, out, "--trials", "3", "--video", "none")
    assert done.returncode == 0
    assert [t["index"] for t in sheet(out)] == [0, 1, 2]


def test_a_remote_policy_and_a_server_that_dies(checkpoint, tmp_path):
    serve = ["serve", "--checkpoint", str(checkpoint), "--port", "0", "--engine", "eager"]
    server = warm_python.Popen([sys.executable, "-m", "ptr_robot", *serve], stdout=subprocess.PIPE, text=True)
    url = next(found[0] for line in server.stdout if (found := re.search(r"ws://[\d.:]+", line)))
    try:
        done = run(None, tmp_path / "alive", "--remote", url, "--trials", "1")
        assert done.returncode == 0, done.stderr
        assert sheet(tmp_path / "alive")[0]["num_steps"] == 12
        (served,) = json.loads((tmp_path / "alive" / "plan.json").read_text())["about"]["policies"]
        assert (served["step"], served["label"]) == (1, f"{checkpoint.parent.parent.name}/000001")
        process = started(command(None, tmp_path / "dies", "--remote", url, "--trials", "1", "--max-steps", "200"))
        wait_for(process, "trial 1  step")
        server.kill()
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stderr
        assert re.search(rf"in 1 of 1 trials the policy failed, which is no success: .*{url}", stdout)
        (trial,) = sheet(tmp_path / "dies")
        assert trial["reason"] == "stopped_policy"
        assert url in trial["message"]
        assert trial["interventions"]["held_late"] > 0, "it stood still before it gave up"
        assert trial["arm_stopped"]
    finally:
        server.kill()
        server.wait()
    gone = run(None, tmp_path / "gone", "--remote", url, "--trials", "1")
    assert gone.returncode == 2
    assert "no policy server answers there" in gone.stderr


def test_trials_are_recorded_as_episodes_that_can_be_trained_on(checkpoint, tmp_path):
    store = tmp_path / "store"
    done = run(checkpoint, tmp_path / "out", "--trials", "2", "--record", str(store))
    assert done.returncode == 0, done.stderr
    opened = EpisodeStore.open(store)
    assert opened.num_episodes == 2
    assert set(opened.episodes.task) == {TASK}
    assert set(opened.episodes.outcome) == {"failure"}
    assert all(8 <= steps <= 12 for steps in opened.episodes.num_steps.tolist())
    assert opened.frame("image_0", 0).shape == (32, 32, 3)
    assert abs(opened.action).max() <= 1.0, "the commands that were sent, inside the limits"


def test_limits_from_a_file(checkpoint, tmp_path):
    limits = SimulatedRobot(image_size=32).limits(20.0)
    slow = replace(limits, axes=[replace(axis, max_step=1e-6 if axis.relative else 2.0) for axis in limits.axes])
    robot = SimulatedRobot(image_size=32)
    write_limits(tmp_path / "limits.json", slow, robot.units, STATE_SPEC.names)
    done = run(checkpoint, tmp_path / "out", "--trials", "1", "--limits", str(tmp_path / "limits.json"))
    assert done.returncode == 0, done.stderr
    assert "step 1e-06" in done.stdout
    assert sheet(tmp_path / "out")[0]["interventions"]["step"] > 0


def test_limits_of_another_unit_or_without_sense_are_refused(checkpoint, tmp_path):
    robot, file = SimulatedRobot(image_size=32), tmp_path / "limits.json"
    limits = robot.limits(20.0)
    limits = replace(limits, axes=[replace(axis, max_step=2.0) for axis in limits.axes])
    for changed, units, message in (
        (limits, {"dx": "inch"}, "axis 'dx': expected unit '4 cm', as the checkpoint has it, got 'inch'"),
        (replace(limits, axes=[*limits.axes[:3], replace(limits.axes[3], max_step=-1.0)]), {}, "must be positive"),
        (replace(limits, stop_after_s=1e300), {}, "stop_after_s: expected 0 to 60 s, got 1e+300"),
    ):
        write_limits(file, changed, {**robot.units, **units}, STATE_SPEC.names)
        done = run(checkpoint, tmp_path / "out", "--trials", "1", "--limits", str(file))
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_stop_file_ends_the_run_and_nothing_moves_while_it_is_there(checkpoint, tmp_path):
    stop, out = tmp_path / "stop", tmp_path / "out"
    arguments = command(checkpoint, out, "--trials", "3", "--max-steps", "200", "--stop-file", str(stop))
    process = started(arguments)
    wait_for(process, "trial 1  step")
    other = run_here(*arguments[3:])
    assert other.returncode == 2
    assert "another rollout is running there" in other.stderr
    stop.touch()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "remove it and run again to go on" in stdout
    (trial,) = sheet(out)
    assert (trial["reason"], trial["message"]) == ("stopped_operator", f"{stop} exists")
    assert trial["success"] is None, "broken off, so nobody knows"
    again = run_here(*arguments[3:])
    assert again.returncode == 2
    assert "exists, nothing moves" in again.stderr
    assert len(sheet(out)) == 1


def test_the_fastest_engine_acts_unless_told_otherwise_and_is_named(checkpoint, tmp_path):
    done = run(checkpoint, tmp_path / "out", "--trials", "1", "--engine", "auto", "--video", "none")
    assert done.returncode == 0, done.stderr
    told = re.search(r"acts by (.*)", done.stdout)[1]
    has_onnx = all(map(find_spec, ("onnx", "onnxscript")))
    if has_onnx and find_spec("openvino"):
        assert told == "openvino inside the control loop"
    elif has_onnx and find_spec("onnxruntime"):
        assert told.startswith("onnxruntime (within ")
    else:
        assert told.startswith("eager (not onnxruntime: not installed")
    assert sheet(tmp_path / "out")[0]["num_steps"] == 12
    assert Args(out=tmp_path).engine == "auto"


def test_an_engine_of_the_cpu_acts_there_beside_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device("auto", "policy.onnx").type == pick_device("auto", "openvino").type == "cpu"
    assert pick_device("auto", "auto").type == pick_device("cuda", "openvino").type == "cuda"


def test_labels_tell_paths_apart(tmp_path):
    runs = [tmp_path / "a" / "finetune", tmp_path / "b" / "finetune"]
    assert _labels(runs[:1], "") == ["finetune"]
    assert _labels(runs, "") == ["a/finetune", "b/finetune"]
    assert _labels(runs, "mine") == ["mine", "finetune"]
    steps = [runs[0] / "checkpoints" / "000100", runs[0] / "checkpoints" / "000200"]
    assert _labels(steps, "") == ["finetune/000100", "finetune/000200"]
    assert _labels([*steps, runs[1] / "checkpoints" / "000100"], "")[2] == "b/finetune/000100"
    with pytest.raises(ValueError, match="finetune: is named twice; --label gives"):
        _labels([runs[0], runs[0]], "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run", "--record", "store"], "nothing to --record"),
        (["--ca-file", "ca.pem"], "--ca-file needs --remote"),
        (["--trials", "0"], "trials must lie in 1 to 10000, got 0"),
        (["--task", "juggle"], "juggle"),
        (["--robot-options", "hz=5"], "action 'dx' is in '16 cm', the checkpoint's is in '4 cm'"),
        (["--robot-options", "warp=9"], "has no option 'warp'; it has task, kitchen, hz"),
        (["--robot-options", "nonsense"], "expected NAME=VALUE"),
        (["--robot-options", "hz=20", "hz=10"], "robot-options: hz is given twice"),
        (["--robot-options", "camera:top=3"], "camera: expected opencv:DEVICE or playback:VIDEO, got '3'"),
        (["--candidates", "3"], "candidates and elites are of mode search"),
        (["--robot", "terminator"], "expected one of simulated, replay"),
        (["--robot-options", "image_size=big"], "robot 'simulated': option image_size: expected int, got 'big'"),
        (["--robot", "replay", "--robot-options"], "robot 'replay' needs the option store"),
        (["--kitchen", "H"], "--kitchen does nothing with --robot"),
        (["--run", "runs/other"], "name one of --run, --checkpoint or --remote"),
        (["--max-steps", "0"], "max-steps must lie in 1 to 1000000, got 0"),
        (["--seed", "-1"], "seed must lie in 0 to 9223372036854775807, got -1"),
        (["--stop-file", "no/such/button"], "stop-file: there is no folder no/such"),
        (["--limits", "none.json"], "none.json: cannot read the limits"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(checkpoint, tmp_path, arguments, message):
    done = run(checkpoint, tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "trials.jsonl").exists()


@pytest.mark.parametrize("option", [("--stop-file", "stop"), ("--record", "store"), ("--engine", "eager")])
def test_what_only_a_robot_heeds_is_refused_without_one(option):
    done = run_here("rollout", "--run", "somewhere", *option)
    assert (done.returncode, f"{option[0]} needs --robot" in done.stderr) == (2, True)


def test_what_was_refused_leaves_the_folder_to_the_next_try(checkpoint, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "notes.txt").touch()
    wrong = run(checkpoint, tmp_path / "out", "--trials", "1", options=["kitchen=Z"])
    assert (wrong.returncode, "unknown kitchen 'Z'" in wrong.stderr) == (2, True)
    wrong = run(checkpoint, tmp_path / "out", "--trials", "1", "--record", str(tmp_path / "store"))
    assert "expected an empty or new folder" in wrong.stderr
    done = run(checkpoint, tmp_path / "out", "--trials", "1", "--max-steps", "2")
    assert done.returncode == 0, done.stderr


def test_robot_options():
    assert robot_options(("a-b=1", "c=0.5", "d=H", "e=true")) == {"a_b": 1, "c": 0.5, "d": "H", "e": True}


def record(index: int) -> TrialRecord:
    counts = dict.fromkeys(("num_steps", "num_missed", "num_held", "num_dropped_frames", "num_unrecorded"), 0)
    return TrialRecord(index=index, policy="a", seed=1, success=True, reason="", message="", arm_stopped=True, **counts)


def test_periods_without_a_command_and_steps_without_an_observation_are_told_with_their_cause():
    legs = {"policy": {"p50": 2.0}, "send": {"p50": 285.0}, "overhead": {"p50": 1.0}}
    trial = replace(record(0), num_steps=60, num_missed=315, num_held=40, legs_ms=legs)
    assert list(_slowness(trial)) == [
        "315 of 375 periods passed without a command: send took 285 ms (p50)",
        "the arm stood still in 40 of 60 steps for want of a fresh observation",
    ]
    assert not list(_slowness(replace(trial, num_missed=5, num_held=5)))


def test_a_sheet_whose_last_line_was_cut_short_does_that_trial_again(tmp_path):
    sheet = TrialSheet(tmp_path, {"x": 1}, ["a"], 3)
    sheet.add(record(0))
    sheet.add(record(1))
    file = tmp_path / "trials.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    again = TrialSheet(tmp_path, {"x": 1}, ["a"], 3)
    assert [index for index, _, _ in again.remaining()] == [1, 2]
    again.add(record(1))
    assert file.read_bytes() == whole
    file.write_bytes(b"rubbish\n" + whole)
    with pytest.raises(DataError, match="line 1 is not a trial"):
        TrialSheet(tmp_path, {"x": 1}, ["a"], 3)


def test_how_many_whole_decisions_late_actions_act_is_told():
    records = [replace(record(0), decisions_late=[1, 8]), replace(record(1), decisions_late=[0, 0, 1]), record(2)]
    assert decisions_late(records) == [1, 8, 1]
    assert told_late([1, 8, 1]) == "80% of the actions act 1 whole decision late"
    assert told_late([5]) == "100% of the actions act 0 whole decisions late"
    assert (decisions_late([record(0)]), told_late([])) == ([], "no command was sent")


def test_no_time_is_told_of_commands_that_were_not_sent(tmp_path, capsys):
    dry = replace(record(0), legs_ms={"capture_to_command": {"p50": 0.0, "p99": 0.0}})
    _tell(TrialSheet(tmp_path, {}, ["a"], 1), dry, blinded=False)
    assert capsys.readouterr().out == "trial 1/1 of a: success after 0 steps; no command was sent, missed 0\n"


def test_a_page_of_trials_from_before_a_leg_was_measured(tmp_path):
    sheet, measured = TrialSheet(tmp_path, {}, ["a"], 2), {"p50": 1.0, "max": 2.0}
    sheet.add(replace(record(0), legs_ms={"policy": measured}, histograms={"policy": ([1_000_000], [3])}))
    new = {leg: ([1_000_000], [3]) for leg in ("policy", "frame_wait")}
    sheet.add(replace(record(1), legs_ms={"policy": measured, "frame_wait": measured}, histograms=new))
    assert {leg: values["max"] for leg, values in pooled_legs(sheet).items()} == {"policy": 2.0, "frame_wait": 2.0}


def test_a_full_disk_is_told(tmp_path):
    sheet = TrialSheet(tmp_path, {}, ["a"], 1)
    os.symlink("/dev/full", tmp_path / "trials.jsonl")
    with pytest.raises(OSError, match=r"trials\.jsonl"), sheet.held():
        sheet.add(record(0))


def test_marks_of_times_are_milliseconds_however_close_the_times_are():
    assert [text for _, text in millisecond_ticks(0.02, 4.0)] == ["0.03", "0.1", "0.3", "1", "3"]
    places, texts = zip(*millisecond_ticks(55.0, 75.0), strict=True)
    assert texts == ("55", "60", "65", "70", "75")
    assert [round(10**place) for place in places] == [55, 60, 65, 70, 75]


def test_chunks_of_two_cameras_are_played_recorded_and_told(tmp_path):
    """A clone of chunks on the simulated arm: each rule of playing, cameras by the map, frames of both in the store."""
    spec = PolicySpec(
        cameras=tuple(CameraSpec(name=name, height=32, width=32) for name in ("table", "wrist")),
        state=STATE_SPEC,
        action=action_spec(4),
        tasks=TaskTable(names=(TASK,), num_slots=2),
        control_hz=20.0,
    )
    encoder = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
    config = BcConfig(encoder=encoder, hidden_dims=(16, 16), num_actions=8, num_observations=2)
    learner = make_learner(config, spec)
    checkpoint = save_checkpoint(tmp_path / "run", 1, learner, spec, ActConfig(), {"split": {"sources": []}})
    cameras = ("cameras=front,wrist",)
    refused = run(checkpoint, tmp_path / "refused", "--trials", "1", options=cameras)
    assert refused.returncode == 2
    assert (
        "no camera 'table': the checkpoint sees ['table', 'wrist'], simulated has ['front', 'wrist']" in refused.stderr
    )
    store = tmp_path / "store"
    for play in (["receding", "--execute", "4"], ["ensemble"], ["latency"]):
        out = tmp_path / play[0]
        more = ["--play", *play, "--camera-map", "front=table", "--record", str(store), "--max-steps", "16"]
        done = run(checkpoint, out, "--trials", "1", "--video", "none", *more, options=cameras)
        assert done.returncode == 0, done.stderr
        (trial,) = sheet(out)
        assert trial["num_steps"] == 16
        assert trial["legs_ms"]["policy"]["p50"] > 0
        about = json.loads((out / "plan.json").read_text())["about"]
        assert about["play"]["play"] == play[0]
        told = {"receding": "receding, asked every 4 steps", "ensemble": "ensemble, decay 0.01", "latency": "latency"}
        assert f"<td>play</td><td>{told[play[0]]}</td>" in (out / "report.html").read_text()
    opened = EpisodeStore.open(store)
    assert [camera.name for camera in opened.meta.cameras] == ["table", "wrist"]
    assert opened.num_episodes == 3
    assert (opened.frame("table", 0) != opened.frame("wrist", 0)).any()
