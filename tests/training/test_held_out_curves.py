"""Metrics on held-out episodes beside those of training: the same as ``evaluate``'s, and training does not notice."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import toy_robot
from changing_world import make_store

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.learners import make_learner
from ptr_robot.cli import main as cli
from ptr_robot.evaluation import during_training
from ptr_robot.evaluation.held_out import held_out
from ptr_robot.evaluation.metrics import evaluate_checkpoint
from ptr_robot.training.loop import Run
from ptr_robot.training.run_record import RunRecord

LOOP = ["--num-steps", "12", "--batch-size", "4", "--log-every", "4", "--checkpoint-every", "6", "--keep-last", "0"]
LOOP += ["--keep-best", "0", "--data.validation-share", "0.4"]
NUM_HELD_OUT = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("toy") / "store", toy_robot.toy_episodes(12, cameras=("image_0",)))


def pretrain(store: Path, out: Path, *more: str, recipe: str = "smoke") -> int:
    return cli(["pretrain", recipe, "--data.stores", str(store), "--out", str(out), *LOOP, *more])


@pytest.fixture(scope="module")
def measured(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "measured"
    assert pretrain(store, out, "--evaluate-every", "3") == 0
    return out


def rows(run: Path) -> dict[int, dict[str, float]]:
    """Numbers by step, without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: {k: v for k, v in row.items() if k != "time_s" and k[:5] != "perf/"} for row in lines}


def of_training(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if not key.startswith("held_out/")}


def weights(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def plain(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain"
    assert pretrain(store, out) == 0
    return out


def test_training_is_bit_identical_with_and_without_them(measured, plain):
    assert weights(measured) == weights(plain)
    with_them, without = rows(measured), rows(plain)
    assert sorted(without) == [4, 8, 12]
    assert sorted(with_them) == [3, 4, 6, 8, 9, 12]
    for step, row in without.items():
        assert of_training(with_them[step]) == row
    assert [step for step, row in with_them.items() if row != of_training(row)] == [3, 6, 9, 12]


def test_they_are_what_evaluate_says_of_the_checkpoint(measured):
    for path in list_checkpoints(measured):
        info = read_checkpoint(path)
        expected = evaluate_checkpoint(info, held_out(info))["metrics"]
        row = rows(measured)[info.step]
        got = {key.removeprefix("held_out/"): value for key, value in row.items() if key.startswith("held_out/")}
        assert got == {name: value for name, value in expected.items() if value is not None}
        assert {"bellman_error", "action_error", "log_prob", "q_data", "score"} <= set(got)


def test_a_resumed_run_has_the_curves_of_the_unbroken_one(measured, tmp_path):
    out = tmp_path / "stopped"
    shutil.copytree(measured, out, symlinks=True)
    (out / "checkpoints" / "last").unlink()
    shutil.rmtree(out / "checkpoints" / "000012")
    assert cli(["resume", str(out)]) == 0
    assert rows(out) == rows(measured)
    assert weights(out) == weights(measured)


def test_resume_can_begin_with_them(plain, tmp_path):
    out = tmp_path / "longer"
    shutil.copytree(plain, out, symlinks=True)
    assert cli(["resume", str(out), "--num-steps", "16", "--evaluate-every", "2"]) == 0
    assert [step for step, row in rows(out).items() if row != of_training(row)] == [14, 16]
    changes = json.loads((out / "train_config.json").read_text())["changes"]
    assert {change["field"]: change["after"] for change in changes} == {"loop.num_steps": 16, "loop.evaluate_every": 2}


def test_tensorboard_shows_them(measured):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(measured / "tensorboard"))
    board.Reload()
    got = [(event.step, event.value) for event in board.Scalars("held_out/bellman_error")]
    expected = [(step, row["held_out/bellman_error"]) for step, row in rows(measured).items() if step % 3 == 0]
    assert got == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]


def test_cloning_has_those_without_a_critic(store, tmp_path, capsys):
    assert pretrain(store, tmp_path / "run", "--evaluate-every", "6", recipe="smoke-bc") == 0
    keys = {key for row in rows(tmp_path / "run").values() for key in row if key.startswith("held_out/")}
    names = ("action_error", "log_prob", "at_bounds", "recorded_at_bounds")
    assert keys == {f"held_out/{name}" for name in names}
    told = capsys.readouterr().out
    assert f"held-out metrics every 6 updates: {NUM_HELD_OUT} of {NUM_HELD_OUT} episodes (" in told
    assert "held out: action error " in told


def test_fine_tuning_is_measured_on_the_target(store, measured, tmp_path, capsys):
    toys = [replace(toy, task="fold towel") for toy in toy_robot.toy_episodes(5, 3, ("image_0",))]
    target = make_store(tmp_path / "target", toys)
    words = ["finetune", "--checkpoint", measured, "--target", target, "--num-demos", "3", "--out", tmp_path / "fine"]
    words += [*LOOP[:8], "--evaluate-every", "6"]
    assert cli([str(word) for word in words]) == 0
    assert [step for step, row in rows(tmp_path / "fine").items() if "held_out/bellman_error" in row] == [6, 12]
    told = capsys.readouterr().out
    assert "2 of 2 episodes (" in told
    assert f"frames) of {target}" in told


def test_a_run_that_holds_nothing_out_is_refused_before_it_trains(store, tmp_path, capsys):
    assert pretrain(store, tmp_path / "run", "--evaluate-every", "2", "--data.validation-share", "0") == 2
    assert "holds no episode out" in capsys.readouterr().err
    assert not (tmp_path / "run" / "train_config.json").exists()
    assert pretrain(store, tmp_path / "run", "--evaluate-every", "2", recipe="smoke-contrast") == 2
    assert "time contrast does not act" in capsys.readouterr().err
    assert pretrain(store, tmp_path / "run", recipe="smoke-contrast") == 0  # nothing is in its way


def test_asking_for_them_in_vain_leaves_the_record_of_a_run_as_it_was(store, tmp_path, capsys):
    out = tmp_path / "run"
    assert pretrain(store, out, recipe="smoke-contrast") == 0
    before = (out / "train_config.json").read_bytes()
    assert cli(["resume", str(out), "--num-steps", "16", "--evaluate-every", "2"]) == 2
    assert "time contrast does not act" in capsys.readouterr().err
    assert (out / "train_config.json").read_bytes() == before
    assert cli(["resume", str(out), "--num-steps", "16"]) == 0


def test_they_look_at_so_many_frames_and_no_more(measured, monkeypatch):
    record = RunRecord.from_json(json.loads((measured / "train_config.json").read_text()), "record")
    learner = make_learner(record.learner, record.spec)
    run = Run(out=measured, record=record, sources=(), learner=learner)
    seen = []
    value = during_training.value_episode
    monkeypatch.setattr(
        during_training, "value_episode", lambda *a, **k: seen.append(len(a[2].states)) or value(*a, **k)
    )
    for limit, count in ((10_000, NUM_HELD_OUT), (75, 2), (1, 1)):
        monkeypatch.setattr(during_training, "MAX_FRAMES", limit)
        seen.clear()
        during_training.held_out_metrics(run)()
        assert len(seen) == count, (limit, seen)
        assert sum(seen) <= limit or count == 1


def test_measuring_leaves_the_learner_as_it_was(measured):
    record = RunRecord.from_json(json.loads((measured / "train_config.json").read_text()), "record")
    learner = make_learner(record.learner, record.spec)
    learner.networks()["actor"].train()
    before = {
        (name, key): (value.data_ptr(), value.clone())
        for name, network in learner.networks().items()
        for key, value in network.state_dict().items()
    }
    during_training.held_out_metrics(Run(out=measured, record=record, sources=(), learner=learner))()
    assert learner.networks()["actor"].training
    for name, network in learner.networks().items():
        assert all(parameter.grad is None for parameter in network.parameters())
        for key, value in network.state_dict().items():
            address, was = before[name, key]
            assert value.data_ptr() == address
            assert value.equal(was)
