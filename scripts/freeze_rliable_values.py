"""Compute the reference values of tests/evaluation/rliable_values.json with rliable, the authors' implementation.

rliable 1.2.0 does not import with current pandas, so it is an oracle here and not a dependency. To run this again:

    python -m venv rliable-env
    rliable-env/bin/pip install "rliable==1.2.0" "pandas<3" "arch<8"
    rliable-env/bin/python scripts/freeze_rliable_values.py

It takes about five minutes. rliable draws from numpy's global state, which is seeded here, so the values
repeat exactly.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from rliable import library, metrics

RESAMPLES = 50_000
AGGREGATES = {
    "iqm": metrics.aggregate_iqm,
    "median": metrics.aggregate_median,
    "mean": metrics.aggregate_mean,
    "optimality_gap": partial(metrics.aggregate_optimality_gap, gamma=1.0),
}


def make_scores() -> dict[str, np.ndarray]:
    """Scores ``[runs, tasks]``: skewed, with ties, run and task counts that are and are not multiples of four."""
    rng = np.random.default_rng(20240521)
    shift = np.array([0.1, 0.4, 0.7, 1.0, 1.3])
    scores = {
        "ten_by_five": shift + 0.4 * rng.gamma(2.0, 0.5, size=(10, 5)),
        "seven_by_five": shift + 0.2 * rng.normal(size=(7, 5)),
        "three_by_two": rng.uniform(size=(3, 2)),
        "ties_ten_by_five": np.round(shift + 0.3 * rng.normal(size=(10, 5)), 1),
    }
    return {name: values.round(4) for name, values in scores.items()}


def estimate(scores: np.ndarray | list[np.ndarray], function: object) -> dict[str, list]:
    """Point estimate and interval of ``function``, which returns an array."""
    points, intervals = library.get_interval_estimates({"a": scores}, function, reps=RESAMPLES)
    low, high = intervals["a"]
    return {"value": points["a"].tolist(), "low": low.tolist(), "high": high.tolist()}


def freeze() -> dict:
    """Every reference value, with the inputs that gave it."""
    scores = make_scores()
    aggregates = {
        name: {
            metric: estimate(values, lambda x, f=function: np.array([f(x)])) for metric, function in AGGREGATES.items()
        }
        for name, values in scores.items()
    }
    pairs = [("ten_by_five", "seven_by_five"), ("ties_ten_by_five", "ten_by_five"), ("ten_by_five", "ten_by_five")]
    improvement = []
    for x, y in pairs:
        np.random.seed(1)  # noqa: NPY002 (what rliable draws from)
        values = estimate([scores[x], scores[y]], lambda a, b: np.array([metrics.probability_of_improvement(a, b)]))
        improvement.append({"x": x, "y": y, **values})
    thresholds = np.linspace(0.0, 2.0, 9)
    profile_points, profile_ends = library.create_performance_profile(
        {"a": scores["ten_by_five"]}, thresholds, reps=RESAMPLES
    )
    curves = np.stack([0.3 * scores["ten_by_five"], 0.7 * scores["ten_by_five"], scores["ten_by_five"] ** 2], axis=-1)
    efficiency = estimate(curves, lambda x: np.array([metrics.aggregate_iqm(x[..., t]) for t in range(x.shape[-1])]))
    return {
        "made_by": "scripts/freeze_rliable_values.py with rliable 1.2.0",
        "resamples": RESAMPLES,
        "scores": {name: values.tolist() for name, values in scores.items()},
        "aggregates": aggregates,
        "improvement": improvement,
        "profile": {
            "scores": "ten_by_five",
            "thresholds": thresholds.tolist(),
            "value": profile_points["a"].tolist(),
            "low": profile_ends["a"][0].tolist(),
            "high": profile_ends["a"][1].tolist(),
        },
        "efficiency": {"curves": "stack of 0.3 x, 0.7 x and x squared of ten_by_five", **efficiency},
    }


if __name__ == "__main__":
    np.random.seed(0)  # noqa: NPY002 (what rliable draws from)
    target = Path(__file__).parents[1] / "tests" / "evaluation" / "rliable_values.json"
    target.write_text(json.dumps(freeze()) + "\n")
    print(f"wrote {target} ({target.stat().st_size} bytes)")
