"""Work over processes: order, errors, and what happens when a worker dies."""

import os

import pytest

from ptr_robot.sim.workers import ordered_map


def inverse(x):
    if x is None:
        os._exit(3)
    return 1 / x


def test_results_come_in_order():
    results = ordered_map(inverse, [*range(1, 20), 0], 2)
    assert [next(results) for _ in range(19)] == [1 / x for x in range(1, 20)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_dead_worker_is_named():
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(ordered_map(inverse, [None], 2))


def test_number_of_workers():
    assert list(ordered_map(inverse, [2], 1)) == [0.5]
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        list(ordered_map(inverse, [2], 0))
