"""The paired difference and its interval."""

import math

import pytest
from scipy import stats

from mae_lightning.evaluation.paired import paired_difference, t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 13, 30])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.999])
def test_the_quantile_is_scipys(degrees: int, probability: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    first, second = [0.81, 0.83, 0.85, 0.80], [0.79, 0.80, 0.84, 0.80]
    found = paired_difference(first, second)
    expected = stats.ttest_rel(first, second)
    low, high = expected.confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.is_tie == (low <= 0 <= high)


def test_a_tie_is_called_one_and_a_clear_difference_is_not() -> None:
    assert paired_difference([1.0, 2.0, 3.0], [1.1, 1.9, 3.0]).is_tie
    assert not paired_difference([1.0, 2.0, 3.0], [0.1, 1.09, 2.11]).is_tie


def test_one_pair_tells_nothing_of_chance() -> None:
    assert paired_difference([1.0], [0.0]).half_width == math.inf
    assert paired_difference([1.0], [0.0]).is_tie


def test_values_without_counterparts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 values make no pairs"):
        paired_difference([1.0, 2.0], [1.0])
