"""``maxent-onpolicy bench SUITE --verify CELL``: run a cell again and compare with the results that are there."""

from collections.abc import Sequence
from pathlib import Path

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig, differences
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.modes import adjective
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


def published(folder: Path, cell: Sequence[RunConfig]) -> Results:
    """Return the results that a cell is to be compared with.

    Raises:
        UsageError: if there are none, or they were made with other settings than the suite's.
    """
    try:
        results = load_results(folder)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"nothing to compare with: {error}") from None
    label, env_id = cell[0].label, cell[0].env_id
    there = {run.seed: run for run in results.used if (run.label, run.env_id) == (label, env_id)}
    if not there:
        raise UsageError(f"{folder} has no completed run of {label} on {env_id}")
    for config in cell:
        changed = differences(there[config.seed].config, config.to_json()) if config.seed in there else []
        if changed:
            raise UsageError(f"the runs in {folder} were made with other settings: {'; '.join(changed)}")
    return results


def compare(console: Console, there: Results, again: Results, label: str, env_id: str) -> bool:
    """Print means of both and the interval of those that were there; return whether all new means are inside it."""
    table = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for name in ("mode", "return", "95% interval", "again", ""):
        table.add_column(name, justify="left" if name in ("mode", "") else "right", no_wrap=True)
    inside = True
    for mode in there.modes:
        old, new = (each.final(label, env_id, mode) for each in (there, again))
        if not len(old):
            continue
        if not len(new):
            raise UsageError(f"the runs that were made again have no {adjective(mode)} evaluation")
        estimate = Bootstrap().mean(old, label, env_id, mode, "return")
        within = bool(estimate.low <= new.mean() <= estimate.high) if len(old) > 1 else bool(new.mean() == old.mean())
        inside &= within
        value, interval = estimate_parts(estimate)
        cells = (mode, value, interval, number(new.mean(), *estimate))
        table.add_row(*map(Text, cells), Text("inside" if within else "outside", style="" if within else "red"))
    console.print(table)
    words = "inside the interval" if inside else "outside the interval"
    seeds = [each.seeds(label, env_id) for each in (there, again)]
    console.print(Text(f"{label} on {env_id}, {seeds[0]} seeds there, {seeds[1]} run again: {words}"), soft_wrap=True)
    if not inside:
        console.print(
            Text(
                "Of independent repetitions with as many seeds, about one in six is outside by chance, more with fewer."
            )
        )
    return inside
