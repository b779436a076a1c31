"""``maxent-onpolicy bench``: run a suite, as far as it is not run yet, and report on it."""

import os
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.display import make_display
from maxent_onpolicy.cli.jobs import Job
from maxent_onpolicy.cli.launchers import make_launcher
from maxent_onpolicy.cli.launchers.base import End, Launcher, Request
from maxent_onpolicy.cli.launchers.record import Record
from maxent_onpolicy.cli.output import make_console, try_report
from maxent_onpolicy.cli.parse import Flag, option, parse_options, read_assignments
from maxent_onpolicy.cli.plan import PlannedRun, plan_run, preparation, select, shard
from maxent_onpolicy.cli.suite import Suite, find_suite, load_suite
from maxent_onpolicy.cli.together import put_together
from maxent_onpolicy.cli.tracking import read_tracking
from maxent_onpolicy.cli.values import UsageError, check_checkpoint_seconds
from maxent_onpolicy.cli.verify import AGAIN, cell_of, compare, published
from maxent_onpolicy.cores import available_cores
from maxent_onpolicy.evaluation.cells import write_cells
from maxent_onpolicy.evaluation.provenance import collect_provenance
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.evaluation.scores import load_results

DESCRIPTION = """Run every algorithm of a suite on every environment with every seed.

Each run is a process of its own that computes with one thread. Runs that are
completed are skipped, runs that were interrupted go on from their checkpoint,
runs that fail are tried once more. At the end there are a table and a report.

  maxent-onpolicy bench quick
  maxent-onpolicy bench quick --dry-run
  maxent-onpolicy bench quick --only Hopper-v5 --seeds 0 1
  maxent-onpolicy bench my_suite.yaml --results /data/results --jobs 8
  maxent-onpolicy bench my_suite.yaml --shard 1/3
  maxent-onpolicy bench quick --verify PPO/Hopper-v5 --seeds 0

Ctrl-C stops after the current iteration; the same command goes on from there.

--vectorise-seeds trains the seeds of an algorithm in an environment in one
process, with stacked parameters; results are those of separate runs.

On a cluster every run is a job of its own, with one core unless --cpus says
more. All machines must see the same --results.

  maxent-onpolicy bench quick --launcher submitit --time 240 --detach
  maxent-onpolicy bench quick --launcher submitit --time 240 --partition gpu
  maxent-onpolicy bench quick --launcher ray --launcher-option address=auto

submitit submits to SLURM. A job that reaches its time or is preempted is queued
again and goes on from its checkpoint. --detach submits and returns; the same
command later shows what is there, and submits what has failed. Options of
submitit's own go into --launcher-option (slurm_account=rl slurm_qos=low);
cluster=local tries the same on this machine. ray starts Ray here, or joins the
cluster at address.
"""
_FAILURE, _INTERRUPTED = 1, 130


@dataclass(frozen=True)
class BenchOptions:
    """Options of ``maxent-onpolicy bench``.

    Attributes:
        suite: name of a suite (`maxent-onpolicy list suites`) or path of a YAML file
        seeds: run these seeds instead of the suite's
        timesteps: train for this long instead of as long as the suite says
        only: run only what matches: a label, an environment, seed_0, or label/environment; * stands for anything
        shard: the i-th of n machines' part of the runs; `maxent-onpolicy merge` brings the parts together
        results: folder of all results; the suite's go to a folder with its name
        jobs: how many runs at a time; on a cluster as many as it has room for
        launcher: where runs are carried out: local (processes here), submitit (SLURM), ray
        launcher_option: of submitit's or Ray's own
        detach: submit and return; for submitit
        time: limit of a run's job in minutes; submitit needs it
        partition: of SLURM
        cpus: cores of a run, on a cluster
        memory: of a run in GB, on a cluster
        gpus: of a run, on a cluster; Ray takes fractions
        vectorise_seeds: train seeds together in one process; for GPUs above all
        tracker: also track the runs in wandb, mlflow or trackio; repeat for more
        project: the project's name there
        no_tensorboard: write no TensorBoard files
        checkpoint_seconds: wall time between checkpoints of a run
        restart: discard runs that were made with other settings or cannot be read, and run them again
        no_model: do not keep the trained models
        no_report: write no report at the end
        verify: run this cell (label/environment) again, in my_results/verify, and compare with what is in --results;
            the seeds that are there, unless --seeds says others
        dry_run: show what would be done, and do nothing
    """

    suite: Annotated[tyro.conf.Positional[str], option("SUITE")]
    seeds: Annotated[tuple[int, ...], option("N [N ...]", "all")] = ()
    timesteps: Annotated[int | None, option("N", "the suite's")] = None
    only: Annotated[tuple[str, ...], option("NAME [NAME ...]", "all")] = ()
    shard: Annotated[str | None, option("I/N", "all")] = None
    results: Annotated[Path, option("DIR", "results")] = Path("results")
    jobs: Annotated[int | None, option("N", "one a core")] = None
    launcher: Annotated[str, option("NAME", "local")] = "local"
    launcher_option: Annotated[tuple[str, ...], option("KEY=VALUE [KEY=VALUE ...]")] = ()
    detach: Flag = False
    time: Annotated[int | None, option("MINUTES")] = None
    partition: Annotated[str | None, option("NAME")] = None
    cpus: Annotated[int | None, option("N", "1")] = None
    memory: Annotated[float | None, option("GB", "the cluster's")] = None
    gpus: Annotated[float | None, option("N", "0")] = None
    vectorise_seeds: Flag = False
    tracker: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("NAME")] = ()
    project: Annotated[str | None, option("NAME", "maxent-onpolicy")] = None
    no_tensorboard: Flag = False
    checkpoint_seconds: Annotated[float, option("SECONDS", "60")] = 60.0
    restart: Flag = False
    no_model: Flag = False
    no_report: Flag = False
    verify: Annotated[str | None, option("CELL")] = None
    dry_run: Flag = False


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status: 0, 1 if a run or the report failed, 130 if it was interrupted.

    Raises:
        UsageError: if the suite, an option, or what lies in the results directory does not allow it.
    """
    options = parse_options(BenchOptions, "bench", DESCRIPTION, arguments)
    _check_numbers(options)
    return _bench(options) if options.verify is None else _verify(options, options.verify)


def _verify(options: BenchOptions, name: str) -> int:
    """Run a cell again and compare; return the exit status: 1 if it came out otherwise."""
    if options.only or options.shard or options.detach:
        raise UsageError("--verify takes neither --only, --shard nor --detach")
    suite = load_suite(find_suite(options.suite), seeds=options.seeds, timesteps=options.timesteps)
    cell = cell_of(suite.runs, name)
    there, seeds = published(options.results / suite.name, cell)
    cell = [run for run in cell if options.seeds or run.seed in seeds]
    if not cell:
        raise UsageError(
            f"{options.results / suite.name} has no seed of the suite's of {name}; --seeds says which to run"
        )
    again = AGAIN / suite.name
    earlier = [run.config.seed for run in (plan_run(config, again) for config in cell) if run.action == "skip"]
    seeds = tuple(run.seed for run in cell)
    status = _bench(replace(options, verify=None, only=(name,), seeds=seeds, results=AGAIN, no_report=True))
    if status or options.dry_run:
        return status
    console = make_console()
    inside = compare(console, there, load_results(again), cell)
    if earlier:
        seeds_then = ", ".join(map(str, earlier))
        text = (
            f"From an earlier comparison: seed{'s' * (len(earlier) > 1)} {seeds_then}; remove {again} to run all again."
        )
        console.print(Text(text), soft_wrap=True)
    return 0 if inside else _FAILURE


def _bench(options: BenchOptions) -> int:
    tracking = read_tracking(options.tracker, options.project, options.no_tensorboard)
    suite = load_suite(find_suite(options.suite), seeds=options.seeds, timesteps=options.timesteps)
    results = options.results / suite.name
    chosen = shard(select(suite.runs, options.only), options.shard, options.vectorise_seeds)
    plan = [plan_run(config, results) for config in chosen]
    console = make_console()
    if options.dry_run:
        show_plan(console, suite, plan, results, options.restart)
        return 0
    launcher = make_launcher(options.launcher, _request(options, suite.name, results))
    _refuse_conflicts(plan, results, options)
    todo = [run for run in plan if run.action in _todo(options.restart)]
    for run in plan:
        if run.action == "skip":
            RunDirectory(run.path).discard_checkpoint()
    corrupt = [run for run in plan if run.action == "corrupt" and not options.restart]
    for run in corrupt:
        console.print(Text(f"corrupt      {run.path}: {run.detail}"), soft_wrap=True)
    if todo:
        _check(suite, todo)
        _make_writable(results)
        _refuse_submitted(todo, results, options)
    if os.access(results, os.W_OK):
        write_cells(results, suite.cells)
    arguments = ["--checkpoint-seconds", str(options.checkpoint_seconds)] + ["--no-model"] * options.no_model
    arguments += [] if tracking is None else tracking.as_arguments()
    outcome = _run(console, suite, plan, todo, launcher, options, arguments)
    return _conclude(console, outcome, corrupt, results, options)


@dataclass(frozen=True)
class _Outcome:
    """What became of the jobs."""

    jobs: list[Job]
    end: End
    completed_before: int


def _check_numbers(options: BenchOptions) -> None:
    for name in ("jobs", "timesteps", "time", "cpus"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    check_checkpoint_seconds(options.checkpoint_seconds)
    if options.memory is not None and options.memory <= 0:
        raise UsageError(f"--memory must be positive, got {options.memory:g}")
    if options.gpus is not None and options.gpus < 0:
        raise UsageError(f"--gpus must not be negative, got {options.gpus:g}")
    if options.vectorise_seeds and options.launcher != "local":
        raise UsageError(f"--vectorise-seeds works with --launcher local, not with {options.launcher}")
    if min(options.seeds, default=0) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise UsageError(f"--seeds must be different and not negative, got {' '.join(map(str, options.seeds))}")


def _request(options: BenchOptions, name: str, results: Path) -> Request:
    extra = read_assignments(options.launcher_option, "--launcher-option")
    shared = ("jobs", "cpus", "gpus", "memory", "time", "partition", "detach")
    return Request(name, results, **{key: getattr(options, key) for key in shared}, extra=extra)


def _make_writable(results: Path) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
        writable = os.access(results, os.W_OK)
    except OSError as error:
        raise UsageError(f"--results: cannot make the directory {results}: {error.strerror}") from None
    if not writable:
        raise UsageError(f"--results: the directory {results} is not writable")


def _check(suite: Suite, todo: list[PlannedRun]) -> None:
    from maxent_onpolicy.cli.build import check_runs

    check_runs([run.config for run in todo], str(suite.path))


def _refuse_submitted(todo: list[PlannedRun], results: Path, options: BenchOptions) -> None:
    """A run that is with a cluster is left to it, whatever else is asked for."""
    if not Record(results).read():
        return
    from maxent_onpolicy.cli.launchers.submitit_launcher import outstanding

    held = outstanding(results)
    refused = [run for run in todo if run.path.resolve() in held]
    if options.launcher == "submitit":
        refused = [run for run in refused if run.action in ("conflict", "corrupt")]
    if refused:
        count = "1 run is" if len(refused) == 1 else f"{len(refused)} runs are"
        names = " ".join(held[run.path.resolve()].name for run in refused[:5])
        more = " ..." if len(refused) > 5 else ""
        raise UsageError(
            f"{count} with the cluster, as jobs {names}{more}: cancel them (scancel), or wait for them with "
            "--launcher submitit"
        )


def _run(
    console: Console,
    suite: Suite,
    plan: list[PlannedRun],
    todo: list[PlannedRun],
    launcher: Launcher,
    options: BenchOptions,
    arguments: list[str],
) -> _Outcome:
    provenance = collect_provenance(["maxent-onpolicy", *sys.argv[1:]], threads=1)
    jobs = [
        Job(run.config, run.path, preparation(run, provenance, options.restart), timesteps=run.timesteps)
        for run in todo
    ]
    counts = Counter(run.action for run in plan)
    skipped = f", {counts['skip']} completed already" if counts["skip"] else ""
    resumed = f", {counts['resume']} of them from a checkpoint" if counts["resume"] else ""
    count = f"{len(todo)} run{'s' * (len(todo) != 1)} to do"
    console.print(Text(f"{suite.name}: {count}{resumed}{skipped}; {launcher.describe()}"))
    if options.vectorise_seeds:
        put_together(jobs, options.jobs or available_cores(), lambda text: console.print(Text(text), soft_wrap=True))
    if not jobs:
        return _Outcome([], "ended", counts["skip"])
    with make_display(jobs, console) as display:
        return _Outcome(jobs, launcher.run(jobs, arguments, display), counts["skip"])


def _conclude(
    console: Console, outcome: _Outcome, corrupt: list[PlannedRun], results: Path, options: BenchOptions
) -> int:
    failed = [job for job in outcome.jobs if job.state == "failed"]
    unfinished = [job for job in outcome.jobs if job.state in ("waiting", "running", "interrupted")]
    nothing_yet = outcome.end == "detached" and not outcome.completed_before
    reported = True
    if not (options.no_report or outcome.end == "stopped" or nothing_yet):
        console.print()
        reported = try_report(console, results)
    for job in failed:
        console.print(Text(f"\nfailed: {job.config.name} ({job.path})\n  {job.error}", style="red"), soft_wrap=True)
        for line in job.tail:
            console.print(Text(f"  | {line}"), soft_wrap=True)
    for run in corrupt:
        text = f"\ncorrupt: {run.path}: {run.detail}\n  not run; --restart discards it and runs it again"
        console.print(Text(text, style="red"), soft_wrap=True)
    if failed or corrupt:
        total = len(outcome.jobs) + len(corrupt)
        console.print(Text(f"\n{len(failed) + len(corrupt)} of {total} runs did not complete", style="red"))
    if outcome.end == "detached":
        text = "\nthe same command shows what is there; without --detach it also waits for the rest"
        console.print(Text(text), soft_wrap=True)
    elif unfinished:
        text = f"\ninterrupted with {len(unfinished)} runs unfinished; the same command goes on from there"
        console.print(Text(text), soft_wrap=True)
        return _INTERRUPTED
    return 0 if reported and not (failed or corrupt) else _FAILURE


def show_plan(console: Console, suite: Suite, plan: list[PlannedRun], results: Path, restart: bool) -> None:
    """Print what a benchmark would do."""
    if suite.description:
        console.print(Text(suite.description))
        console.print(Text(f"All of it takes {suite.budget}." if suite.budget else "Its budget is not measured yet."))
        console.print()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("algorithm", "environment", "seed"):
        table.add_column(name, overflow="fold")
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    words = {"conflict": "start over" if restart else "conflict", "corrupt": "start over" if restart else "corrupt"}
    for run in plan:
        what = words.get(run.action, run.action)
        what += f" from {run.timesteps:,}" if run.action == "resume" else ""
        what += f": {run.detail}" if run.detail and not restart else ""
        config = run.config
        cells = (config.label, config.env_id, str(config.seed), f"{config.total_timesteps:,}", what)
        table.add_row(*map(Text, cells))
    console.print(table)
    steps = sum(run.config.total_timesteps - run.timesteps for run in plan if run.action in _todo(restart))
    count = sum(run.action in _todo(restart) for run in plan)
    console.print(Text(f"\n{count} of {len(plan)} runs to do, {steps:,} steps; results in {results}"), soft_wrap=True)


def _todo(restart: bool) -> tuple[str, ...]:
    return ("start", "resume", "conflict", "corrupt") if restart else ("start", "resume")


def _refuse_conflicts(plan: list[PlannedRun], results: Path, options: BenchOptions) -> None:
    conflicts = [run for run in plan if run.action == "conflict"]
    if not conflicts or options.restart:
        return
    shown = [f"  {run.config.name}: {run.detail}" for run in conflicts[:5]]
    if len(conflicts) > 5:
        shown.append(f"  and {len(conflicts) - 5} more")
    raise UsageError(
        f"{results} holds runs that were made with other settings:\n"
        + "\n".join(shown)
        + "\n--restart discards these runs; --results DIR writes somewhere else"
    )
