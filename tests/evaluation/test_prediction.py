"""Where the mean of new runs has to lie."""

import numpy as np
import pytest

from maxent_onpolicy.evaluation.prediction import prediction_interval

RNG = np.random.default_rng


def test_the_interval_is_students():
    values = np.array([4.0, 6.0, 8.0, 6.0])
    found = prediction_interval(values, 2, rng=RNG(0), resamples=400_000)
    width = 3.182446 * values.std(ddof=1) * np.sqrt(1 / 4 + 1 / 2)  # the 97.5 % quantile with 3 degrees of freedom
    np.testing.assert_allclose(found, [6.0, 6.0 - width, 6.0 + width], rtol=0.02)


@pytest.mark.parametrize(("n", "n_new"), [(3, 3), (10, 10), (10, 1)])
def test_it_holds_as_many_new_means_as_it_says(n, n_new):
    rng = RNG(1)
    inside = []
    for _ in range(1_000):
        there, new = rng.normal(size=n), rng.normal(size=n_new)
        _, low, high = prediction_interval(there, n_new, rng=RNG(2), resamples=2_000)
        inside.append(low <= new.mean() <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


def test_one_value_says_nothing_of_spread():
    found = prediction_interval([3.0], 1, rng=RNG(0))
    assert found.value == 3.0
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(("values", "n_new", "name"), [([], 1, "values"), ([np.nan], 1, "values"), ([1.0], 0, "n_new")])
def test_bad_arguments_are_named(values, n_new, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        prediction_interval(values, n_new, rng=RNG(0))
