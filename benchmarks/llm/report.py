"""Write the tables and the figure of a folder; the same bytes from the same files."""

import json
from pathlib import Path

from benchmarks.llm import tables, tuning
from benchmarks.llm.figures import cost_plot
from benchmarks.llm.measure import TRAINING, read


def write(folder: Path, output: Path | None = None) -> None:
    """Write what is to be read.

    Args:
        folder: where ``cost.csv`` and ``cost.json`` are, or ``tuning.csv``.
        output: folder that is written to; ``folder`` by default.

    Raises:
        SystemExit: if nothing was measured.
    """
    output, trials, steps = output or folder, folder / "tuning.csv", read(folder / "cost.csv")
    if not steps and not trials.is_file():
        raise SystemExit(f"{folder} has no measurements; python -m benchmarks.llm cost makes them")
    for kind in ("tables", "figures"):
        (output / kind).mkdir(parents=True, exist_ok=True)
    if trials.is_file():
        tuning.tuning_table(tuning.read(trials)).write(output / "tables")
    if not steps:
        return
    noted = json.loads((folder / "cost.json").read_text("utf-8"))
    for table in tables.load(steps, noted["settings"]["layers"], noted["shape"]["depth"]).values():
        table.write(output / "tables")
    if any(step.part == TRAINING for step in steps):
        cost_plot(steps).write(output / "figures")
