"""Every metric against a value worked out by hand."""

import math

import numpy as np
import pytest

from ptr_fast import diagnostics as d
from ptr_fast.config import RewardConfig


def test_returns_of_a_demonstration_stop_at_each_terminal_step():
    # The paper's labels: the last three steps pay +10 and end the sum, so each is worth exactly 10.
    got = d.monte_carlo_returns([-1, -1, 10, 10, 10], [1, 1, 0, 0, 0], 0.5)
    np.testing.assert_allclose(got, [-1 + 0.5 * 4, -1 + 0.5 * 10, 10, 10, 10])


def test_returns_add_up_until_the_last_step_when_only_it_is_terminal():
    got = d.monte_carlo_returns([-1, 10, 10], [1, 1, 0], 0.5)
    np.testing.assert_allclose(got, [-1 + 0.5 * 15, 10 + 0.5 * 10, 10])


def test_returns_do_not_flow_across_episodes():
    rewards, masks, episode = [1, 2, 100, 200], [1, 0, 1, 0], [7, 7, 8, 8]
    np.testing.assert_allclose(d.monte_carlo_returns(rewards, masks, 0.5, episode=episode), [2.0, 2.0, 200.0, 200.0])
    # Also not where the first episode was cut off: its own tail counts, not the next episode's return.
    got = d.monte_carlo_returns(rewards, [1, 1, 1, 0], 0.5, episode=episode, tail=-4.0)
    np.testing.assert_allclose(got, [1 + 0.5 * 0.0, 2 - 0.5 * 4, 200.0, 200.0])


def test_returns_of_a_cut_off_episode_are_unknown_only_up_to_a_terminal_step():
    got = d.monte_carlo_returns([-1, 10, -1, -1], [1, 0, 1, 1], 0.5)
    np.testing.assert_allclose(got, [4.0, 10.0, math.nan, math.nan])


def test_returns_refuse_mismatched_arrays():
    with pytest.raises(ValueError, match="one length"):
        d.monte_carlo_returns([1, 2], [1], 0.9)
    with pytest.raises(ValueError, match="episode must be as long"):
        d.monte_carlo_returns([1, 2], [1, 1], 0.9, episode=[0])


def test_value_range():
    assert d.value_range(RewardConfig(), 0.96) == pytest.approx((-25.0, 10.0))
    several = RewardConfig(positive=1.0, negative=0.0, num_final_steps=3, positive_is_terminal=False)
    assert d.value_range(several, 0.5) == pytest.approx((0.0, 1.75))
    # Reaching the end can also be the lesser evil.
    assert d.value_range(RewardConfig(positive=0.0, negative=-1.0), 0.5) == pytest.approx((-2.0, 0.0))


def test_ranks_share_the_mean_of_ties():
    np.testing.assert_allclose(d.ranks([10, 20, 20, 5]), [2, 3.5, 3.5, 1])
    np.testing.assert_allclose(d.ranks([1, 1, 1]), [2, 2, 2])


def test_correlation_by_hand():
    assert d.correlation([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / math.sqrt(2 * 14 / 3))
    assert math.isnan(d.correlation([1, 1], [1, 2]))
    assert math.isnan(d.correlation([1], [2]))
    assert math.isnan(d.correlation([1, 2, math.inf], [1, 2, 3]))
    with pytest.raises(ValueError, match="one shape"):
        d.correlation([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([1, 10, 100, 1000], 1.0, id="monotone, not linear"),
        pytest.param([4, 3, 2, 1], -1.0, id="falling"),
        # 1 - 6 * sum(d^2) / (n (n^2 - 1)), d = (1, -1, 0, 0)
        pytest.param([2, 1, 3, 4], 0.8, id="one swap"),
        # ranks (1.5, 1.5, 3, 4) against (1, 2, 3, 4): cov 4.5, variances 4.5 and 5
        pytest.param([1, 1, 2, 3], 4.5 / math.sqrt(4.5 * 5), id="tie"),
    ],
)
def test_rank_correlation_against_time(values, expected):
    assert d.rank_correlation(values, np.arange(len(values))) == pytest.approx(expected)


def test_rank_correlation_is_nan_for_a_constant_and_for_nan():
    assert math.isnan(d.rank_correlation([3, 3, 3], [0, 1, 2]))
    assert math.isnan(d.rank_correlation([1, math.nan, 3], [0, 1, 2]))


def test_late_rise_by_hand():
    # Last tenth of 20 steps: 2. Rest: nine 0 and nine 2 (mean 1, squares 18); end: 4 and 6 (mean 5, squares 2).
    values = [0, 2] * 9 + [4, 6]
    assert d.late_rise(values) == pytest.approx((5 - 1) / math.sqrt((18 + 2) / 18))
    assert d.late_rise(-np.array(values)) == pytest.approx(-(5 - 1) / math.sqrt((18 + 2) / 18))


def test_late_rise_takes_exactly_a_tenth_of_a_round_number():
    values = np.zeros(30)
    values[26] = 1.0  # the fourth from the end belongs to the rest
    values[27:] = 3.0
    rest = np.append(np.zeros(26), 1.0)
    assert d.late_rise(values) == pytest.approx((3 - rest.mean()) / math.sqrt(np.sum((rest - rest.mean()) ** 2) / 28))


def test_late_rise_at_the_edges():
    assert d.late_rise([5.0] * 10) == 0.0
    assert d.late_rise([0.0] * 9 + [1.0]) == math.inf
    assert d.late_rise([0.0] * 9 + [-1.0]) == -math.inf
    assert math.isnan(d.late_rise([1.0, 2.0]))
    assert math.isnan(d.late_rise([1.0, 2.0, math.nan, 4.0]))
    assert math.isnan(d.late_rise([1.0, 2.0, math.inf, 4.0]))


def test_early_rise_by_hand():
    # Twenty steps: the first two against the two that end in the middle, steps 9 and 10.
    values = np.arange(20.0)
    assert d.early_rise(values, 2 * values) == (9.0, 18.0)
    late = np.append(np.zeros(15), np.arange(5.0))
    assert d.early_rise(late, values) == (0.0, 9.0)
    assert np.isnan(d.early_rise(values[:7], values[:7])).all()
    assert np.isnan(d.early_rise(values, np.append(math.nan, values[1:]))).all()
    with pytest.raises(ValueError, match="one shape"):
        d.early_rise(values, values[:3])


def test_area_under_curve():
    assert d.area_under_curve([3, 4], [1, 2]) == 1.0
    assert d.area_under_curve([1, 2], [3, 4]) == 0.0
    assert d.area_under_curve([1, 3], [2]) == 0.5
    assert d.area_under_curve([1, 2], [1]) == 0.75
    assert math.isnan(d.area_under_curve([1], []))
    assert math.isnan(d.area_under_curve([math.nan], [1]))


def test_wilson_interval():
    assert d.wilson_interval(13, 20) == pytest.approx((0.4329, 0.8188), abs=1e-4)
    assert d.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert d.wilson_interval(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert d.wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.\.3, got 4"):
        d.wilson_interval(4, 3)


def make_values(q, *, outcome="unknown", rewards=None, **over):
    """An episode whose curves are all ``q``, unless given."""
    q = np.asarray(q, np.float32)
    zero, ones = np.zeros(len(q), np.float32), np.ones(len(q), np.float32)
    given = {
        "rewards": zero, "masks": ones, "returns": q, "q": q, "q_averaged": -q, "value": zero, "advantage": q,
        "q_policy": zero, "q_random": zero, "preference": ones, "td_target": zero,
        "bellman_error": q * q, "action_error": ones, "log_prob": zero,
    } | over  # fmt: skip
    return d.EpisodeValues(outcome=outcome, **{k: np.asarray(v, np.float32) for k, v in given.items()})


def test_summary_by_hand():
    rising = make_values([0, 0, 1, 1, 0, 0, 1, 1, 0, 3], returns=[1] * 9 + [5], q_random=[-2] * 10, q_policy=[1] * 10)
    failed = make_values([-1, -3, -5], outcome="failure", returns=[math.nan] * 3)
    got = d.summarize([rising, failed], limits=(-2.0, 2.0))
    assert got["late_rise"] == pytest.approx(d.late_rise(rising.q))  # the failed episode must not rise
    assert got["rank_correlation_averaged"] == pytest.approx(-got["rank_correlation"])
    assert got["share_outside"] == pytest.approx(1 / 13)  # -5 alone: 3 and -3 are the edges of the widened range
    assert got["q_data"] == pytest.approx((7 - 9) / 13)
    assert (got["q_min"], got["q_max"]) == (-5.0, 3.0)
    assert got["bellman_error"] == pytest.approx((4 + 9 + 1 + 9 + 25) / 13)
    assert got["policy_gap"] == pytest.approx((7 - 10 - 9) / 13)
    assert got["random_gap"] == pytest.approx((7 + 20 - 9) / 13)
    assert got["return_bias"] == pytest.approx((7 - 14) / 10)  # the failed episode's return is not known
    assert got["return_correlation"] == pytest.approx(d.correlation(rising.q, rising.returns))
    assert got["separation_auc"] == 1.0
    # The first step, 0, against that in the middle, 0, where the returns rise by nothing.
    assert math.isnan(got["early_rise"])
    some = [make_values(np.arange(8) * k, returns=np.arange(8) * 4) for k in (1, 3)]
    assert d.summarize(some, limits=(-2.0, 2.0))["early_rise"] == pytest.approx((4 + 12) / (16 + 16))


def test_summary_without_failures_or_critic():
    assert math.isnan(d.summarize([make_values([1, 2, 3])], limits=(0.0, 1.0))["separation_auc"])
    assert d.summarize([make_values([1, 2, 3], log_prob=[])]) == pytest.approx(
        {"action_error": 1.0, "log_prob": math.nan, "at_bounds": math.nan, "recorded_at_bounds": math.nan}, nan_ok=True
    )
    with pytest.raises(ValueError, match="at least one"):
        d.summarize([])


def test_values_refuse_a_curve_of_another_length():
    with pytest.raises(ValueError, match="q_random: expected 3 values or none"):
        make_values([1, 2, 3], q_random=[1, 2])


def test_selection_score():
    metrics = {"late_rise": 2.0, "rank_correlation": 0.6, "late_rise_averaged": -6.0, "rank_correlation_averaged": 0.0}
    metrics["preference"] = 0.8
    assert d.selection_score(metrics) == pytest.approx((0.6 + 0.5 + 0.6) / 3)
    assert d.selection_score(metrics, averaged=True) == pytest.approx((-0.75 + 0.6) / 3)
    best = {"late_rise": math.inf, "rank_correlation": 1.0, "preference": 1.0}
    assert d.selection_score(best) == 1.0
    assert d.selection_score({"late_rise": -math.inf, "rank_correlation": -1.0, "preference": 0.0}) == -1.0
    assert math.isnan(d.selection_score(best | {"late_rise": math.nan}))


def test_divergence_is_named_and_only_then():
    limits = (-25.0, 10.0)
    fine = d.summarize([make_values(np.linspace(-33, 18, 40))], limits)  # within the range and its slack
    assert d.divergence(fine, limits) is None
    high = d.summarize([make_values(np.linspace(-20, 30, 40))], limits)
    assert d.divergence(high, limits) == "Q outside [-33.75, 18.75] at 22 % of the steps"
    broken = d.summarize([make_values([1, 2, math.nan])], limits)
    assert d.divergence(broken, limits) == "Q is not finite"


def test_telling_moments_are_apart_and_in_order():
    q = np.array([0, 0, 0, 0, 5, 5, 5, 6], float)
    advantage = np.array([0, -2, 0, 0, 3, 0, 0, 2], float)
    # The largest advantage falls on the largest rise; one mark is enough there.
    assert d.telling_moments(q, advantage) == [(1, "smallest advantage"), (4, "largest rise of Q")]
    assert d.telling_moments(np.array([1.0]), np.array([math.nan])) == []
    # In a long episode, steps next to each other are one moment.
    q, advantage = np.zeros(60), np.zeros(60)
    q[30:] = 1.0
    advantage[[31, 50]] = 2.0, -2.0
    assert d.telling_moments(q, advantage) == [(30, "largest rise of Q"), (50, "smallest advantage")]


LIMITS = (-25.0, 10.0)


@pytest.mark.parametrize(
    ("bias", "gap", "says"),
    [
        (0.5, 1.5, None),
        (8.0, 1.5, None),  # less than a quarter of the range
        (-8.0, 1.5, None),  # a conservative critic is below the returns
        (9.0, 1.5, "Q is overestimated: on average 9 above the recorded returns, 26% of their range [-25, 10]"),
        (-9.0, 1.5, "Q is underestimated: on average 9 below the recorded returns, 26% of their range [-25, 10]"),
        (
            14.6,
            -0.8,
            "42% of their range [-25, 10], and the policy's own actions are valued 0.8 above the recorded ones",
        ),
        (
            4.0,
            -0.8,
            "11% of their range [-25, 10], and the policy's own actions are valued 0.8 above the recorded ones",
        ),
        (2.0, -0.8, None),  # as a policy that is better than the data
        (4.0, -0.3, None),  # within noise
        (-4.0, -0.8, None),
        (math.nan, -0.8, "valued 0.8 above the recorded ones, and no return is known to compare Q with"),
        (math.nan, 0.8, None),
    ],
)
def test_values_far_from_the_recorded_returns_are_told(bias, gap, says):
    got = d.misestimation({"return_bias": bias, "policy_gap": gap}, LIMITS)
    assert (got is None) if says is None else says in got


def test_overestimation_within_the_range_is_told_by_the_curves():
    """The critic rises and ends high, as on a good checkpoint, within possible returns; all of it is too high."""
    returns = np.linspace(-16, 10, 30)
    values = make_values(returns / 3 + 8, returns=returns, q_policy=returns / 3 + 8.8, q_random=returns - 30)
    metrics = d.summarize([values], LIMITS)
    assert d.divergence(metrics, LIMITS) is None
    assert "overestimated: on average 10 above" in d.misestimation(metrics, LIMITS)
    assert d.misestimation(d.summarize([make_values(returns, returns=returns)], LIMITS), LIMITS) is None
