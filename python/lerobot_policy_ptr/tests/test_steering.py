"""A critic of ours chooses among what a policy of LeRobot's own proposes: ``--steer lerobot:FOLDER``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="LeRobot is not installed here")
pytest.importorskip("diffusers", reason="the policy that samples needs lerobot[diffusion]")

from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from toys import SMALL, SPEC, make_data, train

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.runtime.observation import Observation
from ptr_robot.steering.options import SteeringOptions
from ptr_robot.steering.steered import load_steered

ONE_CAMERA = replace(SPEC, cameras=SPEC.cameras[:1], tasks=TaskTable(names=("push", "pull"), num_slots=2))
DIFFUSION = ("--policy.type=diffusion", "--policy.down_dims=[16,32]", "--policy.num_inference_steps=2")
DIFFUSION += ("--policy.horizon=8", "--policy.n_action_steps=3", "--policy.diffusion_step_embed_dim=8")
DIFFUSION += ("--policy.spatial_softmax_num_keypoints=4", "--policy.resize_shape=[48,64]", "--policy.crop_ratio=1.0")
DIFFUSION += ("--policy.pretrained_backbone_weights=null", "--policy.use_group_norm=true")
ACT = ("--policy.type=act", "--policy.chunk_size=4", "--policy.n_action_steps=4", "--policy.dim_model=16")
ACT += ("--policy.n_heads=2", "--policy.dim_feedforward=16", "--policy.pretrained_backbone_weights=null")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("steering")


@pytest.fixture(scope="module")
def trained(folder):
    """A diffusion policy and one that draws no noise, as ``lerobot-train`` leaves them."""
    data = make_data(folder / "data", rewards=False)
    with pytest.MonkeyPatch.context() as patch:
        return {name: train(patch, data, folder / name, *told) for name, told in (("dp", DIFFUSION), ("act", ACT))}


def critic(folder, spec=ONE_CAMERA):
    config = CqlConfig(encoder=SMALL, hidden_dims=(16, 16), critic_head="reinject_action")
    learner = make_learner(config, spec, seed=1)
    return save_checkpoint(folder / "critic", 1, learner, spec, ActConfig(mode="mean"), {"split": {"sources": []}})


def steered(critic, policy, **options):
    told = {"steer_proposals": 5, "steer_same_spaces": True, **options}
    return load_steered(critic, SteeringOptions(steer=f"lerobot:{policy}", **told))


def seen(seed):
    rng = np.random.default_rng(seed)
    return Observation(
        {"front": rng.integers(0, 256, (24, 32, 3), np.uint8)}, rng.normal(size=3).astype(np.float32), "pull"
    )


def test_it_proposes_what_lerobot_itself_would_play_and_the_critic_takes_the_best(trained, tmp_path):
    policy = steered(critic(tmp_path), trained["dp"])
    assert (policy.window.num_observations, policy.window.num_actions) == (2, 3)
    past = [seen(0), seen(1)]
    (alone,) = policy.source.propose(past, [7])
    config = PreTrainedConfig.from_pretrained(trained["dp"])
    theirs = get_policy_class("diffusion").from_pretrained(trained["dp"], config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(trained["dp"]))

    def select(observation):
        frame = torch.from_numpy(observation.images["front"]).permute(2, 0, 1)[None].float() / 255.0
        state = torch.from_numpy(observation.state)[None]
        batch = before({"observation.images.front": frame, "observation.state": state, "task": "pull"})
        return after(theirs.select_action(batch))[0].numpy()

    theirs.reset()
    select(past[0])
    theirs._queues["action"].clear()  # so that the newest observation is answered, not the chunk played on
    torch.manual_seed(7)
    np.testing.assert_allclose(alone, [select(past[1]), select(past[1]), select(past[1])], atol=1e-6)

    proposals = policy.source.propose(past, [3, 1, 4, 1, 5])
    assert np.ptp(np.stack(proposals), axis=0).max() > 1e-3
    chosen, _ = policy.act(past[1], (past[0],), seed=0)
    assert chosen.shape == (3, 3)
    assert policy.log.decisions == policy.log.compared == 1
    again, _ = policy.act(past[1], (past[0],), seed=0)
    np.testing.assert_array_equal(chosen, again)
    choice = policy.critic.choose(past[1:], proposals, 0)
    assert choice.index == int(np.argmax(choice.q))


def test_what_cannot_propose_is_refused_in_one_line(trained, tmp_path):
    ours = critic(tmp_path)
    with pytest.raises(ValueError, match=r"\(act\) draws no noise: all 5 proposals would be the same"):
        steered(ours, trained["act"])
    assert steered(ours, trained["act"], steer_proposals=1).window.num_actions == 4
    with pytest.raises(ValueError, match=r"does not say what its actions and state are.*state so with --steer-same"):
        steered(ours, trained["dp"], steer_same_spaces=False)
    wide = replace(ONE_CAMERA.state, names=("x", "y"), units=("m", "m"))
    with pytest.raises(ValueError, match=r"expected state of 2 numbers, as the critic knows it \(x, y\), got \[3\]"):
        steered(critic(tmp_path / "wide", replace(ONE_CAMERA, state=wide)), trained["dp"])
    (trained["act"] / "model.safetensors").write_bytes(b"no")
    with pytest.raises(RuntimeError, match="LeRobot cannot load it: "):
        steered(ours, trained["act"], steer_proposals=1)
