"""Kinds of demonstrations, and the named data sets that are made of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ptr_fast.data.store import EpisodeStore
from ptr_robot.sim.data_sets import DATA_SETS, find_data_set
from ptr_robot.sim.demonstrators import KINDS, make_demonstrator
from ptr_robot.sim.environment import make_environment
from ptr_robot.sim.episodes import EpisodeKey, record, record_episode
from ptr_robot.sim.worlds import PutWorld
from ptr_robot.verbs import collect


@pytest.fixture(scope="module")
def env():
    env = make_environment("put block on plate", "A", observe="state", max_steps=70)
    yield env
    env.close()


def key(kind, index=0):
    return EpisodeKey(task="put block on plate", kitchen="A", kind=kind, seed=0, index=index)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_clean_kind_stores_what_was_not_executed(env, kind):
    env.reset(seed=0)
    move = make_demonstrator(kind, env.world, np.random.default_rng(0)).move()
    assert np.array_equal(move.executed, move.stored) == (kind != "expert-clean")


def test_clean_labels_are_of_the_same_episode(env):
    executed, clean = (record_episode(env, key(kind)) for kind in ("expert", "expert-clean"))
    np.testing.assert_array_equal(executed.states, clean.states)
    difference = executed.actions - clean.actions
    assert 0.08 < difference[:, :3].std() < 0.16
    np.testing.assert_array_equal(difference[:, 3], 0)


def test_shaky_attempts_fail_often_and_are_kept(env):
    outcomes = [record_episode(env, key("shaky", index)) for index in range(24)]
    assert {episode.attempt for episode in outcomes} == {0}
    assert 6 <= sum(episode.outcome == "failure" for episode in outcomes) <= 15


def test_halves_of_the_task(env):
    picks = [record_episode(env, key("pick", index)) for index in range(6)]
    assert all(episode.outcome == "failure" for episode in picks)
    heights = np.array([episode.states[:, 6].max() for episode in picks])
    assert (heights > 0.5).all(), "the object was lifted"
    ends = np.array([episode.states[-1, 6] for episode in picks])
    assert (ends > 0.5).any(), "some hold it in the end"
    assert (ends < 0.3).any(), "and some lay it down"
    places = [record_episode(env, key("place", index)) for index in range(4)]
    assert all(episode.outcome == "success" for episode in places)
    assert all(episode.states[0, 6] > 0.5 for episode in places), "the object is in the hand at the start"
    assert max(len(episode.actions) for episode in places) < min(len(episode.actions) for episode in picks) + 20


def test_play_handles_the_object_until_the_end(env):
    episodes = [record(env, key("play", index)) for index in range(3)]
    assert all(len(e.actions) == 70 or e.outcome == "success" for e in episodes)
    moved = [np.linalg.norm(np.diff(e.states[:, 4:6], axis=0), axis=1).sum() for e in episodes]
    assert min(moved) > 1.0, "tenths of a metre that the object travelled"


def test_left_starts_are_the_left_third_of_the_wide_ones():
    (low, high), (wide_low, wide_high) = PutWorld.RANGES["left"], PutWorld.RANGES["wide"]
    np.testing.assert_array_equal(low, wide_low)
    np.testing.assert_array_equal(high[1:], wide_high[1:])
    assert (high[0] - low[0]) / (wide_high[0] - wide_low[0]) == pytest.approx(1 / 3, abs=1e-3)


def test_far_starts_are_far():
    env = make_environment("put can in cup", "A", observe="state", start="far")
    hands = np.array([env.reset(seed=seed)[0]["state"][:3] for seed in range(6)])
    assert (np.abs(hands[:, 0]) > 0.1).all()
    assert (hands[:, 2] > 0.28).all()
    env.close()


@pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=list(DATA_SETS))
def test_a_data_set_can_be_planned(data_set, tmp_path):
    observe = "state" if data_set.states_alone else "frames"
    stores = collect.stores_of(collect.Args(out=tmp_path, preset=data_set.name, observe=observe))
    assert [store.out.name for store in stores] == (["prior", "target"] if data_set.target else ["prior"])
    keys = [key for store in stores for key in collect.plan(store)]
    assert len(set(keys)) == len(keys)
    assert sum(key.kitchen != "H" for key in keys) in (450, 600)
    if data_set.target:
        assert data_set.trials.kitchen == "H" != data_set.prior.kitchens[0]
        assert data_set.num_demos <= len(collect.plan(stores[1])) == 20
        assert stores[1].only_success
        assert data_set.trials.task in data_set.target.task
    else:
        assert data_set.trials.task in data_set.prior.task
        assert data_set.trials.start == data_set.prior.start


def test_the_door_has_no_state_of_its_own(tmp_path):
    (prior, _) = collect.stores_of(collect.Args(out=tmp_path, preset="door", observe="state"))
    with pytest.raises(ValueError, match="observe state is for tasks 'put"):
        collect.plan(prior)


def test_a_preset_is_collected_once(tmp_path, capsys):
    args = collect.Args(out=tmp_path / "D4", preset="D4", observe="state", episodes=20, workers=1)
    collect.main(args)
    store = EpisodeStore.open(tmp_path / "D4" / "prior")
    assert (store.episodes.kind.count("pick"), store.episodes.kind.count("place")) == (9, 9)
    assert store.meta.source["expert_stores"] == "executed"
    capsys.readouterr()
    collect.main(args)
    assert "20 there already" in capsys.readouterr().out


def test_bad_presets(tmp_path):
    with pytest.raises(ValueError, match=r"unknown data set 'pear' \(did you mean 'pair'\?\)"):
        find_data_set("pear")
    with pytest.raises(ValueError, match="--max-steps: preset D2 decides it"):
        collect.main(collect.Args(out=tmp_path / "store", preset="D2", max_steps=90))
    with pytest.raises(ValueError, match=r"kinds: \['pick'\] are of tasks 'put"):
        collect.main(collect.Args(out=tmp_path / "store", task=("open door",), kinds=("pick",)))
    assert not (tmp_path / "store").exists()
    collect.main(collect.Args(out=tmp_path / "store", observe="state", episodes=1, kinds=("expert",), workers=1))
    with pytest.raises(ValueError, match="store: is a store itself; a preset writes its stores into a folder"):
        collect.main(collect.Args(out=tmp_path / "store", observe="state", preset="D2"))


def test_an_episode_that_never_succeeds_is_named():
    short = make_environment("put block on plate", "A", observe="state", max_steps=1)
    named = r"'put block on plate', kitchen A, kind shaky, seed 0, episode 0: none of 40 attempts ended in success"
    with pytest.raises(RuntimeError, match=named):
        record_episode(short, key("shaky"), only_success=True)
    short.close()


def test_a_store_of_clean_experts_takes_no_executed_ones(tmp_path):
    """Stores from before the choice: their experts are clean, and say so nowhere."""
    args = collect.Args(out=tmp_path, observe="state", kinds=("expert-clean",), episodes=1, workers=1)
    collect.main(args)
    meta = json.loads((tmp_path / "meta.json").read_text())
    for name in ("expert_stores", "only_success"):
        del meta["source"][name]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    for kind in ("expert", "expert-clean"):
        with pytest.raises(ValueError, match="it was made when kind expert stored the clean command"):
            collect.main(replace(args, kinds=(kind,), episodes=2))
    collect.main(replace(args, kinds=("failed",), episodes=1))
    assert EpisodeStore.open(tmp_path).episodes.kind == ["expert-clean", "failed"]
    with pytest.raises(ValueError, match="only_success differs: it has False, asked for True"):
        collect.main(replace(args, kinds=("teleop",), only_success=True))


def test_only_success_takes_the_first_attempt_that_succeeds(env):
    failed = next(index for index in range(20) if record(env, key("shaky", index)).outcome == "failure")
    episode = record_episode(env, key("shaky", failed), only_success=True)
    assert episode.outcome == "success"
    assert episode.attempt > 0
