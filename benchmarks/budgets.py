"""``python -m benchmarks.budgets SUITE``: what a suite takes.

  python -m benchmarks.budgets ablation                                                     from its committed runs
  python -m benchmarks.budgets mujoco-reference --timesteps 30_000 --part 10 --seeds 0      from parts of runs
  python -m benchmarks.budgets mujoco-tuning --timesteps 120_000 --seeds 100 --only 'PPO, narrow policy' 'TRPO, small*'

Of an algorithm in an environment a run takes as long as those that are committed, in --results. What these lack is made
in parts, in --runs, as many steps as are asked for. Their speed is that of as many evaluation intervals as there are
between the first and the last row of train.csv, counted from the last, so that every interval has one evaluation; the
time up to the first row is added once. --part shortens the intervals, and evaluations with them. Speeds go to
budgets.csv in --output, in place of the suite's earlier ones; the core-hours that are printed go into the suite's file.
Other options are those of `maxent-onpolicy bench`; without any of these options nothing is run.
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
from maxent_onpolicy.evaluation.runs import RunDirectory, find_runs

_FILE = "budgets.csv"


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
    """Return the speed of a run over its last whole evaluation intervals.

    Raises:
        SystemExit: if it is too short for one.
    """
    every = run.config["evaluation"]["every"]
    rows = run.read_train()[["timesteps", "wall_seconds"]].apply(pd.to_numeric).to_numpy(float)
    intervals = int(rows[-1, 0] - rows[0, 0]) // every if len(rows) else 0
    if not intervals:
        raise SystemExit(f"{run.path} has no rows that are {every} steps apart; give --timesteps of more than that")
    earlier = rows[rows[:, 0] <= rows[-1, 0] - intervals * every][-1]
    steps, seconds = rows[-1] - earlier
    who = (run.config["suite"], run.config["algorithm"], run.env_id, run.label)
    return Speed(*who, round(float(rows[0, 1]), 1), round(steps / seconds, 1))


def core_hours(suite: Suite, results: Path, speeds: Iterable[Speed]) -> float:
    """Return what all runs of a suite take, one core each.

    Args:
        suite: which.
        results: folder in which the suite's is, with runs of it or without.
        speeds: of parts of runs, for what there are no runs of.

    Raises:
        SystemExit: if an algorithm was not measured in an environment.
    """
    folder = results / suite.name / "runs"
    known: dict[tuple[str, str], list[float]] = {}
    for run in find_runs(folder)[0] if folder.is_dir() else []:
        if run.completed:
            known.setdefault((run.config["algorithm"], run.env_id), []).append(run.status["wall_seconds"])
    parts: dict[tuple[str, str], list[Speed]] = {}
    for each in speeds:
        if each.suite == suite.name:
            parts.setdefault((each.algorithm, each.env_id), []).append(each)
    missing = sorted({(run.algorithm, run.env_id) for run in suite.runs} - set(known) - set(parts))
    if missing:
        raise SystemExit(f"no run is measured of {', '.join(' in '.join(pair) for pair in missing)}")
    seconds = 0.0
    for run in suite.runs:
        key = (run.algorithm, run.env_id)
        whole = [each.start_seconds + run.total_timesteps / each.steps_per_second for each in parts.get(key, ())]
        seconds += mean(known.get(key, whole))
    return seconds / 3600


def read(path: Path) -> list[Speed]:
    """Return the speeds of a CSV file."""
    return [Speed(*row[:4], *map(float, row[4:])) for row in read_rows(path)]


def shortened(block: Any, timesteps: int | None, part: int) -> Any:
    """Return what a suite's file says with runs of so many steps, and evaluations in parts.

    ``maxent-onpolicy bench --timesteps`` would evaluate more often, and as long as before.

    Args:
        block: of the file.
        timesteps: of a run; ``None`` for all.
        part: number of parts that an evaluation is cut into: so many times as often, so many times fewer episodes.

    Raises:
        SystemExit: if an evaluation cannot be cut so.
    """
    if not isinstance(block, dict):
        return block
    changed = {key: shortened(value, timesteps, part) for key, value in block.items()}
    if timesteps and "total_timesteps" in block:
        changed["total_timesteps"] = timesteps
    for key in ("every", "episodes"):
        if key in block:
            changed[key], rest = divmod(int(block[key]), part)
            if rest:
                raise SystemExit(f"--part {part}: evaluation.{key} is {block[key]}, which cannot be cut into {part}")
    return changed


def measure(suite: Suite, runs: Path, timesteps: int | None, part: int, options: Sequence[str]) -> list[Speed]:
    """Make runs, or what is missing of them, and return how fast they were.

    Args:
        suite: which.
        runs: folder of results, in which the run directories are.
        timesteps: of a run; ``None`` for all.
        part: number of parts that an evaluation is cut into.
        options: of ``maxent-onpolicy bench``.

    Raises:
        SystemExit: if a run failed, or is too short.
    """
    content = shortened(read_yaml(suite.path), timesteps, part)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / suite.path.name
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        found = make_trials(str(file), runs, ["--no-tensorboard", *options])
    return [speed_of(run) for run in found if run.completed]


def main(arguments: list[str] | None = None) -> None:
    """Measure a suite; what is no option here goes to ``maxent-onpolicy bench``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budgets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="name or file of a suite")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of committed runs")
    parser.add_argument("--runs", type=Path, default=Path("my_results/budgets"), help="folder of parts of runs")
    parser.add_argument("--output", type=Path, default=Path("results/budgets"), help=f"folder of {_FILE}")
    parser.add_argument("--timesteps", type=int, help="of a part; more than its evaluation interval (default: all)")
    parser.add_argument("--part", type=int, default=1, help="cut evaluations into so many parts (default: 1)")
    options, rest = parser.parse_known_args(arguments)
    if options.part < 1:
        parser.error(f"--part: expected a number of at least 1, got {options.part}")
    suite = load_suite(find_suite(options.suite))
    path = options.output / _FILE
    speeds = read(path) if path.is_file() else []
    if options.timesteps or rest:
        made = measure(suite, options.runs, options.timesteps, options.part, rest)
        speeds = sorted([*(row for row in speeds if row.suite != suite.name), *made])
        write_rows(path, Speed._fields, speeds)
    hours = core_hours(suite, options.results, speeds)
    print(f"budget of {suite.name}: {hours:.3g} core-hours for {len(suite.runs)} runs")


if __name__ == "__main__":
    main()
