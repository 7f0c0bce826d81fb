"""Critical moments and separation of an evaluation, by hand."""

import numpy as np
import pytest

from ptr_robot.evaluation.critical_moments import critical_moments, critical_profile, separation
from ptr_robot.report.critical import critical_part


def episode(name, gap, outcome="success", q_mean=0.0):
    gap = np.asarray(gap, float)
    curves = {"step": list(range(len(gap))), "q": list(gap - 3.0), "q_random": [-3.0] * len(gap)}
    return {"episode_id": name, "outcome": outcome, "q_mean": q_mean, "curves": curves}


GRASP = np.ones(20)
GRASP[8:10] = 11.0  # the fifth tenth; the mean is 2


def test_the_profile_is_in_multiples_of_the_mean():
    evaluation = {"episodes": [episode("a", GRASP), episode("b", np.full(20, 7.0)), episode("f", -GRASP, "failure")]}
    expected = np.full(10, (0.5 + 1.0) / 2)
    expected[4] = (5.5 + 1.0) / 2
    np.testing.assert_allclose(critical_profile(evaluation), expected)
    assert critical_profile({"episodes": [episode("a", -GRASP), episode("short", GRASP[:15])]}) is None
    assert critical_profile({"episodes": [{"episode_id": "cloned", "outcome": "success"}]}) is None


def test_the_most_critical_steps_lie_apart():
    gap = GRASP.copy()
    gap[15] = 5.0
    first, second = critical_moments({"episodes": [episode("a", gap), episode("f", gap, "failure")]}, num_moments=2)
    assert (first.episode_id, first.step, first.gap) == ("a", 8, 11.0)
    assert first.times == pytest.approx(11.0 / gap.mean())
    assert second.step == 15  # step 9 is as critical as 8, and beside it


def test_separation_counts_pairs_and_has_an_interval():
    good = [episode(f"g{q}", GRASP, q_mean=q) for q in (1.0, 2.0, 3.0)]
    bad = [episode(f"b{q}", GRASP, "failure", q_mean=q) for q in (0.0, 2.5)]
    found = separation({"episodes": [*good, *bad]})
    assert found.auc == pytest.approx(4 / 6)  # of six pairs those of 2.5 with 1 and 2 are the wrong way round
    assert (found.num_good, found.num_failed) == (3, 2)
    assert found.interval[0] <= found.auc <= found.interval[1]
    assert found == separation({"episodes": [*good, *bad]})
    assert separation({"episodes": good}) is None


def test_the_part_of_a_page():
    episodes = [episode("a", GRASP, q_mean=2.0), episode("f", GRASP, "failure", q_mean=1.0)]
    html = critical_part({"ours <1>": {"episodes": episodes}, "clone": {"episodes": []}})
    assert "times the mean" in html
    assert "ours &lt;1&gt;" in html
    assert "1.00" in html
    assert critical_part({"clone": {"episodes": []}}) == ""
