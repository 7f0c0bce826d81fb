"""What every registered learner does, whichever it is: the one suite over the registry.

Two ranks: ``tests/training/test_distributed.py`` runs every learner of the registry under torchrun.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import toy_robot
from learner_cases import make_spec
from learner_kinds import KINDS, asked_for, small

from ptr_fast.checkpoint import list_checkpoints, load_training_state, read_checkpoint, save_checkpoint
from ptr_fast.config import ActConfig, LearnerConfig
from ptr_fast.cuda_graph import NUM_WARM_UP, CapturedStep, EagerStep
from ptr_fast.kernels import dispatch
from ptr_fast.learners import base, make_learner
from ptr_fast.learners.capabilities import Acts, Encodes, MakesNetworks, Values
from ptr_fast.learners.registry import encodes_of, kind_of, kinds, make_networks, traits_of
from ptr_fast.runtime.export import why_not_onnx
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.policy import Policy
from ptr_fast.types import Batch
from ptr_robot.cli import main as cli
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.training import matching
from ptr_robot.training.config import DataConfig, LoopConfig, PretrainConfig
from ptr_robot.training.episode_choice import select_prior
from ptr_robot.verbs.pretrain import pretrain

sys.path.insert(0, str(Path(__file__).parents[1]))
from tape import DirectRecorder, TapeRecorder

TASK = toy_robot.TASKS[0]
LOOP = LoopConfig(num_steps=7, batch_size=4, log_every=1, checkpoint_every=1, keep_last=2, num_threads=1, device="cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "store"
    return toy_robot.write_store(path, toy_robot.toy_episodes(6, cameras=("image_0",)))


def small_on(tag: str, store: Path) -> LearnerConfig:
    """The learner's small configuration for a run on a store."""
    sources = select_prior(DataConfig(stores=(store,), validation_share=0.5), seed=0)
    return small(tag, matching.make_spec(sources, (), 0))


def train(tag: str, store: Path, out: Path, num_steps: int = 7) -> Path:
    config, traits = small_on(tag, store), traits_of(small(tag))
    act = ActConfig(mode=traits.modes[0]) if traits.modes else ActConfig()
    data = DataConfig(stores=(store,), validation_share=0.5)
    loop = dataclasses.replace(LOOP, num_steps=num_steps)
    out.mkdir()
    assert pretrain(PretrainConfig(out=out, data=data, learner=config, act=act, loop=loop)) == 0
    return out


@pytest.fixture(scope="module", params=KINDS)
def tag(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def run(tag, store, tmp_path_factory) -> Path:
    return train(tag, store, tmp_path_factory.mktemp("runs") / tag)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Everything in the newest checkpoint: weights, fitted buffers, states of the optimisers."""
    files = sorted(list_checkpoints(run)[-1].rglob("*.safetensors"))
    return {f"{file.name}/{key}": value for file in files for key, value in safetensors.torch.load_file(file).items()}


def numbers(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_its_traits_are_true(tag):
    config = small(tag)
    kind, traits, spec = kinds()[tag], traits_of(config), make_spec()
    assert kind_of(config) is kind
    assert traits.columns <= {field.name for field in dataclasses.fields(Batch)}
    learner = make_learner(config, spec)
    assert tuple(learner.networks()) == traits.networks
    made = make_networks(config, spec, traits.networks)
    for name, network in learner.networks().items():
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        assert {key: value.shape for key, value in made[name].state_dict().items()} == shapes, name
    networks = kind.networks(config)
    assert isinstance(networks, MakesNetworks)
    for name, protocol in (("acts", Acts), ("values", Values), ("encodes", Encodes)):
        assert name not in traits.capabilities or isinstance(networks, protocol), name
    for mode in traits.modes:
        assert set(networks.networks_for(mode)) <= set(traits.networks)
    if traits.ranking:
        metric, best = traits.ranking
        assert {"high": "max", "low": "min"}[METRICS[metric][2]] == best
    assert set(traits.made_of) <= {field.name for field in dataclasses.fields(config)}
    assert getattr(config, traits.rate) > 0
    info = learner.update(asked_for(config, spec), 0)
    shown = {*traits.progress, *(key for panel in traits.panels for key in panel.series)}
    shown |= {traits.value_of_data} - {""}
    assert shown <= info.keys()
    assert learner.learning_rates(0).keys() == learner.optimizers().keys()


def test_it_trains_past_the_checkpoints_that_are_kept(run, tag, store):
    rows = numbers(run)
    assert [row["step"] for row in rows] == list(range(1, 8))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    kept = [path.name for path in list_checkpoints(run)]
    assert kept[-2:] == ["000006", "000007"]
    assert len(kept) == 2 or (len(kept) == 3 and traits_of(small(tag)).ranking)
    config = read_checkpoint(run).config
    assert config == dataclasses.replace(small_on(tag, store), lr_schedule_steps=config.lr_schedule_steps)


def test_it_resumes_bit_for_bit(run, tag, store, tmp_path, capsys):
    parts = train(tag, store, tmp_path / "parts", num_steps=4)
    assert cli(["resume", str(parts), "--num-steps", "7"]) == 0, capsys.readouterr().err
    wanted, got = tensors(run), tensors(parts)
    assert wanted.keys() == got.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], got[name])] == []


def test_it_is_saved_and_loaded_whole(tag, tmp_path):
    config, spec = small(tag), make_spec()
    learner, other = (make_learner(config, spec, seed=1) for _ in range(2))
    learner.update(asked_for(config, spec), 0)
    other.update(asked_for(config, spec, seed=9), 0)
    path = save_checkpoint(tmp_path, 1, learner, spec, ActConfig(), {})
    traits = traits_of(config)
    assert (path / "pretrained_model" / "critic.safetensors").exists() == bool(traits.beside)
    load_training_state(read_checkpoint(path), other)
    for each in (learner, other):
        each.update(asked_for(config, spec, seed=1), 1)
    for name, network in learner.networks().items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, other.networks()[name].state_dict()[key]), (name, key)


def test_it_acts_in_all_its_modes_or_says_that_it_does_not(run, tag, store, capsys):
    traits = traits_of(small(tag))
    if not traits.modes:
        with pytest.raises(ValueError, match="does not act"):
            Policy.load(run)
        return
    rng = np.random.default_rng(0)
    for mode in traits.modes:
        policy = Policy.load(run, mode=mode)
        spec, carry = policy.spec, policy.reset()
        size = spec.cameras[0].height, spec.cameras[0].width, 3
        for _ in range(traits.window.num_observations + 1):
            images = {camera.name: rng.integers(0, 256, size, dtype=np.uint8) for camera in spec.cameras}
            seen = Observation(images, rng.normal(size=spec.state.dim).astype(np.float32), TASK)
            chunk, carry = policy.act(seen, carry, seed=1)
            assert chunk.shape == (traits.window.num_actions, spec.action.dim)
            assert np.isfinite(chunk).all()
            low, high = np.array(spec.action.low), np.array(spec.action.high)
            assert (chunk >= low - 1e-4).all()
            assert (chunk <= high + 1e-4).all()
    assert cli(["act", "--checkpoint", str(run), "--store", str(store)]) == 0, capsys.readouterr().err


def test_it_is_evaluated_and_selected_or_says_why_not(run, tag, capsys):
    traits = traits_of(small(tag))
    if "acts" not in traits.capabilities:
        assert cli(["evaluate", "--checkpoint", str(run)]) == 2
        assert "does not act" in capsys.readouterr().err
        return
    assert cli(["evaluate", "--checkpoint", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["learner"] == tag
    assert result["metrics"]["action_error"] is not None
    assert ("bellman_error" in result["metrics"]) == ("values" in traits.capabilities)
    assert cli(["select", "--run", str(run), "--json"]) in (0, 1)  # 1: all of them are out
    selection = json.loads(capsys.readouterr().out)
    assert selection["metric"] == (traits.ranking[0] if traits.ranking else None)
    if not traits.ranking:
        assert selection["selected"] == int(list_checkpoints(run)[-1].name)


def test_it_is_reported_by_name(run, tag, tmp_path, capsys):
    assert cli(["report", "--run", str(run), "--out", str(tmp_path / "page.html")]) == 0, capsys.readouterr().err
    page = (tmp_path / "page.html").read_text()
    assert traits_of(small(tag)).name in page
    assert all(panel.heading in page for panel in traits_of(small(tag)).panels)


def test_it_is_exported_where_it_says_so(run, tag, tmp_path, capfd):
    if why_not_onnx():
        pytest.skip("the extra 'export' is not installed")
    out = tmp_path / "policy.onnx"
    code = cli(["export", "--checkpoint", str(run), "--out", str(out), "--num-frames", "4"])
    shown = capfd.readouterr()
    exports = traits_of(small(tag)).exports
    assert (code, out.exists()) == ((0, True) if exports else (2, False)), shown.err


def test_what_encodes_embeds_images(tag):
    config, spec = small(tag), make_spec()
    if "encodes" not in traits_of(config).capabilities:
        pytest.skip("it has no encoder")
    encodes = encodes_of(config)
    networks = make_networks(config, spec, [encodes.encoder_network()])
    embedding = encodes.embed(networks, {"camera": torch.rand(3, 3, 16, 16)})
    assert embedding.shape == (3, encodes.encoder_of(networks).num_outputs)


def test_its_updates_depend_on_seed_step_and_batch_alone(tag):
    """Equal seeds give equal bits, nothing is drawn from PyTorch's global generator; its numbers are plain."""
    config, spec = small(tag), make_spec()
    torch.manual_seed(1)
    before, batch, runs = torch.get_rng_state(), asked_for(config, spec), []
    for seed in (0, 0, 3):
        learner = make_learner(config, spec, seed)
        for step in range(3):
            info = learner.update(batch, step)
        runs.append([value.clone() for value in state_of(learner) if isinstance(value, torch.Tensor)])
    assert all(torch.equal(one, other) for one, other in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(runs[0], runs[2], strict=True))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in info.items():
        assert (value.shape, value.requires_grad, bool(value.isfinite())) == ((), False, True), name


class Batches:
    """Made anew on the host for every step."""

    on_device, wait_seconds = False, 0.0

    def __init__(self, config) -> None:
        self.config = config

    def batch(self, step) -> Batch:
        return asked_for(self.config, make_spec(), seed=int(step))


def state_of(learner) -> list[torch.Tensor]:
    """Everything that an update changes."""
    state = [value for network in learner.networks().values() for value in network.state_dict().values()]
    for optimizer in learner.optimizers().values():
        state += [group["lr"] for group in optimizer.param_groups]
        state += [value for entry in optimizer.state.values() for value in entry.values()]
    return state


def test_its_update_is_recorded_once_and_replayed(tag, monkeypatch):
    """As a CUDA graph would (``tests/tape.py``): nothing is read back, drawn on the host or uploaded in an update."""
    config = small(tag)
    monkeypatch.setattr(base, "check_batch", lambda *_: None)
    steps = []
    with dispatch.use_backend(
        ",".join(f"{op}={'planar' if op == 'augment' else 'reference'}" for op in dispatch.ops())
    ):
        for kind in (EagerStep, CapturedStep):
            learner = make_learner(config, make_spec(), seed=1)
            for optimizer in learner.optimizers().values():
                for group in optimizer.param_groups:
                    group["lr"] = torch.tensor(group["lr"])
            if kind is EagerStep:
                step = EagerStep(learner, Batches(config), 0)
            else:
                step = CapturedStep(learner, Batches(config), 0, recorder=DirectRecorder())
                step._recorder = TapeRecorder(
                    lambda step=step: [
                        *state_of(step.learner), step._step, step._readout.values, step._readout.first_bad
                    ]
                )  # fmt: skip
            for _ in range(NUM_WARM_UP + 3):
                step.run()
            steps.append(step)
    eager, captured = steps
    assert captured.why_eager is None
    assert captured._recorder.num_replays == 3
    assert all(
        torch.equal(one, other) for one, other in zip(*map(state_of, (eager.learner, captured.learner)), strict=True)
    )


def test_it_trains_in_bfloat16_where_it_offers_that(tag):
    config, spec = small(tag), make_spec()
    if not traits_of(config).bfloat16:
        pytest.skip("it does not offer that")
    losses = []
    for dtype in (None, torch.bfloat16):
        learner = make_learner(config, spec, seed=1, encoder_dtype=dtype)
        infos = [learner.update(asked_for(config, spec, seed=step), step) for step in range(3)]
        losses.append(torch.stack([next(iter(info.values())) for info in infos]))
        assert all(value.isfinite() for info in infos for value in info.values())
        assert {p.dtype for network in learner.networks().values() for p in network.parameters()} == {torch.float32}
    assert torch.allclose(losses[0], losses[1], rtol=0.05)
    assert not torch.equal(losses[0], losses[1])


def test_a_frozen_encoder_has_no_gradient_and_no_state(tag):
    config, spec = small(tag), make_spec()
    if not hasattr(config, "encoder"):
        pytest.skip("it has no encoder")
    try:
        config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, frozen=True))
    except ValueError as error:
        pytest.skip(str(error))
    learner = make_learner(config, spec, seed=1)
    frozen = {
        id(parameter): (name, parameter, parameter.detach().clone())
        for network in learner.networks().values()
        for name, parameter in network.named_parameters()
        if "encoder." in name
    }
    assert frozen
    for step in range(2):
        learner.update(asked_for(config, spec, seed=step), step)
    for name, parameter, before in frozen.values():
        assert torch.equal(parameter, before), name
        assert parameter.grad is None, name
    held = {id(parameter) for optimizer in learner.optimizers().values() for parameter in optimizer.state}
    assert not held & frozen.keys()
