"""Scores as arrays, and the bootstrap that :mod:`~maxent_onpolicy.evaluation.statistics` is built on.

*Tasks* is a list with one float array a task, runs along the first axis. A bootstrap resample draws, for every task, as
many runs as the task has, with replacement.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxent_onpolicy.validation import check_range

FloatArray: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = NDArray[Any] | Sequence[ArrayLike]

_CHUNK = 1 << 20  # resampled values held at once: bounds memory, and stays in cache


# --- resampling ------------------------------------------------------------------------------------------------------


def resample(tasks: list[FloatArray], rng: np.random.Generator, resamples: int) -> Iterator[list[FloatArray]]:
    """Yield chunks of resamples: for every task ``[runs, ...]`` an array ``[chunk, runs, ...]``."""
    chunk = max(1, _CHUNK // sum(task.size for task in tasks))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        yield [task[rng.integers(len(task), size=(size, len(task)))] for task in tasks]


def draw_counts(rng: np.random.Generator, runs: int, resamples: int) -> FloatArray:
    """How often each of ``runs`` runs is drawn in each resample, ``[resamples, runs]``."""
    drawn = rng.integers(runs, size=(resamples, runs)) + runs * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * runs).reshape(resamples, runs).astype(np.float64)


def percentiles(samples: FloatArray, confidence: float, tasks: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Both ends of the interval over the first axis; NaN where a task has a single run."""
    if min(len(task) for task in tasks) < 2:
        unknown = np.full(samples.shape[1:], np.nan)
        return unknown, unknown.copy()
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


# --- checks of user input --------------------------------------------------------------------------------------------


def as_tasks(scores: Any, name: str = "scores", dims: int = 1) -> list[FloatArray]:
    """One float array of ``dims`` dimensions a task, runs first."""
    layout = {1: "[runs, tasks]", 2: "[runs, tasks, checkpoints]"}[dims]
    allowed = f"an array {layout} or a sequence with one {dims}-D array a task"
    if isinstance(scores, np.ndarray) and scores.dtype != object:
        if scores.ndim != dims + 1:
            raise ValueError(f"`{name}` must be {allowed}, got an array of shape {scores.shape}")
        scores = [scores[:, task] for task in range(scores.shape[1])]
    try:
        tasks = [np.asarray(task, dtype=np.float64) for task in scores]
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be {allowed}, got {type(scores).__name__}") from None
    if not tasks:
        raise ValueError(f"`{name}` must hold at least one task, got none")
    for number, task in enumerate(tasks):
        if task.ndim != dims:
            raise ValueError(f"`{name}` must be {allowed}, got shape {task.shape} for task {number}")
        if task.size == 0:
            raise ValueError(f"`{name}` must hold at least one run a task, got none for task {number}")
        if not np.isfinite(task).all():
            run = int(np.argwhere(~np.isfinite(task))[0][0])
            raise ValueError(f"`{name}` must be finite, got NaN or infinity in run {run} of task {number}")
    return tasks


def check_bootstrap(rng: np.random.Generator, resamples: int, confidence: float) -> None:
    """Check what every bootstrap takes, else raise a ``ValueError`` that names the argument."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"`rng` must be a numpy.random.Generator, got {type(rng).__name__}")
    if check_range("resamples", resamples, 1) != int(resamples):
        raise ValueError(f"`resamples` must be a whole number, got {resamples!r}")
    check_range("confidence", confidence, 0, 1, low_open=True, high_open=True)


def finite_vector(name: str, values: ArrayLike) -> FloatArray:
    """Return ``values`` as a finite, non-empty 1-D array, else raise a ``ValueError`` that names the argument."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise ValueError(f"`{name}` must be a finite, non-empty 1-D array, got {values!r}")
    return vector
