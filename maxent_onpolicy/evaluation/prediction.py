"""Where the mean of new runs has to lie if nothing has changed, in numpy."""

import numpy as np
from numpy.typing import ArrayLike

from maxent_onpolicy.evaluation.resampling import check_bootstrap, finite_vector
from maxent_onpolicy.evaluation.statistics import RESAMPLES, Estimate
from maxent_onpolicy.validation import check_range


def prediction_interval(
    values: ArrayLike,
    n_new: int,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Estimate:
    """Where the mean of ``n_new`` further runs lies with a probability of ``confidence``, if all are of one normal law.

    That is wider than the interval of the mean, which says where the *expectation* lies: the mean of new runs varies
    by itself. Its distance from the mean of ``values``, in units of ``s sqrt(1 / n + 1 / n_new)`` with the standard
    deviation ``s`` of the ``n`` values, has Student's distribution with ``n - 1`` degrees of freedom (Hahn and Meeker
    1991, Statistical Intervals, chapter 4), of which its quantile is taken from draws.

    Args:
        values: one number a run, ``[n]``.
        n_new: how many runs the other mean is of.
        rng: source of randomness; the same state gives the same interval.
        resamples: draws from Student's distribution.
        confidence: nominal coverage, in (0, 1).

    Returns:
        The mean of ``values`` and the ends of the interval; NaN with a single value, which says nothing of spread.

    Raises:
        ValueError: if ``values`` is empty or not finite, ``n_new`` is below 1, or an option is out of its range.
    """
    vector = finite_vector("values", values)
    check_range("n_new", n_new, low=1)
    check_bootstrap(rng, resamples, confidence)
    centre, n = float(vector.mean()), vector.size
    if n < 2:
        return Estimate(centre, np.nan, np.nan)
    distance = np.quantile(np.abs(rng.standard_t(n - 1, resamples)), confidence)
    width = float(distance * vector.std(ddof=1) * np.sqrt(1 / n + 1 / n_new))
    return Estimate(centre, centre - width, centre + width)
