"""Statistics: against SciPy and brute force, and that intervals cover at small n."""

import itertools

import numpy as np
import pytest
from scipy import stats

from batchscape.errors import InvalidInput
from batchscape.stats.paired import mean_interval, paired_effect, sign_flip

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 6, 10, 30])
def test_the_interval_is_the_t_interval_of_scipy(n):
    sample = RNG.normal(1, 2, n)
    effect = paired_effect(sample)
    interval = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert mean_interval(sample) == pytest.approx((effect.mean, effect.low, effect.high))


@pytest.mark.parametrize("n", [2, 6, 10])
def test_the_sign_flip_test_counts_all_patterns(n):
    sample = RNG.normal(0.5, 1, n)
    means = [np.mean(np.array(signs) * sample) for signs in itertools.product([-1, 1], repeat=n)]
    expected = np.mean(np.abs(means) >= abs(sample.mean()) - 1e-12)
    assert sign_flip(sample) == pytest.approx(min(1, expected), abs=1e-12)


def test_the_floor_of_the_sign_flip_test_is_two_in_two_to_the_n():
    assert [sign_flip(np.ones(n) + np.arange(n)) for n in (6, 10)] == [2 / 2**6, 2 / 2**10]


@pytest.mark.parametrize(("n", "short"), [(6, 0.05), (10, 0.02)])
def test_intervals_cover_95_percent_where_a_bootstrap_does_not(n, short):
    samples = RNG.normal(size=(800, n))
    covered = [effect.low <= 0 <= effect.high for effect in map(paired_effect, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 800))
    drawn = stats.bootstrap((samples,), np.mean, axis=1, method="percentile", n_resamples=300, batch=50, rng=RNG)
    interval = drawn.confidence_interval
    assert np.mean((interval.low <= 0) & (interval.high >= 0)) < np.mean(covered) - short


def test_the_detectable_effect_is_found_four_times_in_five():
    n = 10
    spread = paired_effect(np.tile([1.0, -1.0], n // 2)).detectable  # For a sample of standard deviation √(10 / 9).
    shift = spread / np.sqrt(10 / 9)
    found = [paired_effect(row).low > 0 for row in RNG.normal(shift, 1, size=(700, n))]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_one_pair_has_no_interval_and_none_is_an_error():
    effect = paired_effect([2.0])
    assert effect.mean == 2
    assert np.isnan(effect.low)
    assert effect.p_value == 1
    for bad in ([], [1.0, np.nan], [np.inf]):
        with pytest.raises(InvalidInput, match="finite differences"):
            paired_effect(bad)
