"""Intervals against values computed by hand."""

import numpy as np
import pytest

from ptr_robot.comparison.statistics import bootstrap_interval, paired_difference, rate_of


def test_seeds_that_always_and_never_succeed():
    rate = rate_of([np.ones(10), np.zeros(10)])
    assert (rate.successes, rate.num_trials, rate.rate, rate.per_seed) == (10, 20, 0.5, (1.0, 0.0))
    assert rate.wilson == pytest.approx((0.2993, 0.7007), abs=1e-4)  # 10 of 20
    # Two seeds drawn from two: both fail or both succeed with probability 1/4 each, more than 2.5 %.
    assert rate.bootstrap == (0.0, 1.0)


def test_one_seed_is_a_bootstrap_over_trials():
    # 5 of 10 with one seed: the number of successes is binomial(10, 1/2), whose 2.5 % and 97.5 % quantiles are 2 and 8.
    outcomes = [np.array([1.0] * 5 + [0.0] * 5)]
    assert bootstrap_interval(outcomes) == (0.2, 0.8)
    rate = rate_of(outcomes)  # which is no interval over seeds, and is not called one
    assert (rate.bootstrap, rate.interval) == (None, rate.wilson)


def test_no_spread_means_no_width():
    assert bootstrap_interval([np.ones(4), np.ones(4), np.ones(4)]) == (1.0, 1.0)


def test_trials_that_all_end_alike_have_the_interval_over_trials():
    # Resampling what never happened never shows it; two failures do not prove that nothing can succeed.
    for outcomes in ([np.zeros(2), np.zeros(2)], [np.ones(10), np.ones(10)]):
        rate = rate_of(outcomes)
        assert rate.bootstrap == rate.wilson
        assert rate.bootstrap[1] - rate.bootstrap[0] > 0.15


def test_pairs_that_all_end_alike_have_a_width_too():
    # Newcombe's interval, by hand: Wilson's of 0 of 2 and of 2 of 2 are (0, 0.6576) and (0.3424, 1).
    mean, interval = paired_difference([np.zeros(2)], [np.zeros(2)])
    assert mean == 0.0
    assert interval == pytest.approx((-0.6576, 0.6576), abs=1e-4)
    mean, interval = paired_difference([np.ones(2)], [np.zeros(2)])
    assert mean == 1.0
    assert interval == pytest.approx((1 - 2**0.5 * 0.6576, 1.0), abs=1e-4)


def test_three_seeds_one_of_which_fails():
    # All three draws of the failing seed: (1/3)^3 = 3.7 % > 2.5 %, so the lower end is 0. All three of the others:
    # (2/3)^3 = 29.6 %, so the upper end is 1.
    assert bootstrap_interval([np.ones(5), np.ones(5), np.zeros(5)]) == (0.0, 1.0)


def test_pairs_on_the_same_starts():
    ours, theirs = [np.array([1, 1, 1, 0])], [np.array([1, 0, 0, 0])]
    mean, (low, high) = paired_difference(ours, theirs)
    assert mean == 0.5
    # The differences are 0, 1, 1, 0: binomial(4, 1/2) / 4. P(0) = 6.25 % > 2.5 %, so the interval is [0, 1].
    assert (low, high) == (0.0, 1.0)
    assert paired_difference(ours, ours) == (0.0, (0.0, 0.0))


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="the same seeds and the same starts"):
        paired_difference([np.ones(3)], [np.ones(4)])
    with pytest.raises(ValueError, match="at least one seed"):
        bootstrap_interval([])
