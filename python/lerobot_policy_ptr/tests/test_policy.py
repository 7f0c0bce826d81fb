"""Our policies in the real LeRobot: found as a plugin, acting as in ptr-fast, trained by ``lerobot-train``, back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="LeRobot is not installed here")

from lerobot.configs import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins
from toys import SMALL, SPEC, make_data, train

from ptr_fast.checkpoint import read_checkpoint, save_checkpoint
from ptr_fast.config import ActConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.policy import Policy

PTR = ("--policy.type=ptr", "--policy.image_size=24")
LEARNERS = {
    "search": CqlProposalsConfig(encoder=SMALL, hidden_dims=(16,), num_components=4),
    "chunks": FlowBcConfig(encoder=SMALL, hidden_dims=(16,), num_actions=3),
}


@pytest.fixture(scope="module", autouse=True)
def plugins():
    register_third_party_plugins()
    assert "ptr" in PreTrainedConfig.get_known_choices(), "LeRobot finds the distribution by its name"


@pytest.fixture(params=LEARNERS)
def run(request, tmp_path):
    learner = make_learner(LEARNERS[request.param], SPEC, seed=1)
    act = ActConfig(mode="search", num_candidates=8) if request.param == "search" else ActConfig(mode="sample")
    save_checkpoint(tmp_path / "run", 7, learner, SPEC, act, {"split": {"sources": []}})
    return tmp_path / "run"


def observed(seed):
    """The same observation as LeRobot and as ptr-fast have it."""
    rng = np.random.default_rng(seed)
    images = {camera.name: rng.integers(0, 256, (30, 40, 3), np.uint8) for camera in SPEC.cameras}
    state = rng.normal(size=3).astype(np.float32)
    theirs = {
        f"observation.images.{name}": torch.from_numpy(image).permute(2, 0, 1).float() / 255.0
        for name, image in images.items()
    }
    return theirs | {"observation.state": torch.from_numpy(state), "task": "pull"}, Observation(images, state, "pull")


def test_a_policy_that_was_brought_over_acts_as_it_does_with_us_and_comes_back_unchanged(run, tmp_path):
    from lerobot_policy_ptr.__main__ import to_lerobot, to_ptr
    from lerobot_policy_ptr.modeling_ptr import PTRPolicy

    folder = to_lerobot(run, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["type"] == "ptr"
    config = PreTrainedConfig.from_pretrained(folder)
    # As lerobot-rollout makes them.
    overrides = {"device_processor": {"device": "cpu"}, "rename_observations_processor": {"rename_map": {}}}
    before, after = make_pre_post_processors(
        config, pretrained_path=str(folder), preprocessor_overrides=overrides, dataset_stats=None
    )
    theirs, ours = PTRPolicy.from_pretrained(folder), Policy.load(run)
    num_actions = ours.window.num_actions
    theirs.reset()
    for seed in range(2):
        played = []
        for step in range(num_actions):
            batch, observation = observed(seed)
            played.append(after(theirs.select_action(before(batch)))[0].numpy())
            if step == 0:
                expected, _ = ours.act(observation, (), seed=seed)
        np.testing.assert_allclose(np.stack(played), expected, rtol=0, atol=1e-6)
    back, info = to_ptr(folder, tmp_path / "back"), read_checkpoint(run)
    again = read_checkpoint(tmp_path / "back")
    assert (again.step, again.config, again.spec, again.act) == (info.step, info.config, info.spec, info.act)
    np.testing.assert_array_equal(Policy.load(back).act(observation, (), 5)[0], ours.act(observation, (), 5)[0])
    with pytest.raises(ValueError, match="exists already"):
        to_lerobot(run, folder)


@pytest.mark.parametrize(
    ("recipe", "rewards", "options"),
    [
        ("smoke-mixture", False, ()),
        ("smoke-proposals", True, ()),
        ("smoke-proposals", False, ("--policy.outcome=success",)),
    ],
)
def test_lerobot_train_trains_our_learner(tmp_path, monkeypatch, recipe, rewards, options):
    from lerobot_policy_ptr.__main__ import to_ptr
    from lerobot_policy_ptr.modeling_ptr import PTRPolicy

    seen = []
    update = PTRPolicy.forward
    monkeypatch.setattr(PTRPolicy, "forward", lambda self, batch: seen.append(update(self, batch)) or seen[-1])
    root = make_data(tmp_path / "data", rewards)
    folder = train(monkeypatch, root, tmp_path / "out", *PTR, f"--policy.recipe={recipe}", *options)
    assert len(seen) == 3
    losses = [float(loss) for loss, _ in seen]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 3
    info = read_checkpoint(to_ptr(folder, tmp_path / "run"))
    assert info.step == 3
    assert info.spec.action.names == ("dx", "dy", "dg")
    assert info.spec.action.bounds_source == "data"
    assert set(info.spec.state.units) == {"unknown"}
    assert info.spec.tasks.names == ("pull", "push")
    fresh = make_learner(info.config, info.spec, 0).networks()
    trained = Policy.load(tmp_path / "run").networks
    pairs = zip(fresh["actor"].parameters(), trained["actor"].parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in pairs)
    frame = {"front": np.zeros((24, 32, 3), np.uint8)}
    actions, _ = Policy.load(tmp_path / "run").act(Observation(frame, np.zeros(3, np.float32), "push"), ())
    assert np.isfinite(actions).all()


def test_a_batch_is_what_the_learner_of_a_store_would_get(tmp_path):
    """Next observations, rewards and masks of stated success, beside the plain definition."""
    from lerobot_policy_ptr.configuration_ptr import PTRConfig
    from lerobot_policy_ptr.modeling_ptr import PTRPolicy

    root = make_data(tmp_path / "data", rewards=False)
    config = PTRConfig(recipe="smoke-proposals", image_size=24, outcome="success", device="cpu")
    meta = LeRobotDataset("me/toys", root=root).meta
    ahead = [index / 10 for index in config.observation_delta_indices]
    assert ahead == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "the recipe looks five steps ahead"
    deltas = dict.fromkeys(("observation.state", "observation.images.front"), ahead)
    data = LeRobotDataset("me/toys", root=root, delta_timestamps={**deltas, "action": [0.0]})
    from lerobot.configs import FeatureType, PolicyFeature

    config.input_features = {"observation.state": PolicyFeature(type=FeatureType.STATE, shape=(3,))}
    config.output_features = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(3,))}
    policy = PTRPolicy(config, dataset_meta=meta)
    policy.train()
    rows = [data[i] for i in range(9)]  # the first episode
    batch = torch.utils.data.default_collate(rows)
    ours = policy._batch(batch)
    state = np.stack([row["observation.state"][0].numpy() for row in rows])
    np.testing.assert_array_equal(ours.state[:, 0], state)
    for t in range(9):  # the recipe's rewards from their definition: the last three steps are positive and terminal
        reward, mask = 0.0, 1.0
        for m in range(5):
            positive = t + m >= 6
            reward += 0.98**m * (10.0 if positive else -1.0)
            mask = 0.0 if positive else 0.98**m
            if positive:
                break
        returned = sum(-(0.98**k) for k in range(max(6 - t, 0))) + 10.0 * 0.98 ** max(6 - t, 0)
        assert ours.rewards[t] == pytest.approx(reward, rel=1e-6)
        assert ours.masks[t] == pytest.approx(mask, rel=1e-6)
        assert ours.returns[t] == pytest.approx(returned, rel=1e-6)
        if mask:
            np.testing.assert_array_equal(ours.next_state[t, 0], state[t + m + 1])
    assert ours.images["front"].dtype == torch.uint8
    raw = (rows[0]["observation.images.front"][0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    assert ours.images["front"].shape == (9, 1, 24, 24, 3)
    from ptr_fast.resize import resize

    np.testing.assert_array_equal(ours.images["front"][0, 0], resize(raw.numpy(), 24, 24))


def test_a_recipe_without_rewards_looks_at_no_next_frame():
    from lerobot_policy_ptr.configuration_ptr import PTRConfig

    config = PTRConfig(recipe="smoke-mixture", device="cpu")
    assert (config.observation_delta_indices, config.action_delta_indices) == ([0], [0])
    assert PTRConfig(recipe="smoke-chunks", device="cpu").action_delta_indices != [0]
    assert PTRConfig(recipe="smoke-proposals", device="cpu").observation_delta_indices == [0, 1]


def test_what_cannot_be_trained_is_told_in_one_line(tmp_path, monkeypatch):
    from lerobot_policy_ptr.configuration_ptr import PTRConfig

    root = make_data(tmp_path / "data", rewards=False)
    with pytest.raises(ValueError, match=r"has no 'next\.reward', so a critic has nothing to learn from; state"):
        train(monkeypatch, root, tmp_path / "out", *PTR, "--policy.recipe=smoke-proposals")
    with pytest.raises(ValueError, match=r"rates of recipe sim-mixture fall over the run: .*--policy\.num_steps"):
        train(monkeypatch, root, tmp_path / "out", *PTR, "--policy.recipe=sim-mixture")
    falling = PTRConfig(recipe="sim-mixture", num_steps=20, device="cpu").learner
    assert (falling.lr_schedule, falling.lr_schedule_steps) == ("cosine", 20)
    with pytest.raises(ValueError, match=r"policy\.outcome: expected success or nothing"):
        PTRConfig(outcome="maybe")
