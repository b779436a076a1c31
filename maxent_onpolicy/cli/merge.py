"""``maxent-onpolicy merge``: bring the runs of several machines into one store."""

import filecmp
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.text import Text

from maxent_onpolicy.cli.config import differences
from maxent_onpolicy.cli.lock import locked
from maxent_onpolicy.cli.output import make_console, try_report
from maxent_onpolicy.cli.parse import Flag, option, parse_options
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.cells import read_cells, write_cells
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError, find_runs, run_path

DESCRIPTION = """Bring the runs of several results directories into one.

  maxent-onpolicy bench mujoco --shard 1/2 --results here     on one machine
  maxent-onpolicy bench mujoco --shard 2/2 --results there    on another
  maxent-onpolicy merge here/mujoco there/mujoco --into results/mujoco

A run that is further takes the place of one that is less far; of unfinished
runs it is the one whose checkpoint is. Completed runs
are never replaced: if the same run was completed twice with other returns, the
first is kept, the command names both and ends with status 1. Runs that are
still going on are left out. The same command again changes nothing.
"""
_FAILURE = 1
_RETURNS = "eval.csv"
_NO_NUMBERS = ("model.zip", "normalization.npz", "checkpoint.zip", "tensorboard")
Verdict = Literal["new", "further", "known", "conflict"]


@dataclass(frozen=True)
class MergeOptions:
    """Options of ``maxent-onpolicy merge``.

    Attributes:
        sources: results directories: folders that contain `runs`
        into: the results directory that takes them in; it is made if it is not there
        lean: take in settings and numbers only: no models, no checkpoints, no TensorBoard files
        no_report: write no report at the end
    """

    sources: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("DIR ...")]
    into: Annotated[Path, option("DIR")]
    lean: Flag = False
    no_report: Flag = False


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status: 1 if runs contradict each other, or cannot be read or reported on.

    Raises:
        UsageError: if a source holds no runs, is the target, or has runs of another suite or a broken list of cells.
    """
    options = parse_options(MergeOptions, "merge", DESCRIPTION, arguments)
    console = make_console()
    _check(options)
    left_out = _NO_NUMBERS if options.lean else ()
    counts: Counter[str] = Counter()
    cells = _cells(options.sources)
    stores = [find_runs(source / "runs") for source in options.sources]
    _check_suites(options, [run for runs, _ in stores for run in runs])
    for runs, corrupt in stores:
        for broken in corrupt:
            counts["unreadable"] += 1
            _say(console, f"unreadable   {broken.path}: {broken.reason}")
        for run in runs:
            counts[_take(console, run, options.into, left_out)] += 1
    if cells and options.into.is_dir():
        write_cells(options.into, cells)
    total = sum(counts[each] for each in ("new", "further"))
    told = ", ".join(
        f"{counts[name]} {name}" for name in ("known", "running", "conflict", "unreadable") if counts[name]
    )
    _say(console, f"{total} run{'s' * (total != 1)} taken into {options.into}{f'; {told}' if told else ''}")
    reported = options.no_report or try_report(console, options.into)
    return 0 if reported and not (counts["conflict"] or counts["unreadable"]) else _FAILURE


def _check(options: MergeOptions) -> None:
    if not options.sources:
        raise UsageError("give at least one results directory to merge")
    for source in options.sources:
        if not (source / "runs").is_dir():
            raise UsageError(f"{source} is no results directory: it has no folder `runs`")
        if source.resolve() == options.into.resolve():
            raise UsageError(f"--into must be another directory than the sources, got {options.into}")


def _check_suites(options: MergeOptions, runs: Sequence[RunDirectory]) -> None:
    """One report is on one suite: others differ in budgets and settings, under the same labels perhaps."""
    store = options.into / "runs"
    there = find_runs(store)[0] if store.is_dir() else []
    suites = {str(run.config["suite"]): run.path for run in [*there, *runs]}
    if len(suites) > 1:
        found = "; ".join(f"{name} ({path})" for name, path in sorted(suites.items()))
        raise UsageError(f"all runs must be of one suite, got {found}")


def _take(console: Console, run: RunDirectory, into: Path, left_out: Sequence[str]) -> str:
    """Take in one run if it says something new; return what became of it."""
    target = run_path(into, run.label, run.env_id, run.seed)
    try:
        with locked(run.path):
            found, reason = compare(run, target, left_out)
            if found in ("new", "further"):
                copy_run(run.path, target, left_out)
    except UsageError:
        _say(console, f"running      {run.path}")
        return "running"
    if found == "conflict":
        _say(console, f"conflict     {run.path} and {target}: {reason}; the latter is kept")
    return found


def _cells(sources: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """What the suite consists of, as the last of the sources says that knows it."""
    known: dict[str, tuple[str, ...]] = {}
    for source in sources:
        try:
            known = read_cells(source) or known
        except ValueError as error:
            raise UsageError(f"{source}: {error}") from None
    return known


def compare(run: RunDirectory, target: Path, left_out: Sequence[str] = ()) -> tuple[Verdict, str]:
    """Say what a run is to a store.

    Args:
        run: that may be taken in.
        target: where it would lie.
        left_out: files that it would come without.

    Returns:
        ``new``; ``further`` than an unfinished one that is there; ``known`` if nothing would be gained; or
        ``conflict`` with the reason.
    """
    if not target.exists():
        return "new", ""
    try:
        there = RunDirectory(target)
    except RunError as error:
        return "conflict", f"the one that is there cannot be read ({error})"
    changed = differences(there.config, run.config)
    if changed:
        return "conflict", "made with other settings: " + "; ".join(changed)
    if there.completed:
        same = not run.completed or filecmp.cmp(run.path / _RETURNS, target / _RETURNS, shallow=False)
        return ("known", "") if same else ("conflict", "both are completed, with other returns")
    return ("further" if run.completed or _reach(run, left_out) > _reach(there) else "known"), ""


def _reach(run: RunDirectory, left_out: Sequence[str] = ()) -> tuple[int, int]:
    """From which step an unfinished run would go on, and how far it was."""
    checkpoint = run.checkpoint.exists() and run.checkpoint.name not in left_out
    steps = int(run.status["timesteps"])
    return steps if checkpoint else 0, steps


def copy_run(source: Path, target: Path, left_out: Sequence[str]) -> None:
    """Copy a run directory, all or nothing; what is there already is replaced.

    Raises:
        UsageError: if another process is running what is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-", ignore_cleanup_errors=True) as name:
        staged, old = Path(name) / "new", Path(name) / "old"
        shutil.copytree(source, staged, ignore=shutil.ignore_patterns(".*", *left_out))
        if target.exists():
            with locked(target):
                os.replace(target, old)
        os.replace(staged, target)


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
