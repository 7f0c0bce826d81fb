"""The interval that every success rate is reported with, against published values."""

import pytest

from ptr_fast.diagnostics import wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662), (0, 0, 0.0, 1.0)],
)
def test_known_values(successes, trials, low, high):
    """81 of 263: Newcombe 1998, table I, method 3."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)
