"""Write tables, the figure and the report; the same bytes for the same ``runs.csv`` and ``machine.json``."""

from statistics import median
from typing import Any

from benchmarks.speed.figure import speed_plot
from benchmarks.speed.store import Store
from benchmarks.speed.summary import Measurements
from benchmarks.speed.tables import all_tables
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.tables import Table

#: Columns that are empty where nothing was measured.
MEASURED = {
    "peers": ("SB3", "ours"),
    "targets": ("Measured",),
    "details": ("Steps/s",),
    "tiers": ("Steps/s",),
    "startup": ("Start-up, s",),
    "breakdown": ("Iteration",),
    "scaling": ("SB3, steps/s", "ours, steps/s"),
    "width": ("SB3, ms", "ours, ms"),
    "floor": ("Update, ms",),
    "trpo": ("Steps/s",),
    "sac": ("Steps/s",),
    "sac-targets": ("Measured",),
    "gpu": ("ours",),
    "gpu-sac": ("Steps/s",),
    "images": ("Steps/s",),
}


def write(store: Store) -> None:
    """Write ``tables/``, ``figures/`` and ``report.md`` into the store's folder; nothing of what was not measured."""
    measured = Measurements(store.rows)
    tables = [table for table in all_tables(measured) if has_numbers(table)]
    (store.folder / "tables").mkdir(parents=True, exist_ok=True)
    for table in tables:
        table.write(store.folder / "tables")
    figures = []
    if any(row["workload"].startswith(("envs-", "breakdown")) for row in store.rows):
        plot = speed_plot(measured)
        (store.folder / "figures").mkdir(parents=True, exist_ok=True)
        plot.write(store.folder / "figures")
        figures = [f"![{plot.caption}](figures/{plot.name}.svg)"]
    parts = [
        "# Speed",
        machine_text(store.machine),
        load_text(measured, store.machine),
        *figures,
        *(f"## {table.title}\n\n{table.caption}\n\n{table.markdown()}" for table in tables),
        failures_text(measured),
        "Every measurement is in [runs.csv](runs.csv), versions in [machine.json](machine.json).",
    ]
    write_atomic(store.folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")


def has_numbers(table: Table) -> bool:
    """Return whether anything in a table was measured."""
    return any(table.data[column].notna().any() for column in MEASURED[table.name])


def machine_text(machine: dict[str, Any]) -> str:
    """Return what it was measured on, in a sentence or two."""
    cpu = machine.get("cpu", {})
    versions: dict[str, str] = {}
    for found in machine.get("libraries", {}).values():
        versions |= found
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    gpus = ", ".join(machine.get("gpu") or ()) or "no GPU"
    return (
        f"Measured on {cpu.get('cores', '?')} cores of {cpu.get('model', 'an unknown processor')}, {gpus}, "
        f"{machine.get('os', '?')}, {machine.get('python', '?')}. {libraries}."
    )


def load_text(measured: Measurements, machine: dict[str, Any]) -> str:
    """Return a warning where something else kept the machine busy, else nothing.

    The load average counts our own process of the minute before too, which keeps at most every core busy.
    """
    loads = [row["load"] for row in measured.rows if row["load"] is not None]
    cores = machine.get("cpu", {}).get("cores", 1)
    if not loads or median(loads) <= cores + 0.5:
        return ""
    return (
        f"**The machine was busy with something else** (median load {median(loads):.1f} on {cores} cores): "
        "ratios are rough, absolute numbers too low."
    )


def failures_text(measured: Measurements) -> str:
    """Return what failed, or nothing."""
    lines = [
        f"- {row['workload']}, {row['contender']}, round {row['round'] + 1}: {row['error']}"
        for row in measured.rows
        if row["status"] == "failed"
    ]
    return "\n".join(["## Failed", "", *lines]) if lines else ""
