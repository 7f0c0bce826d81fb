"""Learners of another package: nothing of this repository knows them, and everything works with them.

In a process of their own, which was started with the package's folder on the path, as a user's is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lab
import pytest
import safetensors.torch
import torch
import toy_robot
import warm_python

from ptr_fast.runtime.export import why_not_onnx

OPTIONS = ("--num-steps", "7", "--checkpoint-every", "1", "--keep-last", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return lab.install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "store"
    return toy_robot.write_store(path, toy_robot.toy_episodes(6, cameras=("image_0",)))


VERBS = """
import json, sys
from verb_here import run_here
for line in sys.stdin:
    done = run_here(*json.loads(line))
    print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
"""


@pytest.fixture(scope="module")
def ptr_fast(folder):
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = warm_python.Popen(
        [sys.executable, "-c", VERBS],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments, code: int = 0) -> str:
        process.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
        process.stdin.flush()
        status, told = json.loads(process.stdout.readline())
        assert status == code, told
        assert "Traceback" not in told
        return told

    yield run
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def run(ptr_fast, store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lab"
    ptr_fast("pretrain", "lab", "--data.stores", store, "--data.validation-share", "0.5", "--out", out, *OPTIONS)
    return out


def weights(run: Path, network: str = "brain") -> dict[str, torch.Tensor]:
    file = run / "checkpoints" / "last" / "pretrained_model" / "model.safetensors"
    return {name: value for name, value in safetensors.torch.load_file(file).items() if name.startswith(network)}


def test_it_trains_fits_before_the_first_step_and_prunes_by_its_own_ranking(run):
    kept = sorted(path.name for path in (run / "checkpoints").iterdir() if path.name != "last")
    assert len(kept) in (2, 3)
    assert kept[-2:] == ["000006", "000007"]
    assert (weights(run)["brain.usual"] != 0).all()
    config = json.loads((run / "checkpoints" / "last" / "pretrained_model" / "config.json").read_text())
    assert config["learner"]["type"] == "LabConfig"


@pytest.mark.slow
def test_it_resumes_bit_for_bit(ptr_fast, run, store, tmp_path):
    out = tmp_path / "parts"
    data = ("--data.stores", store, "--data.validation-share", "0.5", "--out", out)
    ptr_fast("pretrain", "lab", *data, *OPTIONS, "--num-steps", "3")
    ptr_fast("resume", out, "--num-steps", "7")
    for name, value in weights(run).items():
        assert torch.equal(weights(out)[name], value), name


@pytest.mark.slow
def test_it_is_evaluated_selected_reported_and_shown(ptr_fast, run, tmp_path):
    told = ptr_fast("evaluate", "--checkpoint", run)
    assert "action error" in told
    assert "no critic, so there is no Q" in told
    assert "ranked by action error (low is better)" in ptr_fast("select", "--run", run)
    page = tmp_path / "page.html"
    ptr_fast("report", "--run", run, "--out", page)
    assert "lab policy" in page.read_text()
    assert "Lab loss" in page.read_text()


def test_it_acts_and_is_exported(ptr_fast, run, store, tmp_path):
    ptr_fast("act", "--checkpoint", run, "--store", store)
    if why_not_onnx():
        pytest.skip("the extra 'export' is not installed")
    out = tmp_path / "policy.onnx"
    told = ptr_fast("export", "--checkpoint", run, "--out", out, "--num-frames", "4")
    assert "largest difference on" in told
    assert out.stat().st_size > 1000


@pytest.mark.slow
def test_it_is_tried_in_the_toy_simulator(ptr_fast, tmp_path):
    pytest.importorskip("mujoco", reason="the extra 'sim' is not installed")
    store, out, tried = tmp_path / "kitchen", tmp_path / "run", tmp_path / "tried.json"
    ptr_fast("collect", "--out", store, "--episodes", "1", "--kitchens", "B", "--image-size", "16", "--workers", "1")
    ptr_fast("pretrain", "lab", "--data.stores", store, "--out", out, "--num-steps", "2")
    ptr_fast(
        "rollout", "--run", out, "--kitchen", "B", "--trials", "1", "--max-steps", "4", "--workers", "1", "--out", tried
    )
    assert json.loads(tried.read_text())


def test_a_teacher_is_recorded_with_its_digest_and_no_other_is_taken(ptr_fast, run, store, tmp_path):
    out = tmp_path / "taught"
    data = ("--data.stores", store, "--out", out, "--num-steps", "2")
    assert "this learner needs another run: name it with --learner.teacher.path RUN" in ptr_fast(
        "pretrain", "lab-taught", *data, code=2
    )
    ptr_fast("pretrain", "lab-taught", *data, "--learner.teacher.path", run)
    record = json.loads((out / "train_config.json").read_text())
    teacher = record["config"]["learner"]["teacher"]
    assert Path(teacher["path"]).parent.parent == run
    assert len(teacher["weights"]) == 64
    ptr_fast("resume", out, "--num-steps", "3")
    moved = Path(shutil.copytree(run, tmp_path / "moved", symlinks=True))
    branch = ("pretrain", "--from", out, "--num-steps", "4", "--out", tmp_path / "branch")
    ptr_fast(*branch, "--learner.teacher.path", moved)
    of_branch = json.loads((tmp_path / "branch" / "train_config.json").read_text())["config"]["learner"]["teacher"]
    assert Path(of_branch["path"]).parent.parent == moved
    assert of_branch["weights"] == teacher["weights"]
    shutil.rmtree(moved)
    told = ptr_fast("resume", tmp_path / "branch", "--num-steps", "5", code=2)
    assert f"{moved}" in told
    assert "the learner refers to it" in told
    record["config"]["learner"]["teacher"]["weights"] = "0" * 64
    (out / "train_config.json").write_text(json.dumps(record))
    told = ptr_fast("resume", out, "--num-steps", "4", code=2)
    assert "000000000000" in told or "config.learner" in told


def test_a_learner_without_an_actor_trains_past_keep_last_and_gives_its_encoder(ptr_fast, store, tmp_path):
    features, out = tmp_path / "features", tmp_path / "policy"
    ptr_fast("pretrain", "lab-features", "--data.stores", store, "--out", features, *OPTIONS)
    assert len([p for p in (features / "checkpoints").iterdir() if p.name != "last"]) == 2
    assert "does not act" in ptr_fast("evaluate", "--checkpoint", features, code=2)
    assert "does not act" in ptr_fast("act", "--checkpoint", features, "--store", store, code=2)
    encoder = ["--learner.encoder.num-filters", "4", "--learner.encoder.pooling", "mean"]
    finetune = ["finetune", "smoke-bc", "--encoder-from", features, "--freeze-encoder", "--target", store]
    finetune += ["--task", toy_robot.TASKS[0], "--num-demos", "1", "--out", out, "--num-steps", "3"]
    told = ptr_fast(*finetune, *encoder, "--learner.encoder.embedding-dim", "16", code=2)
    assert "the encoder of lab features in" in told
    assert "does not fit behaviour cloning, actor.encoder: dense.bias: expected (16,), got (8,)" in told
    ptr_fast(*finetune, *encoder, "--learner.encoder.embedding-dim", "8")
    given = {name.removeprefix("eye."): value for name, value in weights(features, "eye.encoder").items()}
    for network in ("actor", "ema_actor"):
        taken = {name.removeprefix(f"{network}."): value for name, value in weights(out, network).items()}
        assert given
        assert all(torch.equal(taken[name], value) for name, value in given.items())
    state = out / "checkpoints" / "last" / "training_state" / "optimizer_state.safetensors"
    moments = [name for name in safetensors.torch.load_file(state) if name.endswith("exp_avg")]
    assert len(moments) == len([n for n in weights(out, "actor") if n.startswith("actor.policy")])
    record = json.loads((out / "train_config.json").read_text())
    assert record["parent"]["kind"] == "encoder"
    assert record["config"]["freeze_encoder"] is True
    ptr_fast("resume", out, "--num-steps", "4")
