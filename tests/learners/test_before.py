"""Checkpoints of before learners had folders: they load, act and train on with the bits that they had.

``before/NAME/checkpoints/000004`` was written by ``ptr-fast pretrain smoke`` (``smoke-bc``) with tiny nets, six toy
episodes and paths replaced; ``expected.json`` beside it holds what the same code acted and reported two updates later.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import toy_robot

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.learners.registry import traits_of
from ptr_fast.runtime.policy import Policy
from ptr_robot.cli import main as cli

BEFORE = Path(__file__).parent / "before"
LIBRARIES_DIFFER = 2e-5  # of an action's units or nats: other instruction sets add in another order


@pytest.fixture(params=["cql", "bc"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def expected(kind) -> dict:
    return json.loads((BEFORE / kind / "expected.json").read_text())


def seen() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, toy_robot.SIZE, toy_robot.SIZE, 3), dtype=np.uint8)
    return frames, (0.1 * rng.normal(size=(2, 7))).astype(np.float32)


def test_every_weight_is_loaded_bit_by_bit(kind):
    info = read_checkpoint(BEFORE / kind)
    model = info.path / "pretrained_model"
    written = [safetensors.torch.load_file(model / "model.safetensors")]
    written += [safetensors.torch.load_file(f) for f in model.glob("critic.safetensors")]
    wanted = {name: value for file in written for name, value in file.items()}
    policy, found = Policy(info), {}
    for name, network in policy.networks.items():
        found |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    others = {name for name in wanted if name.startswith("temperature.")}
    assert found.keys() == wanted.keys() - others
    assert all(torch.equal(found[name].contiguous(), wanted[name]) for name in found)
    assert {name.partition(".")[0] for name in wanted} == set(traits_of(info.config).networks)


def test_it_acts_as_it_did(kind, expected):
    frames, states = seen()
    task = expected["task"]
    for mode, actions in expected["actions"].items():
        policy = Policy.load(BEFORE / kind, mode=mode)
        acted = [policy.decide(frame, state, task, seed=3) for frame, state in zip(frames, states, strict=True)]
        np.testing.assert_allclose(acted, actions, atol=LIBRARIES_DIFFER, rtol=0)
    images = {policy.spec.camera.name: np.stack(frames)}
    actions = policy.actions(images, states, task)
    log_prob = policy.log_prob(images, states, task, actions * 0.9)
    np.testing.assert_allclose(log_prob, expected["log_prob"], atol=1e-3)
    if kind == "cql":
        q = policy.predict_value(images, states, task, actions)
        np.testing.assert_allclose(q, expected["q"], atol=LIBRARIES_DIFFER, rtol=0)


def test_it_trains_on_as_it_would_have(kind, expected, tmp_path, capsys):
    run, store = tmp_path / kind, tmp_path / "store"
    shutil.copytree(BEFORE / kind, run)
    newest = run / "checkpoints" / "000004"
    (run / "checkpoints" / "last").symlink_to(newest.name)
    shutil.copy(newest / "pretrained_model" / "train_config.json", run)
    toy_robot.write_store(store, toy_robot.toy_episodes(6, cameras=("image_0",)))
    options = ["--num-steps", "6", "--store", f"/before/store={store}"]
    assert cli(["resume", str(run), *options]) == 0, capsys.readouterr().err
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 6
    for name, value in expected["after_two_more_updates"].items():
        assert row[name] == pytest.approx(value, rel=1e-4), name
