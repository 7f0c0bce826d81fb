"""Stages run once, in order, and a start after a failure or a kill goes on; the programs are tiny stand-ins."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from ptr_robot.stages import Durations, LocalProcesses, Stage, fill_in_keys, run_stages
from ptr_robot.stages.ledger import Ledger


class Shell(LocalProcesses):
    """The arguments of a stage are a line for the shell."""

    PROGRAM = ("sh", "-c")


def touch(name, root, after=(), **options):
    """A stage that adds a line to a file of its name."""
    return Stage(name, [f"echo ran >> {root / name}"], after=list(after), makes=root / name, **options)


def count(root, *names):
    return [len((root / name).read_text().splitlines()) if (root / name).exists() else 0 for name in names]


def test_stages_run_once_and_again_when_something_before_them_changed(tmp_path, capsys):
    stages = [touch("one", tmp_path), touch("two", tmp_path, ["one"])]
    run_stages(stages, tmp_path, Shell(2))
    run_stages(stages, tmp_path, Shell(2))
    assert count(tmp_path, "one", "two") == [1, 1]
    assert "2 of 2 stages are done already" in capsys.readouterr().out
    stages[0].verb[0] += " # other"
    run_stages(stages, tmp_path, Shell(2))
    assert count(tmp_path, "one", "two") == [2, 2]


def test_keys_do_not_change_with_the_folder(tmp_path):
    def keys(root):
        stages = [touch("one", root), touch("two", root, ["one"])]
        fill_in_keys(stages, root)
        return [stage.key for stage in stages]

    assert keys(tmp_path / "a") == keys(tmp_path / "b")


def test_what_is_gone_is_made_again_only_where_it_is_needed(tmp_path):
    stages = [touch("one", tmp_path), touch("two", tmp_path, ["one"])]
    run_stages(stages, tmp_path, Shell(1))
    (tmp_path / "one").unlink()
    run_stages(stages, tmp_path, Shell(1))
    assert count(tmp_path, "one", "two") == [0, 1]
    run_stages([*stages, touch("three", tmp_path, ["one"])], tmp_path, Shell(1))
    assert count(tmp_path, "one", "two", "three") == [1, 1, 1]


def test_a_damaged_mark_makes_a_stage_run_again(tmp_path):
    stages = [touch("one", tmp_path)]
    run_stages(stages, tmp_path, Shell(1))
    next((tmp_path / "stages").glob("one-*.done")).write_text('{"seconds"')
    run_stages(stages, tmp_path, Shell(1))
    assert count(tmp_path, "one") == [2]


def test_a_full_disk_is_named(tmp_path):
    stage = touch("one", tmp_path)
    fill_in_keys([stage], tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*stages/one-\w+\.started: no space left"):
            Ledger(tmp_path).begin(stage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_stage_that_fails_names_its_log_and_stops_the_others(tmp_path):
    stages = [Stage("one", ["exit 2"]), Stage("long", ["sleep 60"])]
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"stage one failed with exit code 2; see .*one\.log"):
        run_stages(stages, tmp_path, Shell(2))
    assert time.monotonic() - begin < 20
    run_stages([Stage("one", ["exit 2"], accepts=(2,))], tmp_path, Shell(1))


def test_a_stage_that_fails_is_told_and_the_rest_goes_on(tmp_path, capsys):
    bad = Stage("bad", [f"echo the reason; test -e {tmp_path / 'repaired'}"])
    stages = [bad, touch("behind", tmp_path, ["bad"]), touch("beside", tmp_path)]
    result = run_stages(stages, tmp_path, Shell(1), keep_going=True)
    assert list(result.failed) == ["bad"]
    assert result.skipped == ["behind"]
    assert count(tmp_path, "behind", "beside") == [0, 1]
    assert "    the reason" in capsys.readouterr().out
    run_stages(stages, tmp_path, Shell(1), keep_going=True)
    assert capsys.readouterr().out.count("    the reason") == 1  # not that of the start before
    (tmp_path / "repaired").touch()
    result = run_stages(stages, tmp_path, Shell(1), keep_going=True)
    assert not result.failed
    assert count(tmp_path, "behind", "beside") == [1, 1]


def test_a_run_made_with_other_options_is_not_taken_up(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "train_config.json").write_text("{}")
    stages = [Stage("train", ["pretrain", "smoke", "--out", str(run)])]
    with pytest.raises(RuntimeError, match=r"train cannot begin: .*other options"):
        run_stages(stages, tmp_path, LocalProcesses(1))


def test_a_training_that_was_stopped_is_resumed(tmp_path):
    run = tmp_path / "run"
    stage = Stage("train", ["pretrain", "smoke", "--out", str(run)])
    fill_in_keys([stage], tmp_path)
    ledger = Ledger(tmp_path)
    assert ledger.command(stage) == stage.verb
    ledger.begin(stage)
    run.mkdir()
    (run / "train_config.json").write_text("{}")
    assert ledger.command(stage) == ["resume", str(run)]


def test_a_second_start_waits_for_what_a_killed_one_left_running(tmp_path):
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        from test_runner import Shell, Stage, run_stages
        from pathlib import Path
        root = Path({str(tmp_path)!r})
        line = f"echo begun; until test -e {{root}}/go; do sleep 0.05; done; echo ran >> {{root}}/slow"
        run_stages([Stage("slow", [line])], root, Shell(1))
    """
    first = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    log = tmp_path / "logs" / "slow.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as second:
        assert "its process of an earlier start still runs" in second.stdout.readline()
        assert count(tmp_path, "slow") == [0]
        (tmp_path / "go").touch()
        second.stdout.read()
    assert second.returncode == 0
    assert count(tmp_path, "slow") == [2]


def test_it_stops_when_the_time_is_over(tmp_path):
    stages = [touch("one", tmp_path), Stage("long", ["sleep 60"], after=["one"])]
    result = run_stages(stages, tmp_path, Shell(1), seconds=1.0)
    assert result.left == ["long"]
    assert not result.failed


def test_one_stage_per_gpu(tmp_path):
    class Print(LocalProcesses):
        PROGRAM = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES")

    place = Print(4, gpus=["3", "7"])
    trainings = [Stage(f"train{i}", ["pretrain", "smoke", "--out", str(tmp_path / f"r{i}")]) for i in range(3)]
    ledger = Ledger(tmp_path)
    running = []
    for stage in trainings[:2]:
        assert place.has_room(stage)
        running.append(place.start(stage, stage.verb, ledger.log(stage), ledger.take_lock(stage)))
    assert not place.has_room(trainings[2])
    other = Stage("rollout", ["rollout"])
    assert place.has_room(other)
    running.append(place.start(other, other.verb, ledger.log(other), ledger.take_lock(other)))
    for process in running:
        process.wait(10)
        assert process.poll() == 0
    assert {ledger.log(stage).read_text().strip() for stage in trainings[:2]} == {"3", "7"}
    assert ledger.log(other).read_text().strip() == "", "a stage that computes on no GPU sees none"
    assert place.has_room(trainings[2])


def test_the_time_left_is_learned_by_kind():
    a, b = Stage("a", ["pretrain"], kind="pretrain bc", work=100), Stage("b", ["rollout"], after=["a"], work=10)
    durations = Durations({"rollout": (5.0, 1.5)})
    assert durations.predict(a) is None
    assert durations.predict(b) == 20.0
    durations.learn(Stage("x", ["pretrain"], kind="pretrain bc", work=50), 5.0)
    assert durations.predict(a) == 10.0
    assert durations.left([a, b], slots=2) == 30.0  # the chain
    assert durations.left([a, b, Stage("c", ["rollout"], work=60)], slots=1) == 125.0  # the work
    assert durations.left([a, b], slots=2, running={"a": 4.0}) == 26.0
    assert Durations().left([a], slots=1) is None


def test_a_plan_with_a_mistake_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two stages are called 'one'"):
        fill_in_keys([Stage("one", ["info"]), Stage("one", ["info"])], tmp_path)
    with pytest.raises(ValueError, match="'two' waits for 'one'"):
        fill_in_keys([Stage("two", ["info"], after=["one"])], tmp_path)
