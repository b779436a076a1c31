"""``python -m benchmarks.budgets SUITE``: what a suite takes of which no runs are committed.

  python -m benchmarks.budgets mujoco-reference --timesteps 120_000 --seeds 0
  python -m benchmarks.budgets mujoco-tuning --timesteps 120_000 --seeds 100 --only 'PPO, narrow policy' 'TRPO, small*'

Runs as many steps as are asked for, in --runs, and takes the speed from the first row of a run's train.csv until an
evaluation interval later, which has one evaluation in it; the time up to that row is added once. A run that was not
made counts as one of the same algorithm in the same environment. Speeds go to budgets.csv in --output, in place of the
suite's earlier ones; the core-hours that are printed go into the suite's file. Other options are those of
`maxent-onpolicy bench`.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd
import yaml

from benchmarks.rows import read_rows, write_rows
from benchmarks.tuning import make_trials
from maxent_onpolicy.cli.suite import Suite, find_suite, load_suite
from maxent_onpolicy.cli.values import read_yaml
from maxent_onpolicy.evaluation.runs import RunDirectory

_FILE = "budgets.csv"
_RESULTS = Path("results/budgets")


class Speed(NamedTuple):
    """How fast one run was, evaluations included.

    Attributes:
        suite: that it is of.
        algorithm: class.
        env_id: environment.
        label: of the run.
        start_seconds: until the first row that it logged.
        steps_per_second: environment steps a second from then on.
    """

    suite: str
    algorithm: str
    env_id: str
    label: str
    start_seconds: float
    steps_per_second: float


def speed_of(run: RunDirectory) -> Speed:
    """Return the speed of a run from its first logged row until an evaluation interval later.

    Raises:
        SystemExit: if it is too short for that.
    """
    every = run.config["evaluation"]["every"]
    rows = run.read_train()[["timesteps", "wall_seconds"]].apply(pd.to_numeric).to_numpy(float)
    later = rows[rows[:, 0] >= rows[0, 0] + every] if len(rows) else rows
    if not len(later):
        raise SystemExit(f"{run.path} has no rows that are {every} steps apart; give --timesteps of more than that")
    steps, seconds = later[0] - rows[0]
    who = (run.config["suite"], run.config["algorithm"], run.env_id, run.label)
    return Speed(*who, round(float(rows[0, 1]), 1), round(steps / seconds, 1))


def core_hours(suite: Suite, speeds: Iterable[Speed]) -> float:
    """Return what all runs of a suite take, one core each.

    Raises:
        SystemExit: if an algorithm was not measured in an environment.
    """
    known: dict[tuple[str, str], list[Speed]] = {}
    for each in speeds:
        if each.suite == suite.name:
            known.setdefault((each.algorithm, each.env_id), []).append(each)
    missing = sorted({(run.algorithm, run.env_id) for run in suite.runs} - set(known))
    if missing:
        raise SystemExit(f"no run is measured of {', '.join(' in '.join(pair) for pair in missing)}")
    seconds = (
        mean(
            each.start_seconds + run.total_timesteps / each.steps_per_second
            for each in known[run.algorithm, run.env_id]
        )
        for run in suite.runs
    )
    return sum(seconds) / 3600


def read(path: Path) -> list[Speed]:
    """Return the speeds of a CSV file."""
    return [Speed(*row[:4], *map(float, row[4:])) for row in read_rows(path)]


def shortened(block: Any, timesteps: int) -> Any:
    """Return what a suite's file says with runs of so many steps, evaluated as often as before.

    ``maxent-onpolicy bench --timesteps`` would evaluate more often.
    """
    if isinstance(block, dict):
        return {
            key: timesteps if key == "total_timesteps" else shortened(value, timesteps) for key, value in block.items()
        }
    return block


def measure(suite: Suite, runs: Path, timesteps: int | None, options: Sequence[str]) -> list[Speed]:
    """Make runs, or what is missing of them, and return how fast they were.

    Args:
        suite: which.
        runs: folder of results, in which the run directories are.
        timesteps: of a run; ``None`` for all.
        options: of ``maxent-onpolicy bench``.

    Raises:
        SystemExit: if a run failed, or is too short.
    """
    content = read_yaml(suite.path)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / suite.path.name
        part.write_text(yaml.safe_dump(shortened(content, timesteps) if timesteps else content), encoding="utf-8")
        found = make_trials(str(part), runs, ["--no-tensorboard", *options])
    return [speed_of(run) for run in found if run.completed]


def main(arguments: list[str] | None = None) -> None:
    """Measure a suite; what is no option here goes to ``maxent-onpolicy bench``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budgets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="name or file of a suite")
    parser.add_argument("--runs", type=Path, default=Path("my_results/budgets"), help="folder of run directories")
    parser.add_argument("--output", type=Path, default=_RESULTS, help=f"folder of {_FILE}")
    parser.add_argument("--timesteps", type=int, help="of a run; more than its evaluation interval (default: all)")
    options, rest = parser.parse_known_args(arguments)
    suite = load_suite(find_suite(options.suite))
    speeds = measure(suite, options.runs, options.timesteps, rest)
    hours = core_hours(suite, speeds)
    path = options.output / _FILE
    others = [row for row in (read(path) if path.is_file() else []) if row.suite != suite.name]
    write_rows(path, Speed._fields, sorted([*others, *speeds]))
    print(f"budget of {suite.name}: {hours:.2g} core-hours for {len(suite.runs)} runs")


if __name__ == "__main__":
    main()
