"""Steps follow soon after frames: the control loop's phase lock, on a made-up clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from ptr_fast import native

MS = 1_000_000
PERIOD_MS = 50.0
SHORTEST, LONGEST = 0.96, 1.1


@dataclass(frozen=True)
class Camera:
    """A camera's faults; milliseconds.

    Attributes:
        period: between frames. latency: from capture to arrival; jitter: up to so much more, uniform.
        drop: share of frames that never arrive.
        slips: (time, by so much later) of its grid.
    """

    period: float = PERIOD_MS
    latency: float = 50.0
    jitter: float = 0.0
    drop: float = 0.0
    slips: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Run:
    """What the steps of a run met: ages of frames from capture, waits from arrival, intervals to the next step; ms."""

    age: np.ndarray
    wait: np.ndarray
    interval: np.ndarray


def run(camera: Camera, num_steps: int = 300, begin_ms: float | None = None, seed: int = 0) -> Run:
    """Steps of a loop of 20 Hz whose first one is ``begin_ms`` after a frame, or where the lock puts it."""
    rng = np.random.default_rng(seed)
    captured = camera.period * np.arange(int(num_steps * PERIOD_MS * LONGEST / camera.period) + 20)
    for when, later in camera.slips:
        captured = captured + np.where(captured >= when, later, 0.0)
    # Whoever fetches frames looks every 2 ms.
    arrived = captured + camera.latency + camera.jitter * rng.random(len(captured)) + 2 * rng.random(len(captured))
    kept = rng.random(len(captured)) >= camera.drop
    captured, arrived = captured[kept], np.maximum.accumulate(arrived[kept])
    lock = native.require().PhaseLock(round(PERIOD_MS * MS))
    came = round(arrived[3] * MS)
    now = (lock.first_step(came, came) if begin_ms is None else came + begin_ms * MS) / MS
    age, wait, interval = [], [], []
    for _ in range(num_steps):
        newest = int(np.searchsorted(arrived, now, "right")) - 1
        age.append(now - captured[newest])
        wait.append(now - arrived[newest])
        interval.append(lock.interval(round(now * MS), round(arrived[newest] * MS), newest + 1) / MS)
        now += interval[-1]
    return Run(np.array(age), np.array(wait), np.array(interval))


def check_intervals(interval: np.ndarray) -> None:
    assert interval.min() >= SHORTEST * PERIOD_MS - 1e-6
    assert interval.max() <= LONGEST * PERIOD_MS + 1e-6


@pytest.mark.parametrize("begin_ms", [0.5, 10.0, 25.0, 40.0, 49.5])
@pytest.mark.parametrize("latency", [0.0, 20.0, 50.0, 100.0])
def test_it_converges_from_any_phase(begin_ms, latency):
    met = run(Camera(latency=latency), begin_ms=begin_ms)
    check_intervals(met.interval)
    after = met.age[50:]
    assert np.abs(after - (latency + 11)).max() < 2, "a fifth of a period after the frame came"
    np.testing.assert_allclose(met.interval[50:], PERIOD_MS, atol=0.5)


def test_a_run_that_begins_in_phase_stays_there():
    met = run(Camera())
    assert np.abs(met.wait - 10).max() < 4
    np.testing.assert_allclose(met.interval, PERIOD_MS, atol=0.5)


@pytest.mark.parametrize("jitter", [5.0, 10.0, 20.0])
def test_a_camera_that_scatters_is_followed_behind_its_late_frames(jitter):
    met = run(Camera(jitter=jitter), begin_ms=45.0, num_steps=600)
    check_intervals(met.interval)
    after = met.age[100:]
    assert np.median(after) < 50 + jitter / 2 + 20
    assert (after > 50 + PERIOD_MS).mean() < 0.03, "few steps act on the frame before"
    assert met.interval.mean() == pytest.approx(PERIOD_MS, rel=2e-3)


@pytest.mark.parametrize("jitter", [40.0, 50.0, 80.0])
def test_a_camera_that_scatters_as_much_as_its_period_is_not_followed(jitter):
    met = run(Camera(jitter=jitter), num_steps=600)
    assert (met.interval == PERIOD_MS).mean() > 0.9


@pytest.mark.parametrize("drop", [0.1, 0.3, 0.5])
def test_lost_frames_do_not_move_it(drop):
    met = run(Camera(drop=drop), num_steps=400)
    assert np.abs(np.mod(met.wait, PERIOD_MS) - 10).max() < 3
    again = run(Camera(drop=drop), begin_ms=40.0, num_steps=400)
    assert np.abs(np.mod(again.wait[100:], PERIOD_MS) - 10).max() < 3


@pytest.mark.parametrize("off", [-0.02, -0.01, -1e-3, 1e-3, 0.01, 0.02])
def test_a_clock_that_is_a_little_off_is_followed(off):
    met = run(Camera(period=PERIOD_MS * (1 + off)), begin_ms=30.0, num_steps=600)
    check_intervals(met.interval)
    after = slice(100, None)
    assert np.abs(met.wait[after] - 10).max() < 8
    assert met.interval[after].mean() == pytest.approx(PERIOD_MS * (1 + off), rel=1e-3)


@pytest.mark.parametrize("period", [52.5, 47.5, 55.0, 45.0, 40.0, 1000 / 30, 30.0, 24.4, 75.0, 62.5, 27.3])
def test_a_camera_that_keeps_another_time_leaves_the_loop_its_own(period):
    met = run(Camera(period=period), num_steps=600)
    assert (met.interval == PERIOD_MS).all(), "the rate is the loop's, exactly"


@pytest.mark.parametrize("period", [100.0, 25.0, 50 / 3])
def test_a_camera_that_keeps_a_multiple_of_its_time_is_followed(period):
    faster = min(period, PERIOD_MS)
    met = run(Camera(period=period), begin_ms=0.9 * faster, num_steps=400)
    check_intervals(met.interval)
    assert np.abs(np.mod(met.wait[100:], faster) - 0.2 * faster).max() < 3
    assert met.interval[100:].mean() == pytest.approx(PERIOD_MS, rel=1e-3)


@pytest.mark.parametrize("later", [-15.0, 10.0, 20.0, 25.0, 35.0, 45.0])
def test_a_grid_that_slips_is_found_again(later):
    slip_ms = 5000.0
    met = run(Camera(slips=((slip_ms, later), (2 * slip_ms, later))), num_steps=400)
    check_intervals(met.interval)
    for slip in (1, 2):
        found = round(slip * slip_ms / PERIOD_MS) + 30
        after = met.wait[found : found + 60]
        assert np.abs(after - 10).max() < 2.5, "a second and a half later"
    assert (met.wait < 1.2 * PERIOD_MS).all()


def test_a_camera_that_freezes_leaves_the_grid_where_it_is():
    lock = native.require().PhaseLock(round(PERIOD_MS * MS))
    now = 10 * MS
    for step in range(1, 60):
        now += lock.interval(now, (step - 1) * 50 * MS, step)
    assert lock.is_locked
    assert [lock.interval(now + i * 50 * MS, 58 * 50 * MS, 59) for i in range(100)] == [50 * MS] * 100


@pytest.mark.parametrize(("came", "now", "first"), [(100, 100, 110), (100, 110, 110), (100, 111, 160), (0, 1000, 1010)])
def test_the_first_step_is_in_phase_with_a_frame_that_came(came, now, first):
    assert native.require().PhaseLock(50 * MS).first_step(came * MS, now * MS) == first * MS
