"""A run whose encoder's weights come from a file: recorded by its digest, resumed and acted on where it is not."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from valued_run import make_store

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.runtime.policy import Policy
from ptr_robot.cli import main as cli

sys.path.insert(0, str(Path(__file__).parents[1] / "nets"))
from test_frozen_resnet import random_file


def test_a_run_records_its_file_of_weights_and_needs_it_no_more(tmp_path, capsys):
    store = make_store(tmp_path / "store")
    weights, out = tmp_path / "model.pt", tmp_path / "run"
    torch.save({"r3m": {f"module.convnet.{name}": value for name, value in random_file(18).items()}}, weights)
    encoder = ["--learner.encoder.name", "frozen_resnet18", "--learner.encoder.pooling", "mean"]
    encoder += ["--learner.encoder.options", "weights", str(weights)]
    loop = ["--num-steps", "2", "--batch-size", "2", "--checkpoint-every", "1", "--log-every", "1"]
    data = ["--data.stores", str(store.path), "--out", str(out)]
    assert cli(["pretrain", "smoke-bc", *encoder, *data, *loop]) == 0
    options = read_checkpoint(out).config.encoder.options
    record = json.loads((out / "checkpoints/last/pretrained_model/train_config.json").read_text())
    assert options["weights"] == str(weights)
    assert len(options["sha256"]) == 64
    assert record["config"]["learner"]["encoder"]["options"] == options

    policy = Policy.load(out)
    observation = np.zeros((8, 8, 3), np.uint8), np.zeros(policy.spec.state.dim, np.float32), policy.spec.tasks.names[0]
    action = policy.decide(*observation)
    weights.unlink()
    np.testing.assert_array_equal(Policy.load(out).decide(*observation), action)
    branch = tmp_path / "branch"
    start = str(out / "checkpoints" / "000001")
    assert cli(["pretrain", "--from", start, "--out", str(branch)]) == 0
    np.testing.assert_array_equal(Policy.load(branch).decide(*observation), action)
    capsys.readouterr()
    assert cli(["pretrain", "smoke-bc", *encoder, "--data.stores", str(store.path), "--out", str(tmp_path / "b")]) == 2
    assert f"{weights}: cannot read the encoder's weights: No such file" in capsys.readouterr().err
    assert not (tmp_path / "b").exists() or not any((tmp_path / "b").iterdir())
