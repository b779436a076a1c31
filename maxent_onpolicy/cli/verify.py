"""``maxent-onpolicy bench SUITE --verify CELL``: run a cell again and compare with the results that are there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig, differences
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.modes import adjective
from maxent_onpolicy.evaluation.prediction import prediction_interval
from maxent_onpolicy.evaluation.scores import Results, load_results
from maxent_onpolicy.evaluation.tables import Bootstrap, estimate_parts, number

AGAIN = Path("my_results", "verify")


def cell_of(runs: Sequence[RunConfig], name: str) -> list[RunConfig]:
    """Return the runs of the cell ``label/environment``, whose label may have slashes.

    Raises:
        UsageError: if there is no such cell; says which there are.
    """
    found = [run for run in runs if f"{run.label}/{run.env_id}" == name]
    if not found:
        known = ", ".join(dict.fromkeys(f"{run.label}/{run.env_id}" for run in runs))
        raise UsageError(f"--verify must be the label and the environment of a cell, got {name!r}; there are: {known}")
    return found


def published(folder: Path, cell: Sequence[RunConfig]) -> tuple[Results, tuple[int, ...]]:
    """Return the results that a cell is to be compared with, and the seeds that the cell has there.

    Raises:
        UsageError: if there are none, or they were made with other settings than the suite's.
    """
    try:
        results = load_results(folder)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"nothing to compare with: {error}") from None
    label, env_id = cell[0].label, cell[0].env_id
    there = [run for run in results.used if (run.label, run.env_id) == (label, env_id)]
    if not there:
        raise UsageError(f"{folder} has no completed run of {label} on {env_id}")
    asked = _seedless(cell[0].to_json())
    for run in there:
        changed = differences(_seedless(run.config), asked)
        if changed:
            raise UsageError(f"the runs in {folder} were made with other settings: {'; '.join(changed)}")
    return results, tuple(run.seed for run in there)


def compare(console: Console, there: Results, again: Results, cell: Sequence[RunConfig]) -> bool:
    """Print means of both, and say of the new ones whether they are the same, or as near as chance allows.

    Args:
        console: to print on.
        there: results that are held to be right.
        again: with those of the cell's runs, and others perhaps.
        cell: what was run again.

    Returns:
        Whether the mean of every mode is the same or inside.

    Raises:
        UsageError: if the new runs lack an evaluation.
    """
    label, env_id, seeds = cell[0].label, cell[0].env_id, sorted(run.seed for run in cell)
    modes = [mode for mode in there.modes if len(there.final(label, env_id, mode))]
    table = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for name in ("mode", "return", "95% interval", "new mean within", "new", ""):
        table.add_column(name, justify="left" if name in ("mode", "") else "right", no_wrap=True)
    verdicts = []
    for mode in modes:
        old, new = there.final(label, env_id, mode), again.final(label, env_id, mode)
        new = new[new.index.isin(seeds)]
        if len(new) < len(seeds):
            raise UsageError(f"{len(seeds) - len(new)} of {len(seeds)} new runs have no {adjective(mode)} evaluation")
        value, interval = estimate_parts(Bootstrap().mean(old, label, env_id, mode, "return"))
        expected = prediction_interval(
            old, len(new), rng=Bootstrap().rng("again", mode), confidence=1 - 0.05 / len(modes)
        )
        verdicts.append(_verdict(old, new, expected.low, expected.high))
        cells = (mode, value, interval, estimate_parts(expected)[1], number(new.mean(), *expected))
        table.add_row(*map(Text, cells), Text(verdicts[-1], style="red" if verdicts[-1] == "outside" else ""))
    console.print(table)
    words = ", ".join(dict.fromkeys(verdicts))
    console.print(Text(f"{label} on {env_id}: {len(old)} runs there, {len(new)} again: {words}"), soft_wrap=True)
    if "outside" in verdicts:
        alone = "One run says nothing of chance: only the same return would do."
        text = "Where nothing but chance is at work, one cell in twenty has a mean outside."
        console.print(Text(alone if len(old) == 1 else text))
    return "outside" not in verdicts


def _verdict(old: pd.Series, new: pd.Series, low: float, high: float) -> str:
    if set(new.index) <= set(old.index) and (old[new.index] == new).all():
        return "the same"
    return "inside" if low <= new.mean() <= high else "outside"


def _seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the runs of a cell have in common."""
    return {
        **{key: value for key, value in config.items() if key != "seed"},
        "evaluation": {key: value for key, value in config["evaluation"].items() if key != "seed"},
    }
