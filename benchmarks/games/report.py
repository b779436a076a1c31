"""Write the tables, figures and ``games.md`` of ``results/zero-sum``; the same bytes from the same files."""

import json
from pathlib import Path

from benchmarks.games import convergence, curves, figures, tables
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.tables import Bootstrap


def write(folder: Path, runs: Path, output: Path | None = None) -> None:
    """Write what is to be read.

    Args:
        folder: where the measurements of solvers are.
        runs: results directory of the self-play runs; left out of the report if it has none.
        output: folder that is written to; ``folder`` by default.
    """
    output = output or folder
    found = tables.load(folder)
    if (runs / "runs").is_dir():
        found["self_play"] = tables.self_play_table(load_results(runs), Bootstrap())
    plots = []
    if (folder / "curves.csv").is_file():
        plots.append(figures.curves_plot(curves.read(folder / "curves.csv")))
    if (folder / "convergence.csv").is_file():
        plots.append(figures.convergence_plot(convergence.read(folder / "convergence.csv")))
    for kind in ("tables", "figures"):
        (output / kind).mkdir(parents=True, exist_ok=True)
    for table in found.values():
        table.write(output / "tables")
    for plot in plots:
        plot.write(output / "figures")
    order = ("targets", "solvers", "updates", "convergence", "values", "self_play", "tuning")
    machine = json.loads((folder / "machine.json").read_text("utf-8")) if (folder / "machine.json").is_file() else {}
    parts = [
        "# Zero-sum games",
        machine_text(machine),
        *(f"![{plot.caption}](figures/{plot.name}.svg)\n\n*{plot.title}. {plot.caption}*" for plot in plots),
        *(
            f"## {found[name].title}\n\n{found[name].caption}\n\n{found[name].markdown()}"
            for name in order
            if name in found
        ),
    ]
    write_atomic(output / "report.md", "\n\n".join(part for part in parts if part) + "\n")


def machine_text(machine: dict[str, dict[str, object]]) -> str:
    """Return what the solvers were measured on, in a sentence; nothing if nobody knows."""
    if not machine:
        return ""
    cpu = machine["cpu"]
    packages = machine["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    return (
        f"Solvers were measured on one of {cpu['cores']} cores of {cpu['model']}, {machine['os']}, "
        f"{machine['python']}; {versions}."
    )
