"""Statistics of repeated reinforcement-learning runs, in numpy.

A *score* is one number a run (for example its final, normalised return). Scores of one algorithm are either an array
``[runs, tasks]`` or, where tasks have different numbers of runs, a sequence with one 1-D array a task. Every task
weighs the same, whatever its number of runs.

Intervals are percentile intervals of a bootstrap stratified by task: in each resample every task draws as many runs as
it has, with replacement, from its own runs. A run is the unit that is drawn; where a run is a learning curve, the whole
curve is drawn, because the checkpoints of one run are not independent observations.

A task with a single run has a bootstrap of zero width, which would claim certainty where nothing is known: then the
ends of the interval are NaN. With few runs percentile intervals are too narrow (see ``tests/evaluation``); ten runs are
the least for which the report drops the word "preliminary".

References:
    Agarwal, Schwarzer, Castro, Courville, Bellemare (2021). Deep Reinforcement Learning at the Edge of the Statistical
    Precipice. NeurIPS. https://arxiv.org/abs/2108.13264
    Patterson, Neumann, White, White (2024). Empirical Design in Reinforcement Learning. JMLR 25(318).
    https://jmlr.org/papers/v25/23-0183.html
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxent_onpolicy.evaluation.resampling import (
    FloatArray,
    Scores,
    as_tasks,
    check_bootstrap,
    draw_counts,
    finite_vector,
    percentiles,
    resample,
)
from maxent_onpolicy.validation import check_choice, check_range

__all__ = [
    "STATISTICS",
    "Band",
    "Estimate",
    "aggregate",
    "improvement_interval",
    "iqm",
    "mean",
    "median",
    "optimality_gap",
    "paired_difference",
    "performance_profile",
    "probability_of_improvement",
    "sample_efficiency",
]

#: Maps resampled scores, one array ``[..., runs]`` a task, to the statistic ``[...]``.
Statistic: TypeAlias = Callable[[list[FloatArray]], FloatArray]

RESAMPLES = 50_000  # rliable's default for aggregates
BAND_RESAMPLES = 2_000  # rliable's default for profiles and curves


class Estimate(NamedTuple):
    """A point estimate and the ends of its interval (NaN where a task has a single run)."""

    value: float
    low: float
    high: float


class Band(NamedTuple):
    """Point estimates along ``x`` and the ends of their pointwise intervals; four arrays ``[points]``."""

    x: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray


# --- point estimates -------------------------------------------------------------------------------------------------


def iqm(scores: Scores) -> float:
    """Interquartile mean: the mean of the middle half of all scores (Agarwal et al. 2021, section 4.2).

    With equal numbers of runs this is the 25 % trimmed mean of the pooled scores: ``floor(n / 4)`` scores are cut at
    each end. Otherwise a score weighs ``1 / runs of its task``, so that a task does not count more for having more
    runs, and exactly a quarter of the weight is cut at each end, for which a score may be cut in part.

    Args:
        scores: ``[runs, tasks]``, or one 1-D array a task.

    Raises:
        ValueError: if ``scores`` is empty, has another shape, or holds a NaN or an infinity.
    """
    return float(_iqm(as_tasks(scores)))


def mean(scores: Scores) -> float:
    """Mean over tasks of the mean over runs. Arguments and errors as in :func:`iqm`."""
    return float(_mean(as_tasks(scores)))


def median(scores: Scores) -> float:
    """Median over tasks of the mean over runs. Arguments and errors as in :func:`iqm`."""
    return float(_median(as_tasks(scores)))


def optimality_gap(scores: Scores, target: float = 1.0) -> float:
    """Mean shortfall below ``target``; scores above it count as ``target`` (Agarwal et al. 2021, section 4.2).

    Args:
        scores: ``[runs, tasks]``, or one 1-D array a task.
        target: the score that counts as good enough, in units of the score.

    Raises:
        ValueError: as :func:`iqm`, or if ``target`` is not finite.
    """
    return float(_optimality_gap(as_tasks(scores), check_range("target", target)))


def probability_of_improvement(scores_x: Scores, scores_y: Scores) -> float:
    """Chance that a run of X beats a run of Y on a task drawn at random: mean over tasks of P(X > Y) + P(X = Y) / 2.

    Agarwal et al. (2021), section 4.3; on each task it is the Mann-Whitney U statistic over the number of pairs. It
    compares ranks within a task only, so it needs no normalisation.

    Args:
        scores_x: ``[runs, tasks]``, or one 1-D array a task.
        scores_y: as ``scores_x``; the same tasks in the same order, any number of runs.

    Raises:
        ValueError: as :func:`iqm`, or if the numbers of tasks differ.
    """
    return float(np.mean([wins.mean() for wins in _wins(scores_x, scores_y)]))


# --- intervals -------------------------------------------------------------------------------------------------------


def aggregate(
    scores: Scores,
    *,
    rng: np.random.Generator,
    statistics: Sequence[str] | Mapping[str, Statistic] = ("iqm", "median", "mean", "optimality_gap"),
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Estimate statistics with stratified-bootstrap percentile intervals, all from the same resamples.

    Args:
        scores: ``[runs, tasks]``, or one 1-D array a task.
        rng: source of randomness; the same state gives the same interval.
        statistics: names from :data:`STATISTICS`, or your own functions by name. Such a function maps a list with one
            array ``[..., runs]`` a task to an array ``[...]``.
        resamples: number of bootstrap resamples.
        confidence: nominal coverage, in (0, 1).

    Returns:
        One :class:`Estimate` a statistic, in the order asked for.

    Raises:
        ValueError: as :func:`iqm`, or for an unknown statistic, a number out of range or an ``rng`` of another type.
    """
    tasks = as_tasks(scores)
    check_bootstrap(rng, resamples, confidence)
    functions = _functions(statistics)
    samples: dict[str, list[FloatArray]] = {name: [] for name in functions}
    for resampled in resample(tasks, rng, resamples):
        for name, function in functions.items():
            samples[name].append(function(resampled))
    estimates = {}
    for name, function in functions.items():
        low, high = percentiles(np.concatenate(samples[name]), confidence, tasks)
        estimates[name] = Estimate(float(function(tasks)), float(low), float(high))
    return estimates


def improvement_interval(
    scores_x: Scores,
    scores_y: Scores,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Estimate:
    """:func:`probability_of_improvement` with its interval; the runs of X and of Y are drawn independently.

    Args:
        scores_x: ``[runs, tasks]``, or one 1-D array a task.
        scores_y: as ``scores_x``; the same tasks in the same order, any number of runs.
        rng: source of randomness; the same state gives the same interval.
        resamples: number of bootstrap resamples.
        confidence: nominal coverage, in (0, 1).

    Raises:
        ValueError: as :func:`probability_of_improvement` and :func:`aggregate`.
    """
    wins = _wins(scores_x, scores_y)
    check_bootstrap(rng, resamples, confidence)
    samples = np.zeros(resamples)
    for task in wins:
        runs_x, runs_y = task.shape
        # A resample enters only through how often it drew each run: U = count_x · wins · count_y.
        drawn = (draw_counts(rng, runs_x, resamples) @ task) * draw_counts(rng, runs_y, resamples)
        samples += drawn.sum(axis=-1) / (runs_x * runs_y * len(wins))
    strata = [*(task[:, 0] for task in wins), *(task[0] for task in wins)]
    low, high = percentiles(samples, confidence, strata)
    return Estimate(float(np.mean([task.mean() for task in wins])), float(low), float(high))


def paired_difference(
    scores_x: Scores,
    scores_y: Scores,
    *,
    rng: np.random.Generator,
    statistics: Sequence[str] | Mapping[str, Statistic] = ("iqm", "mean"),
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Estimate ``statistic(X) - statistic(Y)`` where run ``i`` of X and run ``i`` of Y are the same run.

    Two measurements of one run are not independent: a run that is better in one tends to be better in the other. So
    whole runs are drawn, each with both its scores, and both statistics come from the same draw. Drawing X and Y by
    themselves would make the interval too wide where they go together.

    Args:
        scores_x: ``[runs, tasks]``, or one 1-D array a task.
        scores_y: as ``scores_x``, of the same shape.
        rng: source of randomness; the same state gives the same interval.
        statistics: as in :func:`aggregate`.
        resamples: number of bootstrap resamples.
        confidence: nominal coverage, in (0, 1).

    Returns:
        One :class:`Estimate` a statistic, in the order asked for.

    Raises:
        ValueError: as :func:`aggregate`, or if the numbers of tasks or of a task's runs differ.
    """
    pairs = _pairs(scores_x, scores_y)
    check_bootstrap(rng, resamples, confidence)
    functions = _functions(statistics)
    samples: dict[str, list[FloatArray]] = {name: [] for name in functions}
    for drawn in resample(pairs, rng, resamples):
        for name, function in functions.items():
            samples[name].append(_difference(function, drawn))
    estimates = {}
    for name, function in functions.items():
        low, high = percentiles(np.concatenate(samples[name]), confidence, pairs)
        estimates[name] = Estimate(float(_difference(function, pairs)), float(low), float(high))
    return estimates


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = BAND_RESAMPLES,
    confidence: float = 0.95,
) -> Band:
    """Run-score distribution: the share of runs that score above each threshold (Agarwal et al. 2021, section 4.2).

    Args:
        scores: ``[runs, tasks]``, or one 1-D array a task.
        thresholds: scores at which the profile is evaluated, ``[points]``.
        rng: source of randomness; the same state gives the same band.
        resamples: number of bootstrap resamples.
        confidence: nominal coverage of the band at each threshold (not of the whole curve), in (0, 1).

    Raises:
        ValueError: as :func:`aggregate`, or if ``thresholds`` is not a finite 1-D array.
    """
    tasks = as_tasks(scores)
    check_bootstrap(rng, resamples, confidence)
    levels = finite_vector("thresholds", thresholds)
    value = np.zeros(len(levels))
    samples = np.zeros((resamples, len(levels)))
    for task in tasks:
        above = (task[:, None] > levels).astype(np.float64)
        value += above.mean(axis=0) / len(tasks)
        samples += draw_counts(rng, len(task), resamples) @ above / (len(task) * len(tasks))
    low, high = percentiles(samples, confidence, tasks)
    return Band(levels, value, low, high)


def sample_efficiency(
    curves: NDArray[Any] | Sequence[ArrayLike],
    timesteps: ArrayLike,
    *,
    rng: np.random.Generator,
    statistic: str | Statistic = "iqm",
    resamples: int = BAND_RESAMPLES,
    confidence: float = 0.95,
) -> Band:
    """A statistic of the scores at every checkpoint, with a band from resampling whole runs.

    Args:
        curves: scores ``[runs, tasks, checkpoints]``, or one array ``[runs, checkpoints]`` a task.
        timesteps: environment steps at each checkpoint, ``[checkpoints]``.
        rng: source of randomness; the same state gives the same band.
        statistic: a name from :data:`STATISTICS`, or a function as in :func:`aggregate`.
        resamples: number of bootstrap resamples.
        confidence: nominal coverage of the band at each checkpoint (not of the whole curve), in (0, 1).

    Raises:
        ValueError: as :func:`aggregate`, or if the number of checkpoints differs from that of ``timesteps``.
    """
    tasks = as_tasks(curves, "curves", dims=2)
    check_bootstrap(rng, resamples, confidence)
    function = next(iter(_functions([statistic] if isinstance(statistic, str) else {"custom": statistic}).values()))
    steps = finite_vector("timesteps", timesteps)
    for task in tasks:
        if task.shape[1] != len(steps):
            raise ValueError(f"`curves` has {task.shape[1]} checkpoints, but `timesteps` has {len(steps)}")
    value = function([task.T for task in tasks])
    samples = [function([np.moveaxis(task, 1, -1) for task in drawn]) for drawn in resample(tasks, rng, resamples)]
    low, high = percentiles(np.concatenate(samples), confidence, tasks)
    return Band(steps, value, low, high)


# --- statistics of resampled scores: one array [..., runs] a task → [...] --------------------------------------------


def _task_means(tasks: list[FloatArray]) -> FloatArray:
    return np.stack([task.mean(axis=-1) for task in tasks], axis=-1)


def _mean(tasks: list[FloatArray]) -> FloatArray:
    return np.asarray(_task_means(tasks).mean(axis=-1))


def _median(tasks: list[FloatArray]) -> FloatArray:
    return np.asarray(np.median(_task_means(tasks), axis=-1))


def _optimality_gap(tasks: list[FloatArray], target: float = 1.0) -> FloatArray:
    return target - _mean([np.minimum(task, target) for task in tasks])


def _iqm(tasks: list[FloatArray]) -> FloatArray:
    pooled = np.concatenate(tasks, axis=-1)
    total = pooled.shape[-1]
    if len({task.shape[-1] for task in tasks}) == 1:
        cut = total // 4
        # Partitioning leaves the middle half in the middle; its order does not matter to the mean.
        middle = np.partition(pooled, (cut, total - cut - 1), axis=-1)[..., cut : total - cut]
        return np.asarray(middle.mean(axis=-1))
    weight = np.concatenate([np.full(task.shape[-1], 1.0 / (task.shape[-1] * len(tasks))) for task in tasks])
    order = np.argsort(pooled, axis=-1, kind="stable")
    ordered = np.take_along_axis(pooled, order, axis=-1)
    weight = weight[order]
    upper = np.cumsum(weight, axis=-1)
    inside = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - weight, 0.25), 0.0, None)
    return np.asarray((ordered * inside).sum(axis=-1) / inside.sum(axis=-1))


#: Aggregates by name, over all runs and tasks.
STATISTICS: dict[str, Statistic] = {
    "iqm": _iqm,
    "median": _median,
    "mean": _mean,
    "optimality_gap": _optimality_gap,
}


def _functions(statistics: Sequence[str] | Mapping[str, Statistic]) -> dict[str, Statistic]:
    if isinstance(statistics, Mapping):
        return dict(statistics)
    return {check_choice("statistic", name, STATISTICS): STATISTICS[name] for name in statistics}


def _wins(scores_x: Scores, scores_y: Scores) -> list[FloatArray]:
    """For every task ``[runs of X, runs of Y]``: 1 where X scores more, 1/2 where equal, 0 where less."""
    tasks_x, tasks_y = as_tasks(scores_x, "scores_x"), as_tasks(scores_y, "scores_y")
    if len(tasks_x) != len(tasks_y):
        counts = f"{len(tasks_x)} and {len(tasks_y)}"
        raise ValueError(f"`scores_x` and `scores_y` must have equal numbers of tasks, got {counts}")
    pairs = zip(tasks_x, tasks_y, strict=True)
    return [(x[:, None] > y).astype(np.float64) + 0.5 * (x[:, None] == y) for x, y in pairs]


def _pairs(scores_x: Scores, scores_y: Scores) -> list[FloatArray]:
    """For every task ``[runs, 2]``: the score of X and of Y."""
    tasks_x, tasks_y = as_tasks(scores_x, "scores_x"), as_tasks(scores_y, "scores_y")
    runs_x, runs_y = [len(task) for task in tasks_x], [len(task) for task in tasks_y]
    if runs_x != runs_y:
        counts = f"{runs_x} and {runs_y} runs a task"
        raise ValueError(f"`scores_x` and `scores_y` must have the same runs of the same tasks, got {counts}")
    return [np.stack(pair, axis=-1) for pair in zip(tasks_x, tasks_y, strict=True)]


def _difference(function: Statistic, pairs: list[FloatArray]) -> FloatArray:
    """The statistic of X less that of Y, for arrays ``[..., runs, 2]``."""
    return np.asarray(function([pair[..., 0] for pair in pairs]) - function([pair[..., 1] for pair in pairs]))
