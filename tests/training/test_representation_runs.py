"""From frames alone to a policy: the masked autoencoder and time contrast, and the cloning that takes them over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from valued_run import make_store

from ptr_fast.checkpoint import list_checkpoints
from ptr_robot.cli import main as cli

SHORT = ["--num-steps", "2", "--batch-size", "4", "--checkpoint-every", "2", "--log-every", "1", "--device", "cpu"]


def weights(run: Path, network: str) -> dict[str, torch.Tensor]:
    file = list_checkpoints(run)[-1] / "pretrained_model" / "model.safetensors"
    prefix = f"{network}.encoder."
    state = safetensors.torch.load_file(file)
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("toy") / "store").path


@pytest.mark.parametrize("recipe", ["mae", "contrast"])
def test_cloning_takes_the_encoder_over_and_freezes_what_was_learned(recipe, store, tmp_path, capsys):
    learned, cloning, network = tmp_path / "learned", "smoke-bc", "embedding"
    encoder = []
    if recipe == "mae":
        cloning, network = "smoke-bc-vit", "autoencoder"
        encoder = ["--learner.encoder.options.patch", "4"]
    assert (
        cli(["pretrain", f"smoke-{recipe}", *encoder, "--data.stores", str(store), "--out", str(learned), *SHORT]) == 0
    )
    given = weights(learned, network)
    trunk = {name for name in given if name.startswith("trunk.")}
    assert trunk
    assert set(given) > trunk
    wanted = ["--encoder-from", str(learned), "--target", str(store), "--num-demos", "2", "--mix", "0"]
    for name, options in (("frozen", ["--freeze-encoder"]), ("tuned", [])):
        out = tmp_path / name
        task = json.loads((learned / "train_config.json").read_text())["spec"]["tasks"]["names"][0]
        arguments = ["finetune", cloning, *wanted, "--task", task, "--out", str(out), *encoder, *options, *SHORT]
        assert cli(arguments) == 0, capsys.readouterr().err
        taken = weights(out, "actor")
        same = {name for name, value in given.items() if torch.equal(taken[name], value)}
        if name == "tuned":
            assert any(key in trunk for key in set(given) - same)  # it goes on learning
        elif recipe == "mae":
            assert same == trunk  # the pooling and the bottleneck were not learned there: they are trained here
        else:
            assert same == set(given)
        assert [path.name for path in list_checkpoints(out)] == ["000002"]  # what it begins with cannot act
        assert cli(["act", "--checkpoint", str(out), "--store", str(store)]) == 0


def test_a_masked_autoencoder_that_does_not_fit_is_named(store, tmp_path, capsys):
    learned = tmp_path / "learned"
    encoder = ["--learner.encoder.options.patch", "4"]
    assert cli(["pretrain", "smoke-mae", *encoder, "--data.stores", str(store), "--out", str(learned), *SHORT]) == 0
    capsys.readouterr()
    task = json.loads((learned / "train_config.json").read_text())["spec"]["tasks"]["names"][0]
    target = ["--encoder-from", str(learned), "--target", str(store), "--task", task, "--num-demos", "2", "--mix", "0"]
    assert cli(["finetune", "smoke-bc", *target, "--out", str(tmp_path / "other"), *SHORT]) == 2
    told = capsys.readouterr().err
    assert "the encoder of masked autoencoder in" in told
    assert "does not fit behaviour cloning, actor.encoder: trunk." in told
