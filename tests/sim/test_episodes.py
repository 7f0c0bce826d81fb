"""Experts, demonstrators and recorded episodes."""

import numpy as np
import pytest

from ptr_robot.sim.demonstrators import make_demonstrator
from ptr_robot.sim.environment import make_environment
from ptr_robot.sim.episodes import EpisodeKey, collect_in_memory, record, record_episode
from ptr_robot.sim.experts import make_expert


def key(kind, index=0, seed=0, task="put block on plate", kitchen="B"):
    return EpisodeKey(task=task, kitchen=kitchen, kind=kind, seed=seed, index=index)


@pytest.mark.parametrize("task", ["put block on plate", "put cucumber in pot", "put ball in pan", "open drawer"])
def test_the_expert_succeeds(task):
    env = make_environment(task, "A", image_size=16, hold_steps=0)
    try:
        successes = 0
        for seed in range(4):
            env.reset(seed=seed)
            expert = make_expert(env.world)
            ended = False
            while not ended:
                _, reward, terminated, truncated, info = env.step(expert.act())
                ended = terminated or truncated
                assert info["success"] == (reward == 1.0)
            successes += terminated
        assert successes >= 3
    finally:
        env.close()


def test_an_episode_is_a_function_of_its_key(put_env):
    first = record_episode(put_env, key("noisy", 1))
    other = record_episode(put_env, key("noisy", 2))
    again = record_episode(put_env, key("noisy", 1))
    np.testing.assert_array_equal(first.frames["image_0"], again.frames["image_0"])
    for name in ("states", "actions"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert len(other.actions) != len(first.actions) or (other.actions != first.actions).any()


def test_expert_episodes_end_three_decisions_after_success(put_env):
    episode = record_episode(put_env, key("expert"))
    assert episode.outcome == "success"
    num_steps = len(episode.actions)
    assert episode.frames["image_0"].shape == (num_steps + 1, 32, 32, 3)
    assert episode.states.shape == (num_steps + 1, 4)
    assert 15 < num_steps < 60
    assert (episode.actions[-3:, 3] == -1.0).all(), "the hand stays open over the last three decisions"
    for array in (episode.actions, episode.states):
        assert array.dtype == np.float32
    assert np.abs(episode.actions).max() <= 1.0


@pytest.mark.parametrize("name", ["_Misplace", "_Drop", "_Miss", "_Wander"])
def test_each_way_to_fail_fails(put_env, monkeypatch, name):
    from ptr_robot.sim import demonstrators

    monkeypatch.setattr(
        "ptr_robot.sim.episodes.make_demonstrator", lambda _, world, rng: getattr(demonstrators, name)(world, rng)
    )
    episodes = [record(put_env, key("failed", index)) for index in range(4)]
    assert sum(episode.outcome == "failure" for episode in episodes) >= 3
    assert all(len(episode.actions) >= 10 for episode in episodes)
    moved = [np.linalg.norm(np.diff(episode.states[:, :3], axis=0), axis=1).sum() for episode in episodes]
    assert min(moved) > 0.15, "metres that the hand travelled"


def test_failed_episodes_are_failures_by_promise(put_env):
    for index in range(3):
        assert record_episode(put_env, key("failed", index)).outcome == "failure"


def test_unknown_kind(put_env):
    with pytest.raises(ValueError, match="unknown kind of episode 'perfect'"):
        make_demonstrator("perfect", put_env.world, np.random.default_rng(0))


def test_collect_in_memory_counts_on():
    episodes = list(collect_in_memory("put block on plate", "B", 1, first=1, image_size=32))
    assert [episode.key.index for episode in episodes] == [1]
