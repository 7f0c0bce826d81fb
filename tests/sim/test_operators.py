"""Fallible operators: what they store, how they differ, and kitchens of states alone."""

import numpy as np
import pytest

from ptr_fast.data.store import EpisodeStore
from ptr_robot.sim.demonstrators import OPERATORS, make_demonstrator
from ptr_robot.sim.environment import FULL_STATE_SPEC, make_environment
from ptr_robot.sim.episodes import EpisodeKey, record_episode
from ptr_robot.sim.operators import MIXES, SKILLS, draw_skill
from ptr_robot.verbs import collect, inspect


@pytest.fixture(scope="module")
def state_env():
    env = make_environment("put block on plate", "A", observe="state", max_steps=120)
    yield env
    env.close()


def key(kind, index):
    return EpisodeKey(task="put block on plate", kitchen="A", kind=kind, seed=0, index=index)


def test_a_state_tells_object_and_container_and_nothing_is_drawn(state_env):
    observation, _ = state_env.reset(seed=1)
    assert list(observation) == ["state"]
    assert state_env.observation_space.contains(observation)
    assert len(FULL_STATE_SPEC.names) == len(FULL_STATE_SPEC.units) == observation["state"].size == 10
    world = state_env.world
    expected = [*(10.0 * world.state()[:3]), world.state()[3]]
    expected += [*(10.0 * world.item_position()), *(10.0 * world.container_position())]
    np.testing.assert_allclose(observation["state"], np.asarray(expected, np.float32), rtol=1e-6)


def test_states_alone_are_of_put_tasks():
    with pytest.raises(ValueError, match="observe state is for tasks 'put"):
        make_environment("open door", "A", observe="state")


@pytest.mark.parametrize("kind", OPERATORS)
def test_an_operator_stores_what_was_executed(state_env, kind):
    state_env.reset(seed=0)
    demonstrator = make_demonstrator(kind, state_env.world, np.random.default_rng(0))
    assert demonstrator.who.removesuffix(" operator") in MIXES[OPERATORS[kind]]
    for _ in range(5):
        move = demonstrator.move()
        np.testing.assert_array_equal(move.executed, move.stored)
        assert move.executed.shape == (4,)
        assert np.abs(move.executed).max() <= 1.0


def test_operators_are_slower_than_the_expert_and_fail_now_and_then(state_env):
    expert = np.mean([len(record_episode(state_env, key("expert", i)).actions) for i in range(4)])
    episodes = [record_episode(state_env, key("teleop", i)) for i in range(24)]
    outcomes = [episode.outcome for episode in episodes]
    assert 14 <= outcomes.count("success") < 24
    lengths = [len(e.actions) for e in episodes if e.outcome == "success"]
    assert 1.3 * expert < np.mean(lengths) < 3 * expert
    assert np.std(lengths) > 8
    again = record_episode(state_env, key("teleop", 3))
    np.testing.assert_array_equal(again.states, episodes[3].states)


def test_shares_of_skills():
    rng = np.random.default_rng(0)
    for mix, shares in MIXES.items():
        drawn = [draw_skill(mix, rng) for _ in range(2000)]
        assert {name for name in shares if shares[name]} == set(drawn) <= set(SKILLS)
        for name, share in shares.items():
            assert drawn.count(name) / 2000 == pytest.approx(share, abs=0.04)


def test_a_store_without_frames(tmp_path, capsys):
    path = tmp_path / "states"
    options = {"observe": "state", "kinds": ("teleop",), "max_steps": 120, "workers": 1}
    collect.main(collect.Args(out=path, episodes=3, **options))
    store = EpisodeStore.open(path)
    store.verify()
    assert store.meta.cameras == ()
    assert store.meta.state == FULL_STATE_SPEC
    assert store.state.shape == (store.num_records, 10)
    assert all("operator" in source for source in store.episodes.source)
    collect.main(collect.Args(out=path, episodes=3, **options))
    assert EpisodeStore.open(path).fingerprint() == store.fingerprint()
    with pytest.raises(ValueError, match="differs"):
        collect.main(collect.Args(out=path, episodes=3, **{**options, "observe": "frames"}))
    capsys.readouterr()
    inspect.main(inspect.Args(store=path))
    assert "no contact sheet: the store holds states and actions alone" in capsys.readouterr().out


def test_stores_from_before_state_only_kitchens_hold_frames():
    wanted = {"format": "toy kitchens", "observe": "frames", "only_success": False}
    collect._check_same_options("store", {"format": "toy kitchens"}, wanted)
    with pytest.raises(ValueError, match="observe differs: it has 'frames', asked for 'state'"):
        collect._check_same_options("store", {"format": "toy kitchens"}, {**wanted, "observe": "state"})


def test_a_policy_of_states_alone_is_trained_and_tried(tmp_path, capsys):
    from ptr_robot import cli
    from ptr_robot.verbs.rollout import Args, rollout

    path = tmp_path / "states"
    collect.main(collect.Args(out=path, episodes=4, observe="state", kinds=("expert",), workers=1))
    run = tmp_path / "run"
    steps = ["--num-steps", "4", "--checkpoint-every", "4"]
    options = ["--learner.encoder.name", "none", "--learner.critic-head", "plain", "--act.mode", "search"]
    assert cli.main(["pretrain", "smoke", "--data.stores", str(path), "--out", str(run), *options, *steps]) == 0
    result = rollout(Args(run=run, trials=2, workers=1, max_steps=4, out=tmp_path / "out.json"))
    assert result["plan"]["observe"] == "state"
    assert result["num_trials"] == 2
    capsys.readouterr()
    assert cli.main(["pretrain", "smoke", "--data.stores", str(path), "--out", str(tmp_path / "sees"), *steps]) != 0
    assert "'conv3' looks at frames, and the data have none; take 'none'" in capsys.readouterr().err
