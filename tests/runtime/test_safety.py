"""Whatever goes in, what comes out is inside the limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptr_fast.runtime.safety import INTERVENTIONS, STOP_MASK, AxisLimits, SafetyFilter, SafetyLimits, names_of

MS = 1_000_000


def limits(*axes: AxisLimits, **changes) -> SafetyLimits:
    return SafetyLimits(**{"axes": axes, "state_size": 2, "period_s": 0.2, "ramp_s": 0.0, **changes})


def axis(**changes) -> AxisLimits:
    return AxisLimits(**{"name": "x", "relative": True, "position": 0, "low": -1.0, "high": 1.0, **changes})


def run(filter_: SafetyFilter, wanted, state=(0.0, 0.0), age_ns=0, now_ns=0):
    command, bits = filter_.apply(None if wanted is None else np.float32(wanted), np.float32(state), age_ns, now_ns)
    return None if command is None else command.tolist(), names_of(bits)


any_float = st.floats(width=32, allow_nan=True, allow_infinity=True)
numbers = st.floats(-3.0, 3.0, width=32)


@st.composite
def any_axis(draw, position: int) -> AxisLimits:
    relative = draw(st.booleans())
    low, high = -draw(st.floats(0.0, 1.0)), draw(st.floats(0.001, 1.0))
    box_low, box_high = (-draw(st.floats(0.1, 2.0)), draw(st.floats(0.1, 2.0)))
    boxed = draw(st.booleans())
    limit = st.one_of(st.just(math.inf), st.floats(1e-4, 2.0))
    return AxisLimits(
        name=f"axis {position}",
        relative=relative,
        position=position,
        low=low,
        high=high,
        box_low=box_low if boxed else -math.inf,
        box_high=box_high if boxed else math.inf,
        max_step=draw(limit),
        max_velocity=draw(limit),
        max_acceleration=draw(limit),
    )


@settings(max_examples=300)
@given(st.data())
def test_no_sequence_gets_a_command_outside_the_limits_through(data):
    axes = [data.draw(any_axis(i)) for i in range(2)]
    ramp_s = data.draw(st.sampled_from([0.0, 0.5]))
    filter_ = SafetyFilter(limits(*axes, ramp_s=ramp_s))
    filter_.start(0)
    dt, last, last_velocity, ramp_begin, free = 0.2, [None, None], [0.0, 0.0], 0, False
    for step in range(data.draw(st.integers(1, 12))):
        state = np.array(data.draw(st.lists(st.one_of(numbers, any_float), min_size=2, max_size=2)), np.float32)
        wanted = data.draw(st.one_of(st.none(), st.lists(any_float, min_size=2, max_size=2)))
        age = data.draw(st.sampled_from([0, 100 * MS, 700 * MS, 3000 * MS]))
        given_ = None if wanted is None else np.array(wanted, np.float32)
        command, bits = filter_.apply(given_, state, age, round(step * dt * 1e9))
        if age > 2000 * MS or not np.isfinite(state).all() or (given_ is not None and not np.isfinite(given_).all()):
            assert bits & STOP_MASK
        still = bool(bits & STOP_MASK) or wanted is None or age > 500 * MS
        free = free or not still
        ramp_begin = ramp_begin if free else step
        assert (command is None) == (bool(bits & STOP_MASK) or not free), "nothing is sent before there is a first one"
        if bits & STOP_MASK:
            again, more = filter_.apply(np.zeros(2, np.float32), np.zeros(2, np.float32), 0, 0)
            assert again is None, "a stop stays until start()"
            assert more & STOP_MASK
            break
        if command is None:
            continue
        assert np.isfinite(command).all()
        for i, a in enumerate(axes):
            value = float(command[i])
            begin = last[i] if last[i] is not None else min(max(float(state[i]), a.low), a.high)
            if a.relative:
                assert a.low <= value <= a.high
                move = value
            else:
                assert np.float32(a.low) <= value <= np.float32(a.high)
                move = value - begin
            slack = 1e-6
            if still:
                assert abs(move) <= slack
            if not still:
                assert abs(move) <= min(a.max_step, a.max_velocity * dt) * (1 + slack) + slack
                ramp = 1.0 if ramp_s == 0 else min(1.0, (step - ramp_begin) * dt / ramp_s)
                most = min(a.max_step, a.max_velocity * dt, max(-a.low, a.high) if a.relative else math.inf)
                if ramp < 1 and math.isfinite(most):
                    assert abs(move) <= ramp * most + slack
                velocity = move / dt
                if math.isfinite(a.max_acceleration) and velocity * last_velocity[i] >= 0:
                    assert abs(velocity) <= abs(last_velocity[i]) + a.max_acceleration * dt + 10 * slack
                at = float(state[i]) if a.relative else begin
                if math.isfinite(a.box_low):
                    outside_before = max(a.box_low - at, at - a.box_high, 0.0)
                    outside_after = max(a.box_low - (at + move), at + move - a.box_high, 0.0)
                    assert outside_after <= outside_before + slack
                last[i] = value
            last_velocity[i] = 0.0 if still else move / dt


def test_the_bound_of_a_position_holds_where_the_sum_would_round_past_it():
    low = float(np.float32(-1.8620337e-16))  # 1 + (low - 1) is below low
    filter_ = SafetyFilter(limits(axis(relative=False, low=low)))
    filter_.start(0)
    assert run(filter_, [0.0], [1.0, 0.0]) == ([0.0], [])
    filter_.start(0)
    assert run(filter_, [-1.0], [1.0, 0.0]) == ([low], ["bounds"])


@pytest.mark.parametrize(
    ("changes", "wanted", "state", "command", "reason"),
    [
        ({}, [0.5], [0, 0], [0.5], []),
        ({"high": 0.25}, [0.5], [0, 0], [0.25], ["bounds"]),
        ({"box_low": -0.5, "box_high": 0.5}, [0.5], [0.25, 0], [0.25], ["box"]),
        ({"box_low": -0.5, "box_high": 0.5}, [0.5], [0.75, 0], [0.0], ["box"]),
        ({"box_low": -0.5, "box_high": 0.5}, [-0.5], [0.75, 0], [-0.5], []),
        ({"box_low": -0.5, "box_high": 0.5, "scale": 0.5}, [1.0], [0.25, 0], [0.5], ["box"]),
        ({"max_step": 0.125}, [-0.5], [0, 0], [-0.125], ["step"]),
        ({"max_velocity": 0.625}, [0.5], [0, 0], [0.125], ["velocity"]),
        ({"max_acceleration": 3.125}, [0.5], [0, 0], [0.125], ["acceleration"]),
    ],
    ids=[
        "free",
        "bounds",
        "box",
        "outside, outwards",
        "outside, inwards",
        "box in another unit",
        "step",
        "velocity",
        "acceleration",
    ],
)
def test_each_limit_by_itself(changes, wanted, state, command, reason):
    filter_ = SafetyFilter(limits(axis(**changes)))
    filter_.start(0)
    got, names = run(filter_, wanted, state)
    assert got == pytest.approx(command, abs=1e-7)
    assert names == reason


class LateArm:
    """An arm in one dimension: a command begins some time after it was sent and is done ``response_s`` after that at
    the latest, at any speed."""

    def __init__(self, rng: np.random.Generator, position: float, response_s: float) -> None:
        self._rng, self._position, self._response_s = rng, position, response_s
        self._begins, self._ends, self._moves = [], [], []

    def send(self, now: float, displacement: float) -> None:
        # Often as early or as late as it can be.
        begins, ends = np.sort(now + self._response_s * np.clip(self._rng.uniform(-0.5, 1.5, 2), 0.0, 1.0))
        self._begins.append(begins)
        self._ends.append(max(ends, begins + 1e-9))
        self._moves.append(displacement)

    def at(self, time: float) -> float:
        begins, ends = np.array(self._begins), np.array(self._ends)
        return self._position + float(np.clip((time - begins) / (ends - begins), 0.0, 1.0) @ np.array(self._moves))

    def extremes(self) -> tuple[float, float]:
        """It moves evenly between the times at which a command begins or ends."""
        visited = [self._position, *(self.at(time) for time in [*self._begins, *self._ends])]
        return min(visited), max(visited)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    response_s=st.sampled_from([0.0, 0.04, 0.15, 0.6]),
    latency_s=st.sampled_from([0.0, 0.1, 0.45]),
    scale=st.sampled_from([1.0, 0.04]),
    pushes=st.sampled_from(["up", "down", "any"]),
)
def test_an_arm_that_is_late_does_not_leave_the_box(seed, response_s, latency_s, scale, pushes):
    rng, dt, captured = np.random.default_rng(seed), 0.05, 0.0
    begin = rng.uniform(-0.5, 0.5)
    arm = LateArm(rng, begin, response_s)
    boxed = axis(box_low=-0.5, box_high=0.5, scale=scale, max_step=rng.choice([0.1, math.inf]))
    filter_ = SafetyFilter(limits(boxed, period_s=dt, response_s=response_s))
    filter_.start(0)
    for now in dt * np.arange(1, 41):
        captured = max(captured, now - rng.uniform(0.0, latency_s))
        wanted = {"up": 1.0, "down": -1.0, "any": rng.uniform(-1.0, 1.0)}[pushes]
        state, age_ns = np.float32([arm.at(captured), 0.0]), round((now - captured) * 1e9)
        command, _ = filter_.apply(np.float32([wanted]), state, age_ns, round(now * 1e9), age_ns)
        arm.send(now, float(command[0]) * scale)
    low, high = arm.extremes()
    assert -0.5 - 1e-6 <= low <= high <= 0.5 + 1e-6
    moved, room = (arm.at(9.0) - begin, 0.5 - begin) if pushes == "up" else (begin - arm.at(9.0), begin + 0.5)
    assert pushes == "any" or moved > min(0.1, 0.9 * room), "it is let to move"


def test_a_command_counts_until_the_state_has_it_and_then_no_more():
    filter_ = SafetyFilter(limits(axis(box_low=-1.0, box_high=1.0), response_s=0.3))
    filter_.start(0)

    def pushed(now_ms, state, age_ms=0, wanted=1.0):
        command, bits = filter_.apply(
            np.float32([wanted]), np.float32([state, 0]), age_ms * MS, now_ms * MS, age_ms * MS
        )
        return float(command[0]), names_of(bits)

    assert pushed(0, 0.5) == (0.5, ["box"])
    filter_.sent(100 * MS)  # the arm took it a little later
    assert pushed(200, 0.6) == (0.0, ["box"]), "0.5 may still come"
    assert pushed(300, 0.9, wanted=-0.25) == (-0.25, []), "inwards as far as one likes"
    assert pushed(400, 0.95) == (0.0, ["box"])
    assert pushed(500, 0.75, age_ms=150) == (0.0, ["box"]), "captured at 350 ms, 250 after it was sent"
    assert pushed(500, 0.75, age_ms=50) == (0.25, ["box"]), "captured at 450 ms: it is wholly in"


def test_braking_is_not_limited_and_gaining_speed_is():
    filter_ = SafetyFilter(limits(axis(max_acceleration=1.0)))  # 0.2 u/s per step, 0.04 u
    filter_.start(0)
    steps = [run(filter_, [1.0])[0][0] for _ in range(4)]
    assert steps == pytest.approx([0.04, 0.08, 0.12, 0.16])
    assert run(filter_, [0.0])[0] == [0.0]
    assert run(filter_, [-1.0])[0] == pytest.approx([-0.04])


def test_ramp():
    filter_ = SafetyFilter(limits(axis(max_step=0.5), ramp_s=1.0))
    filter_.start(1000 * MS)
    moves = [run(filter_, [1.0], now_ns=(1000 + 250 * i) * MS) for i in range(5)]
    assert [command[0] for command, _ in moves] == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])
    assert "ramp" in moves[0][1]
    assert "ramp" not in moves[4][1]


def test_the_ramp_holds_where_only_the_command_is_bounded_and_waits_for_the_first_command():
    filter_ = SafetyFilter(limits(axis(low=-1.0, high=1.0), ramp_s=1.0))
    filter_.start(0)
    assert run(filter_, None, now_ns=3000 * MS) == (None, ["held_late"])
    moves = [run(filter_, [1.0], now_ns=(3000 + 250 * i) * MS) for i in range(5)]
    assert [command[0] for command, _ in moves] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert [names for _, names in moves] == [["ramp"]] * 4 + [[]]


def test_stale_observations_hold_and_then_stop():
    filter_ = SafetyFilter(limits(axis()))
    filter_.start(0)
    assert run(filter_, [0.5], age_ns=499 * MS) == ([0.5], [])
    assert run(filter_, [0.5], age_ns=501 * MS) == ([0.0], ["held_stale"])
    assert run(filter_, None) == ([0.0], ["held_late"])
    assert run(filter_, [0.5]) == ([0.5], [])
    assert run(filter_, [0.5], age_ns=2001 * MS) == (None, ["stopped_stale"])
    assert run(filter_, [0.5]) == (None, ["stopped_stale"])
    filter_.start(0)
    assert run(filter_, [0.5]) == ([0.5], [])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_stops(bad):
    for wanted, state in (([bad], (0.0, 0.0)), ([0.1], (0.0, bad)), (None, (bad, 0.0))):
        filter_ = SafetyFilter(limits(axis()))
        filter_.start(0)
        assert run(filter_, wanted, state) == (None, ["stopped_not_finite"])


def test_an_absolute_axis_stays_where_it_was_told_to_be():
    gripper = axis(relative=False, position=-1, low=0.0, high=1.0)
    filter_ = SafetyFilter(limits(gripper))
    filter_.start(0)
    assert run(filter_, None) == (None, ["held_late"]), "where it is nobody knows, so it is not told to be anywhere"
    assert run(filter_, [0.5], age_ns=600 * MS) == (None, ["held_stale"])
    assert run(filter_, [2.0]) == ([1.0], ["bounds"])  # the first command says where it begins
    assert run(filter_, [0.25]) == ([0.25], [])
    assert run(filter_, None) == ([0.25], ["held_late"])
    assert run(filter_, [-1.0]) == ([0.0], ["bounds"])


def test_a_first_command_far_from_where_the_joint_is_stops():
    joint = axis(relative=False, low=-3.0, high=3.0)
    filter_ = SafetyFilter(limits(joint, max_start_mismatch=0.2))
    filter_.start(0)
    assert run(filter_, [1.0], state=(0.5, 0.0)) == (None, ["stopped_mismatch"])
    filter_.start(0)
    assert run(filter_, [0.625], state=(0.5, 0.0)) == ([0.625], [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 0.1}, "axis 0: a relative command needs low <= 0 <= high"),
        ({"low": 1.0, "high": 1.0}, "axis 0: low must be below high"),
        ({"position": 2}, "axis 0: position 2 is not in the state of 2"),
        ({"position": -1, "box_low": 0.0}, "axis 0: a workspace box needs a measured position"),
        ({"scale": 0.0}, "axis 0: scale must be positive"),
        ({"max_step": 0.0}, "axis 0: max_step, max_velocity and max_acceleration must be positive"),
        ({"max_velocity": math.nan}, "axis 0: max_step, max_velocity and max_acceleration must be positive"),
        ({"low": math.nan}, "axis 0: low must be below high"),
        ({"relative": False, "low": 0.1, "high": 0.1 + 1e-12}, "axis 0: no float lies between low and high"),
    ],
)
def test_limits_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SafetyFilter(limits(axis(**changes)))


def test_names_cover_the_bits():
    assert names_of(0) == []
    assert names_of(sum(INTERVENTIONS.values())) == list(INTERVENTIONS)


@settings(max_examples=200)
@given(st.data())
def test_shorter_periods_let_no_more_speed_through(data):
    """Whatever is wanted: displacement per time and its growth are those of full periods, the bounds' included."""
    period, step, velocity, acceleration = 0.2, 0.5, 2.0, data.draw(st.sampled_from([math.inf, 4.0]))
    filter_ = SafetyFilter(
        limits(axis(max_step=step, max_velocity=velocity, max_acceleration=acceleration), state_size=1)
    )
    filter_.start(0)
    now_s, last = 0.0, 0.0
    for _ in range(20):
        pace = data.draw(st.sampled_from([1.0, 0.98, 0.96, 0.5]))
        now_s += pace * period
        wanted = data.draw(st.floats(-3.0, 3.0, width=32))
        command, _ = filter_.apply(np.float32([wanted]), np.zeros(1, np.float32), 0, round(now_s * 1e9), 0, pace)
        speed = float(command[0]) / (pace * period)
        assert abs(speed) <= min(1.0 / period, step / period, velocity) * (1 + 1e-6)
        if abs(speed) > abs(last):
            assert abs(speed) <= (abs(last) if speed * last > 0 else 0.0) + acceleration * pace * period + 1e-5
        last = speed


def test_a_shorter_period_counts_what_was_sent_in_full():
    filter_ = SafetyFilter(limits(axis(box_high=0.7), state_size=1, response_s=10.0))
    filter_.start(0)
    state, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    first, _ = filter_.apply(one / 2, state, 0, 0, 0, 0.5)
    second, bits = filter_.apply(one / 2, state, 0, 100 * MS, 0, 0.5)
    assert (first[0], names_of(bits)) == (0.5, ["box"])
    assert second[0] == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("pace", [0.0, -1.0, 1.01, math.nan])
def test_a_pace_that_is_none_is_refused(pace):
    with pytest.raises(ValueError, match="expected 0 < pace <= 1"):
        SafetyFilter(limits(axis())).apply(np.zeros(1, np.float32), np.zeros(2, np.float32), 0, 0, 0, pace)
