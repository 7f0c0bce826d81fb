"""Transitions: which record follows which, what is left out, and bad numbers named by episode and step."""

import time
from dataclasses import replace

import numpy as np
import pytest

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.store import EpisodeStore, StoreWriter
from ptr_fast.data.transitions import Transitions
from ptr_fast.diagnostics import monte_carlo_returns
from ptr_fast.errors import DataError

TASKS = TaskTable(names=("other", "put carrot on plate"), num_slots=4)


def transitions(store, **changes):
    settings = {"task_table": TASKS, "action": store.meta.action, "rewards": RewardConfig()}
    return Transitions(store, **{**settings, **changes})


def test_known_next_frames(make_store):
    store = EpisodeStore.open(make_store(parts=((5, 3), (1,))))
    table = transitions(store)
    assert len(table) == 9
    assert table.record.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 10]
    assert table.next_record.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 11]
    assert table.episode.tolist() == [0] * 5 + [1] * 3 + [2]
    assert table.task_id.tolist() == [1] * 9
    assert table.rewards.tolist() == [-1, -1, 10, 10, 10, 10, 10, 10, 10]
    assert table.masks.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(table.actions, store.meta.action.scale(store.action[table.record]))
    assert table.state is store.state
    assert {table.record.dtype, table.next_record.dtype, table.task_id.dtype, table.episode.dtype} == {np.dtype("i8")}
    assert {table.actions.dtype, table.rewards.dtype, table.masks.dtype} == {np.dtype("f4")}


def test_unknown_last_frame_is_its_own_next_and_terminal(make_store):
    store = EpisodeStore.open(make_store(parts=((5, 1),), extra_frame=False))
    table = transitions(store, rewards=RewardConfig(positive_is_terminal=False))
    assert table.record.tolist() == [0, 1, 2, 3, 4, 5]
    assert table.next_record.tolist() == [1, 2, 3, 4, 4, 5]
    assert table.masks.tolist() == [1, 1, 1, 1, 0, 0]
    assert (table.masks[table.record == table.next_record] == 0).all()


@pytest.mark.parametrize("extra_frame", [True, False])
def test_failed_episode_never_bootstraps_from_itself(make_store, extra_frame):
    store = EpisodeStore.open(make_store(parts=((4,),), extra_frame=extra_frame, outcome="failure"))
    table = transitions(store)
    assert len(table) == 4 if extra_frame else 3
    assert (table.rewards == -1).all()
    assert (table.masks == 1).all()
    assert (table.next_record == table.record + 1).all()


@pytest.mark.parametrize("extra_frame", [True, False])
@pytest.mark.parametrize("outcome", ["success", "failure", "unknown"])
@pytest.mark.parametrize("terminal", [True, False])
def test_targets_further_ahead_against_a_plain_walk(make_store, extra_frame, outcome, terminal):
    """Every transition again, step by step: what it sums, where it bootstraps, and the return that was observed."""
    lengths, discount, n = (9, 2, 5), 0.9, 4
    store = EpisodeStore.open(make_store(parts=(lengths,), extra_frame=extra_frame, outcome=outcome))
    config = RewardConfig(num_final_steps=2, positive_is_terminal=terminal, num_steps=n, lower_bound_returns=True)
    one = transitions(store, rewards=replace(config, num_steps=1, lower_bound_returns=False))
    table = transitions(store, rewards=config, discount=discount)
    np.testing.assert_array_equal(table.record, one.record)
    for row in range(len(table)):
        last_row = max(r for r in range(len(one)) if one.episode[r] == one.episode[row])
        total, m = 0.0, 0
        while True:
            total += discount**m * float(one.rewards[row + m])
            m += 1
            if m == n or one.rewards[row + m - 1] > 0 or row + m > last_row:
                break
        assert table.rewards[row] == pytest.approx(total)
        assert table.masks[row] == pytest.approx(one.masks[row + m - 1] * discount ** (m - 1))
        assert table.next_record[row] == one.next_record[row + m - 1]
    returns = monte_carlo_returns(one.rewards, one.masks, discount, episode=one.episode)
    np.testing.assert_allclose(table.returns, np.where(np.isnan(returns), -np.inf, returns), rtol=1e-6)
    assert np.isneginf(table.returns).all() == (outcome == "failure")


def test_targets_further_ahead_need_a_discount(make_store):
    store = EpisodeStore.open(make_store())
    assert transitions(store).returns is None
    for config in (RewardConfig(num_steps=2), RewardConfig(lower_bound_returns=True)):
        with pytest.raises(ValueError, match="need the discount of a learner"):
            transitions(store, rewards=config)


def test_subset_and_its_errors(make_store):
    store = EpisodeStore.open(make_store(parts=((5, 3), (2,))))
    table = transitions(store, episodes=np.array([2, 0]))
    assert table.record.tolist() == [10, 11, 0, 1, 2, 3, 4]
    assert table.episode.tolist() == [2, 2, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"must lie in 0..2"):
        transitions(store, episodes=[3])
    with pytest.raises(ValueError, match="named twice"):
        transitions(store, episodes=[1, 1])
    with pytest.raises(DataError, match="no episode to train on"):
        transitions(store, episodes=[])
    with pytest.raises(ValueError, match="unknown task 'put carrot on plate'"):
        transitions(store, task_table=TaskTable(names=("lift",), num_slots=1))


def test_only_unusable_steps_is_an_error(make_store):
    store = EpisodeStore.open(make_store(parts=((1,),), extra_frame=False, outcome="failure"))
    with pytest.raises(DataError, match="no usable step"):
        transitions(store)


def test_empty_store_is_an_error(tmp_path, make_meta):
    StoreWriter.create(tmp_path / "s", make_meta()).close()
    with pytest.raises(DataError, match="no episode to train on"):
        transitions(EpisodeStore.open(tmp_path / "s"))


@pytest.mark.parametrize("column", ["state", "action"])
def test_bad_numbers_name_episode_and_step(make_store, column):
    store = EpisodeStore.open(make_store(parts=((5, 3),)))
    values = getattr(store, column).copy()
    values[8, 2] = np.nan if column == "state" else np.inf
    store.__dict__[column] = values  # what a damaged column would hold
    with pytest.raises(DataError, match=rf"episode 'episode 1', step 2, {column}: expected finite numbers, got \["):
        transitions(store)
    assert len(transitions(store, episodes=[0])) == 5


def test_other_action_space_is_refused(make_store, make_meta):
    store = EpisodeStore.open(make_store())
    units = ("deg",) * 7
    with pytest.raises(ValueError, match="the action space differs"):
        transitions(store, action=replace(store.meta.action, units=units))
    narrow = replace(store.meta.action, low=(-0.01,) * 7, high=(0.01,) * 7)
    table = transitions(store, action=narrow)  # a checkpoint's own bounds
    assert np.abs(table.actions).max() == np.float32(0.99)


def test_a_million_steps_take_less_than_two_seconds(make_store):
    store = EpisodeStore.open(make_store(parts=((5, 3),)))
    num_episodes, num_steps = 25_000, 40
    table = store.episodes
    frames = num_episodes * (num_steps + 1)
    columns = {
        "num_steps": np.full(num_episodes, num_steps, np.int32),
        "num_frames": np.full(num_episodes, num_steps + 1, np.int32),
        "first": np.arange(num_episodes, dtype=np.int64) * (num_steps + 1),
        "task": table.task[:1] * num_episodes,
        "outcome": ["success", "failure"] * (num_episodes // 2),
    }
    for name, values in columns.items():
        object.__setattr__(table, name, values)
    store.num_episodes = num_episodes
    store.__dict__["state"] = np.zeros((frames, 7), np.float32)
    store.__dict__["action"] = np.zeros((frames, 7), np.float32)
    start = time.perf_counter()
    made = transitions(store)
    assert len(made) == 1_000_000
    assert time.perf_counter() - start < 2.0
