"""Work over processes: order, errors, and what happens when a worker dies."""

import os
import signal
import subprocess
import sys

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


def ends_too_early(x):
    return next(iter(()))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_work_that_runs_out_of_something_is_no_end_of_the_items(num_workers):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(ordered_map(ends_too_early, [1, 2], num_workers))


# Each worker imports this program first, as it imports what it works with.
SLOW_TO_LOAD = """
import time
from ptr_robot.sim.workers import ordered_map
if __name__ == "__main__":
    try:
        list(ordered_map(abs, range(4), 2))
    except KeyboardInterrupt:
        print("interrupted")
else:
    print("a worker loads", flush=True)
    time.sleep(1)
"""


def test_ctrl_c_while_the_workers_load_is_left_to_the_parent(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SLOW_TO_LOAD)
    words = [sys.executable, str(program)]
    group = subprocess.Popen(words, stdout=-1, stderr=-1, text=True, start_new_session=True)
    assert "a worker loads" in group.stdout.readline()
    os.killpg(group.pid, signal.SIGINT)
    out, err = group.communicate(timeout=30)
    assert out.splitlines()[-1] == "interrupted"
    assert err == ""
