"""From the files of one run to its checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from maxent_onpolicy.evaluation.modes import MODES, SPLITS, family
from maxent_onpolicy.evaluation.runs import RunDirectory


class UnusableRun(Exception):
    """Why a run cannot be used."""


def read_checkpoints(run: RunDirectory) -> pd.DataFrame:
    """Return means over the episodes of every checkpoint of one run, in ascending order.

    Raises:
        UnusableRun: if it is not completed, or its files do not say what a completed run's do.
    """
    steps, seconds, total = run.status["timesteps"], run.status["wall_seconds"], run.config["total_timesteps"]
    if not all(isinstance(value, int | float) for value in (steps, seconds or 0, total)):
        raise UnusableRun("status.json or config.json holds text where a number belongs")
    if not run.completed:
        error = run.status["error"]
        raise UnusableRun(f"stopped at {steps:,} of {total:,} steps" + (f": {error}" if error else ""))
    episodes = run.read_eval()
    if episodes.empty:
        raise UnusableRun("eval.csv holds no evaluation")
    if not np.isfinite(episodes[["timesteps", "return", "length"]].to_numpy(dtype=np.float64)).all():
        raise UnusableRun("eval.csv holds a number that is missing or not finite")
    if "split" not in episodes:
        episodes["split"] = "train"
    for column, known in (("mode", MODES), ("split", SPLITS)):
        unknown = sorted(set(episodes[column].map(str)) - set(known))
        if unknown:
            raise UnusableRun(f"eval.csv holds the unknown {column} {unknown[0]!r}")
    grouped = episodes.groupby(["mode", "split", "timesteps"], sort=True)
    means = grouped[["return", "length"]].mean()
    means["episodes"] = grouped.size()
    checkpoints = means.reset_index()
    _check_end(run, checkpoints)
    return checkpoints.assign(label=run.label, env_id=run.env_id, seed=run.seed)


def _check_end(run: RunDirectory, checkpoints: pd.DataFrame) -> None:
    """Refuse a run whose last evaluation is missing, or a part of it: what is there is not its final return."""
    end, episodes = run.status["timesteps"], _mapping(run.config["evaluation"]).get("episodes")
    for (mode, split), rows in checkpoints.groupby(["mode", "split"]):
        last = rows.iloc[-1]
        if last["timesteps"] != end:
            raise UnusableRun(
                f"eval.csv ends at {last['timesteps']:,} of {end:,} steps in the {mode} mode ({split}): "
                "its last evaluation is missing"
            )
        exact = last["length"] == 0  # no episodes were played, and one row has the exact return
        if isinstance(episodes, int) and not exact and last["episodes"] < episodes:
            raise UnusableRun(
                f"eval.csv holds {last['episodes']} of {episodes} episodes of the last evaluation in the {mode} mode "
                f"({split})"
            )


def name_modes(checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Let modes say the split, if there is a test split at all."""
    if "test" in set(checkpoints["split"]):
        pairs = zip(checkpoints["mode"], checkpoints["split"], strict=True)
        checkpoints["mode"] = [family(mode, split) for mode, split in pairs]
    return checkpoints.drop(columns="split")


def distributions(run: RunDirectory) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The environment's keywords in training, and on the test distribution; the same where there is none."""
    kwargs = _mapping(_mapping(run.config.get("environment")).get("kwargs"))
    return kwargs, {**kwargs, **_mapping(_mapping(run.config["evaluation"]).get("test_kwargs"))}


def _mapping(value: Any) -> Mapping[str, Any]:
    """A part of a config.json that others may have written; what is no mapping holds no keywords."""
    return value if isinstance(value, Mapping) else {}
