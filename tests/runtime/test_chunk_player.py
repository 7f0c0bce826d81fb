"""Which entries of which chunks are played, without a clock: chunk c, entry j has the action 100 c + j."""

from __future__ import annotations

import numpy as np
import pytest

from ptr_fast import native

PERIOD_NS = 50_000_000


def player(play: str, num_actions: int = 4, execute: int = 0, decay: float = 0.01):
    return native.require().ChunkPlayer(play, execute, decay, PERIOD_NS, num_actions, 1)


def chunk(number: int, num_actions: int = 4) -> np.ndarray:
    return (100.0 * number + np.arange(num_actions, dtype=np.float32))[:, None]


def play(chunks, num_steps: int, answers=lambda number: True, num_actions: int = 4, ticks=None, reaches_ns=None):
    """Actions of the steps (None: there was none), and the steps that asked."""
    played: list[float | None] = []
    asked: list[int] = []
    for step in range(num_steps):
        tick = step if ticks is None else ticks[step]
        if chunks.asks():
            chunks.asked()
            number = len(asked)
            asked.append(step)
            captured_ns = tick * PERIOD_NS
            chunks.add(chunk(number, num_actions if answers(number) else 0), captured_ns, tick)
        taken = chunks.take(tick, tick * PERIOD_NS if reaches_ns is None else reaches_ns(tick))
        played.append(None if taken is None else float(taken[1][0]))
    return played, asked


def test_receding_plays_a_chunk_and_asks_again():
    assert play(player("receding"), 9) == ([0, 1, 2, 3, 100, 101, 102, 103, 200], [0, 4, 8])
    assert play(player("receding", execute=2), 5) == ([0, 1, 100, 101, 200], [0, 2, 4])


def test_receding_plays_the_rest_where_no_answer_comes_and_then_nothing():
    chunks = player("receding", execute=2)
    played, asked = play(chunks, 8, answers=lambda number: number in (0, 5))
    assert played == [0, 1, 2, 3, None, None, 500, 501]
    assert asked == [0, 2, 3, 4, 5, 6], "it is asked in every step that has none"


def test_chunks_that_are_shorter_than_they_may_be_are_played_to_their_end():
    assert play(player("receding"), 5, num_actions=2) == ([0, 1, 100, 101, 200], [0, 2, 4])


@pytest.mark.parametrize("decay", [0.01, 0.0, -0.5])
def test_the_ensemble_is_acts_mean(decay):
    """``exp_weights = exp(-k * arange(n)); exp_weights / sum``, the oldest chunk's action first (ACT's own code)."""
    played, asked = play(player("ensemble", decay=decay), 7)
    assert asked == list(range(7))
    for step, action in enumerate(played):
        wanted = np.array([100.0 * c + (step - c) for c in range(max(step - 3, 0), step + 1)])
        weights = np.exp(-decay * np.arange(len(wanted)))
        assert action == pytest.approx((weights / weights.sum() * wanted).sum(), rel=1e-6)


def test_the_ensemble_counts_periods_that_were_missed_and_lives_on_what_it_has():
    played, _ = play(player("ensemble", decay=0.0), 4, ticks=[0, 2, 3, 9])
    assert played == pytest.approx([0, np.mean([2, 100]), np.mean([3, 101, 200]), 300])
    played, asked = play(player("ensemble", decay=0.0), 6, answers=lambda number: number == 0)
    assert played == [0, 1, 2, 3, None, None]
    assert asked == list(range(6))


@pytest.mark.parametrize(("late", "first"), [(0.0, 0), (0.2, 0), (0.45, 0), (0.55, 1), (1.2, 1), (2.6, 3)])
def test_latency_plays_the_entry_of_the_moment_when_the_command_arrives(late, first):
    """In periods after the frame was captured."""
    chunks = player("latency", execute=4)
    chunks.asked()
    chunks.add(chunk(0), 7_000, 0)
    played = [chunks.take(tick, 7_000 + round((tick + late) * PERIOD_NS)) for tick in range(5)]
    assert [None if taken is None else taken[0] for taken in played] == [
        entry if entry < 4 else None for entry in range(first, first + 5)
    ]
    assert chunks.asks(), "what has run out is asked for, whatever `execute` says"


def test_latency_asks_as_soon_as_it_may():
    chunks = player("latency", execute=2)
    assert chunks.asks()
    chunks.asked()
    chunks.add(chunk(0), 0, 0)
    assert not chunks.asks()
    chunks.take(0, 0)
    assert not chunks.asks()
    chunks.take(1, PERIOD_NS)
    assert chunks.asks()


@pytest.mark.parametrize("kind", ["receding", "ensemble"])
def test_a_chunk_of_one_action_is_played_once_and_exactly(kind):
    action = np.float32(0.1)
    chunks = player(kind, num_actions=1)
    for step in range(3):
        assert chunks.asks()
        chunks.asked()
        chunks.add(np.full((1, 1), action), step, step)
        entry, taken = chunks.take(step, step)
        assert (entry, taken[0]) == (0, action)
    chunks.asked()
    chunks.add(np.zeros((0, 1), np.float32), 3, 3)
    assert chunks.take(3, 3) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"play": "receding", "execute": 5}, "execute: expected 0 to 4, the actions of a chunk, got 5"),
        ({"play": "latency", "num_actions": 1}, "needs chunks of 2 actions or more; the policy answers 1"),
        ({"play": "ensemble", "decay": float("nan")}, "ensemble_decay: expected -10 to 10"),
        ({"play": "backwards"}, "play: expected receding, ensemble or latency, got backwards"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        player(**arguments)


@pytest.mark.parametrize("rule", ["receding", "ensemble"])
def test_an_action_may_have_any_number_of_axes(rule):
    """A policy of two hands and a base has more than a control loop takes."""
    chunks = native.require().ChunkPlayer(rule, 0, 0.01, PERIOD_NS, 2, 100)
    wide = np.arange(200, dtype=np.float32).reshape(2, 100)
    chunks.asked()
    chunks.add(wide, 0, 0)
    for tick in range(2):
        np.testing.assert_array_equal(chunks.take(tick, tick * PERIOD_NS)[1], wide[tick])


@pytest.mark.parametrize("shape", [(5, 1), (4, 2), (4,)])
def test_a_chunk_that_is_larger_than_agreed_is_refused(shape):
    with pytest.raises(ValueError, match=r"chunk: expected at most \[4, 1\]"):
        player("receding").add(np.zeros(shape, np.float32), 0, 0)
