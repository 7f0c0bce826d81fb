"""Bad input and bad luck as a user meets them: one clear line, a code that is not 0, and nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_robot
import warm_python

from ptr_fast.checkpoint import list_checkpoints
from ptr_fast.data.store import EpisodeStore
from ptr_robot import cli

LOOP = ["--num-steps", "6", "--batch-size", "4", "--log-every", "2", "--checkpoint-every", "6", "--keep-best", "0"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "store"
    return toy_robot.write_store(path, toy_robot.toy_episodes(6, cameras=("image_0",)))


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.main(pretrain(store, out)) == 0
    return out


@pytest.fixture
def verb(capfd):
    """Runs a verb in this process; returns its code and what it said on standard error."""

    def run(*arguments) -> tuple[int, str]:
        capfd.readouterr()
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # how the command-line parser refuses
            code = stop.code
        return code, capfd.readouterr().err

    return run


def pretrain(store, out, *more) -> list[str]:
    return [str(a) for a in ("pretrain", "smoke", "--data.stores", store, "--out", out, *LOOP, *more)]


def one_line(result: tuple[int, str], *expected: str) -> None:
    code, errors = result
    assert code == 2, errors
    lines = [line for line in errors.splitlines() if line.startswith("ptr-fast")]
    assert len(lines) == 1, errors
    assert "[Errno" not in errors
    for words in expected:
        assert words in lines[0]


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, symlinks=True))


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_every_verb_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ptr-fast {name}" in text
    if name not in ("pretrain", "info"):  # its recipes have the options
        assert "default:" in text or "required" in text
    assert "{None}" not in text


def test_help_of_a_recipe_has_defaults(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "smoke", "--help"])
    text = capsys.readouterr().out
    assert "--batch-size INT" in text
    assert "{None}" not in text


@pytest.mark.parametrize("arguments", [["pretrain", "smoke", "--help"], ["finetune", "--help"], ["convert", "--help"]])
def test_help_does_not_wait_for_torch(arguments):
    code = f"import sys\nfrom ptr_robot.cli import main\ntry: main({arguments})\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pretrain", "smok", "--out", "NEW"], "unknown recipe 'smok' (did you mean 'smoke'?)"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "FILE"], "cannot write FILE: "),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "STORE"], "expected a new or empty folder"),
        (["pretrain", "smoke", "--data.stores", "FILE", "--out", "NEW"], "FILE: a file, not a store"),
        (["pretrain", "smoke", "--data.stores", "RUN", "--out", "NEW"], "RUN: not a store"),
        (["inspect", "FILE"], "FILE: a file, not a store"),
        (["doctor", "EMPTY"], "EMPTY: not a store"),
        (["convert", "--source", "FILE", "--out", "NEW"], "FILE: a file, expected a folder"),
        (["convert", "--source", "EMPTY", "--out", "NEW"], "not recognised as one of"),
        (["finetune", "--checkpoint", "FILE", "--target", "STORE", "--out", "NEW"], "FILE: no checkpoint here"),
        (["finetune", "--checkpoint", "STORE", "--target", "STORE", "--out", "NEW"], "STORE: no checkpoint here"),
        (["finetune", "smoke-bc", "--target", "STORE", "--out", "NEW"], "smoke-bc: a recipe belongs to --encoder-from"),
        (["finetune", "--encoder-from", "RUN", "--target", "STORE", "--out", "NEW"], "needs a recipe first"),
        (["finetune", "smoke", "--encoder_from", "FILE", "--target", "STORE", "--out", "NEW"], "FILE: no checkpoint"),
        (["act", "--checkpoint", "RUN", "--store", "FILE"], "FILE: a file, not a store"),
        (["act", "--checkpoint", "RUN", "--task", "fly"], "unknown task 'fly'"),
        (["evaluate", "--checkpoint", "EMPTY"], "EMPTY: no checkpoint here"),
        (["select", "--run", "FILE"], "FILE: no checkpoint here"),
        (["rollout", "--checkpoint", "FILE"], "FILE: no checkpoint here"),
        (["report", "--run", "EMPTY"], "EMPTY: not a run folder"),
        (["report", "--run", "RUN", "--out", "EMPTY"], "cannot write EMPTY"),
        (["resume", "FILE"], "FILE: no run here"),
        (["resume", "EMPTY"], "EMPTY: no run here"),
        (["collect", "--out", "FILE"], "FILE: expected an empty or new folder"),
        (["collect", "--out", "NEW", "--action-repeat", "0"], "action_repeat must lie in 1..40, got 0"),
        (["collect", "--out", "NEW", "--image-size", "9000"], "image_size must lie in 16..512, got 9000"),
        (["pretrain", "smoke", "--data.stores", "STORE", "STORE", "--out", "NEW"], "name each store once"),
        (["collect", "--out", "NEW", "--distractors", "9"], "distractors must lie in 0..5, got 9"),
        (["convert-checkpoint", "--source", "FILE", "--out", "NEW", "--tasks", "x"], "FILE"),
    ],
)
def test_a_wrong_place_or_value_is_one_line(verb, store, finished, tmp_path, arguments, expected):
    places = {"STORE": store, "RUN": finished, "FILE": tmp_path / "file", "EMPTY": tmp_path / "empty"}
    places["FILE"].write_text("no data")
    places["EMPTY"].mkdir()
    places["NEW"] = tmp_path / "new"
    for name, place in places.items():
        expected = expected.replace(name, str(place))
    code, errors = verb(*[places.get(a, a) for a in arguments])
    if arguments[0] == "convert-checkpoint":
        assert code == 2
        assert expected in errors
    else:
        one_line((code, errors), expected)
    assert not places["NEW"].exists()


def test_an_encoder_taken_over_is_frozen_by_either_option(verb, store, finished, tmp_path):
    frozen = []
    for i, options in enumerate((["--learner.encoder.frozen"], ["--freeze-encoder"], [])):
        out, target = tmp_path / str(i), ["--target", store, "--task", toy_robot.TASKS[0], "--num-demos", "1"]
        assert verb("finetune", "smoke-bc", "--encoder-from", finished, *target, "--out", out, *LOOP, *options)[0] == 0
        frozen.append(json.loads((out / "train_config.json").read_text())["config"]["learner"]["encoder"]["frozen"])
    assert frozen == [True, True, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write here")
class DriverError(Exception):
    """As a library defines one: neither a RuntimeError nor a ValueError."""


def test_an_exception_of_a_librarys_own_is_one_line(verb, monkeypatch):
    def fail(*_):
        raise DriverError("the bus\nis gone")

    monkeypatch.setattr("ptr_robot.verbs.info.main", fail)
    one_line(verb("info"), "DriverError: the bus is gone")
    monkeypatch.setattr("ptr_robot.verbs.info.main", lambda *_: {}["a bug"])
    with pytest.raises(KeyError):
        verb("info")


def test_a_read_only_output_is_named(store, tmp_path):
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o555)
    code = "import os, sys\nimport ptr_fast.learners\nfrom ptr_robot import cli\nfrom ptr_robot.training import loop\n"
    code += "from ptr_robot.verbs import pretrain\n"
    code += f"os.setuid(65534)\nsys.exit(cli.main({pretrain(store, folder / 'run')!r}))"
    done = warm_python.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    one_line((done.returncode, done.stderr), str(folder / "run"), "Permission denied")


def test_a_flipped_frame_stops_training_with_store_and_record(verb, store, tmp_path):
    damaged = copy(store, tmp_path / "damaged")
    opened = EpisodeStore.open(damaged)
    record = int(opened.episodes.first[3]) + 2
    frame = bytes(opened.frame_bytes("image_0", record))
    part = next((damaged / "steps").glob("*.arrow"))
    data = bytearray(part.read_bytes())
    assert data.count(frame) == 1
    data[data.index(frame)] ^= 0xFF  # no JPEG begins like this
    del opened
    part.write_bytes(data)
    out = tmp_path / "run"
    one_line(verb(*pretrain(damaged, out, "--num-steps", "400")), str(damaged), "image_0", f"record {record}")
    assert list_checkpoints(out) == []


def test_a_flipped_pixel_stops_training_before_it_begins(verb, tmp_path):
    meta = toy_robot.toy_meta(("image_0",), encoding="raw")
    damaged = toy_robot.write_store(tmp_path / "raw", toy_robot.toy_episodes(3, cameras=("image_0",)), meta)
    part = next((damaged / "steps").glob("*.arrow"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    one_line(verb(*pretrain(damaged, tmp_path / "run")), str(part), "frame.image_0", "CRC-32")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 99}', "\x00\x00"])
def test_a_broken_meta_is_named(verb, store, tmp_path, text):
    damaged = copy(store, tmp_path / "damaged")
    (damaged / "meta.json").write_text(text)
    for arguments in (["inspect", damaged], ["doctor", damaged], pretrain(damaged, tmp_path / "run")):
        one_line(verb(*arguments), "meta.json")


def test_numbers_that_are_not_finite_name_the_episode(verb, tmp_path):
    (episode,) = toy_robot.toy_episodes(1, cameras=("image_0",))
    episode.actions[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"'toy_0_000'.*action.*step 3"):
        toy_robot.write_store(tmp_path / "store", [episode])
    one_line(verb(*pretrain(tmp_path / "store", tmp_path / "run")), "no episode")


def test_an_empty_store_trains_nothing(verb, tmp_path):
    toy_robot.write_store(tmp_path / "store", [], toy_robot.toy_meta(("image_0",)))
    one_line(verb(*pretrain(tmp_path / "store", tmp_path / "run")), str(tmp_path / "store"), "no episode")
    assert not (tmp_path / "run").exists()


def test_episodes_of_one_step_train(verb, tmp_path):
    episodes = toy_robot.toy_episodes(4, cameras=("image_0",))
    short = [
        toy_robot.replace(e, states=e.states[:2], actions=e.actions[:1], images={"image_0": e.images["image_0"][:2]})
        for e in episodes
    ]
    store = toy_robot.write_store(tmp_path / "store", short)
    code, errors = verb(*pretrain(store, tmp_path / "run"))
    assert code == 0, errors
    assert [p.name for p in list_checkpoints(tmp_path / "run")] == ["000006"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["config"].update(learning_rate=1.0), "learning_rate"),
        (lambda c: c["config"]["loop"].update(num_stepps=1), "num_stepps"),
        (lambda c: c["config"]["loop"].update(num_steps="many"), "loop.num_steps: expected int, got 'many'"),
        (lambda c: c.update(verb="guess"), "'verb'"),
        (lambda c: c.pop("config"), "'config'"),
    ],
)
def test_a_damaged_run_configuration_is_named(verb, finished, tmp_path, change, expected):
    run = copy(finished, tmp_path / "run")
    content = json.loads((run / "train_config.json").read_text())
    change(content)
    (run / "train_config.json").write_text(json.dumps(content))
    one_line(verb("resume", run), str(run / "train_config.json"), expected)


def test_a_store_that_is_gone_is_named_when_a_run_goes_on(verb, store, tmp_path):
    moved = copy(store, tmp_path / "store")
    assert verb(*pretrain(moved, tmp_path / "run"))[0] == 0
    moved.rename(tmp_path / "elsewhere")
    one_line(verb("resume", tmp_path / "run", "--num-steps", "9"), str(moved))
    one_line(verb("act", "--checkpoint", tmp_path / "run"), str(moved))


@pytest.mark.parametrize("log", ["metrics.jsonl", "tensorboard/events"])
def test_a_log_that_meets_a_full_disk_is_named(store, finished, tmp_path, log):
    """Each log in turn is the one that has no room: the other one's file system is not limited."""
    run = copy(finished, tmp_path / "run")
    limit = 2_000 if log != "metrics.jsonl" else (run / log).stat().st_size + 300
    code = f"""
import resource, sys
from ptr_robot import cli
from ptr_robot.training import log as train_log
write = train_log.{"_EventFile.write" if "events" in log else "RunLog.write"}
def starved(self, step, numbers):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, before[1]))
    write(self, step, numbers)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
train_log.{"_EventFile.write" if "events" in log else "RunLog.write"} = starved
sys.exit(cli.main(["resume", {str(run)!r}, "--num-steps", "40"]))
"""
    done = warm_python.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    one_line((done.returncode, done.stderr), f"cannot write {run / log}", "no space left")
    assert "Traceback" not in done.stderr
    assert [p.name for p in list_checkpoints(run)] == ["000006"]
    assert warm_python.run([sys.executable, "-m", "ptr_robot", "resume", run, "--num-steps", "8"]).returncode == 0


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_conversion_keeps_what_it_read(shared_dir, tmp_path, number, expected):
    out = tmp_path / "store"
    code = """
import sys, time
from ptr_robot import cli
from ptr_robot.verbs import convert
work = convert._work
def slow(*arguments):
    time.sleep(0.1)
    return work(*arguments)
convert._work, convert.EPISODES_PER_PART = slow, 2
sys.exit(cli.main(sys.argv[1:]))
"""
    command = ["convert", "--source", str(shared_dir / "data" / "bridge_rlds"), "--out", str(out), "--workers", "1"]
    process = warm_python.Popen([sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("episodes/*.arrow")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == expected, errors
    assert "ptr-fast: interrupted" in errors
    assert "Traceback" not in errors
    stopped = EpisodeStore.open(out)
    stopped.verify()
    assert 2 <= stopped.num_episodes < 25
    again = warm_python.run([sys.executable, "-m", "ptr_robot", *command], capture_output=True, text=True)
    assert f"{25 - stopped.num_episodes} converted, {stopped.num_episodes} there already" in again.stdout
