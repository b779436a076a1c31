"""``python -m benchmarks.tuning``: trials that a suite's settings are chosen by.

  python -m benchmarks.tuning run mujoco-tuning --output results/mujoco-tuning    train what is missing, and tabulate
  python -m benchmarks.tuning report --output results/mujoco-tuning               the table again, from tuning.csv

A suite of trials names its algorithms "ALGORITHM, SETTING". Interrupted, ``run`` goes on where it was; with
``--only 'PPO, *'`` it makes some. Trials of tuning.csv that are not made again stay in it.
"""

import argparse
from collections.abc import Iterable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.rows import read_rows, write_rows
from maxent_onpolicy.cli.main import main as command_line
from maxent_onpolicy.cli.suite import find_suite, load_suite
from maxent_onpolicy.evaluation.ranges import load_score_ranges, normalise
from maxent_onpolicy.evaluation.runs import RunDirectory, find_runs
from maxent_onpolicy.evaluation.tables import Table, number

_MODES = ("deterministic", "stochastic")
_FILE = "tuning.csv"
_DIVERGENCE = "train/approx_kl"
_MISUSE = 2  # exit status of a mistake


class Trial(NamedTuple):
    """What one run of a trial came to.

    Attributes:
        algorithm: that the setting is for.
        setting: that is tried.
        env_id: environment.
        seed: of the run.
        deterministic: final return (raw reward) of the likeliest actions, mean over episodes.
        stochastic: and of sampled ones.
        divergence: of an update from the policy that took the steps (``train/approx_kl``), mean over the run; NaN
            if the algorithm does not report it or nobody kept it.
    """

    algorithm: str
    setting: str
    env_id: str
    seed: int
    deterministic: float
    stochastic: float
    divergence: float = nan


def run(suite: str, runs: Path, path: Path, options: Sequence[str] = ()) -> None:
    """Make the trials that are missing and write what they came to, beside the others that the file has.

    Args:
        suite: of trials.
        runs: folder of results, in which their run directories are.
        path: the CSV file.
        options: further ones of ``maxent-onpolicy bench``.

    Raises:
        SystemExit: if a run failed or all were interrupted; the file then has those that are completed.
    """
    status, found = _trials(suite, runs, ["--no-tensorboard", *options])
    earlier = read(path) if path.is_file() else []
    known = {row[:4]: row for row in [*earlier, *(trial(each) for each in found if each.completed)]}
    if known:
        write_rows(path, Trial._fields, sorted(known.values()))
    if status:
        raise SystemExit(status)


def make_trials(suite: str, runs: Path, options: Sequence[str] = ()) -> list[RunDirectory]:
    """Make the trials that are missing, and return the runs of all.

    Args:
        suite: of trials.
        runs: folder of results, in which their run directories are.
        options: further ones of ``maxent-onpolicy bench``.

    Raises:
        SystemExit: if a run failed.
    """
    status, found = _trials(suite, runs, options)
    if status:
        raise SystemExit(status)
    return found


def bench(arguments: Sequence[str]) -> int:
    """Run ``maxent-onpolicy bench``, which says what a mistake was, and return its exit status."""
    return command_line(["bench", *arguments])


def _trials(suite: str, runs: Path, options: Sequence[str]) -> tuple[int, list[RunDirectory]]:
    """The exit status of ``maxent-onpolicy bench``, and the runs that are there.

    Raises:
        SystemExit: if it was asked for what it does not do, or runs are there that have other settings.
    """
    status = bench([suite, "--results", str(runs), "--no-model", "--no-report", *options])
    if status == _MISUSE:
        raise SystemExit(status)
    folder = runs / load_suite(find_suite(suite)).name
    return status, find_runs(folder)[0] if folder.is_dir() else []


def trial(done: RunDirectory) -> Trial:
    """Return what a completed run came to: a label is the algorithm and, behind the first comma, the setting."""
    algorithm, _, setting = done.label.partition(", ")
    last = done.read_eval()
    last = last[last["timesteps"] == last["timesteps"].max()]
    returns = (round(float(last[last["mode"] == mode]["return"].mean()), 2) for mode in _MODES)
    train = done.read_train()
    divergence = float(train[_DIVERGENCE].mean()) if _DIVERGENCE in train else nan
    return Trial(algorithm, setting, done.env_id, done.seed, *returns, round(divergence, 5))


def read(path: Path) -> list[Trial]:
    """Return the trials of a CSV file."""
    return [Trial(*row[:3], int(row[3]), *map(float, row[4:])) for row in read_rows(path)]


def scores(trials: Iterable[Trial]) -> pd.DataFrame:
    """Return a row a setting: its mean return in each environment, over seeds and both modes, and its ``score``.

    The score is the mean of normalised returns over environments. The column ``best`` says which setting of an
    algorithm has the highest.
    """
    rows = pd.DataFrame(trials, columns=list(Trial._fields))
    rows["return"] = rows[list(_MODES)].mean(axis=1)
    means = rows.pivot_table(index=["algorithm", "setting"], columns="env_id", values="return", aggfunc="mean")
    ranges = load_score_ranges()
    normalised = pd.DataFrame({env_id: normalise(means[env_id].to_numpy(), env_id, ranges) for env_id in means})
    means["score"] = normalised.mean(axis=1, skipna=False).to_numpy()
    best = means["score"].groupby(level="algorithm").transform("max")
    means["best"] = means["score"] == best
    return means.reset_index()


def tuning_table(trials: Sequence[Trial]) -> Table:
    """All trials, and which were best."""
    found = scores(trials)
    found = found.sort_values(["algorithm", "score"], ascending=[True, False], ignore_index=True)
    env_ids = [column for column in found if column not in ("algorithm", "setting", "score", "best")]
    text = found.astype(object).copy()
    for column in env_ids:
        text[column] = [number(value) for value in found[column]]
    text["score"] = ["–" if isnan(value) else f"{value:.3f}" for value in found["score"]]
    text["best"] = ["yes" if each else "" for each in found["best"]]
    seeds = sorted({each.seed for each in trials})
    counts = found.groupby("algorithm").size()
    caption = (
        f"Final return (raw reward), mean over both modes and the seeds {', '.join(map(str, seeds))}, which the "
        "suite that is tuned does not have, and the mean score over environments, which settings are chosen by. "
        f"Trials: {', '.join(f'{name} {count}' for name, count in counts.items())}."
    )
    headings = {name: name.capitalize() for name in found if name not in env_ids}
    return Table("tuning", "Trials", caption, found, text.rename(columns=headings))


def divergence_table(trials: Iterable[Trial]) -> Table:
    """How far updates went, a row a setting that says so: mean over runs and seeds in each environment."""
    rows = pd.DataFrame([each for each in trials if not isnan(each.divergence)], columns=list(Trial._fields))
    found = rows.pivot_table(index=["algorithm", "setting"], columns="env_id", values="divergence", aggfunc="mean")
    text = found.map(lambda value: "–" if isnan(value) else f"{value:.3f}").reset_index()
    caption = (
        "Approximate divergence of an update from the policy that took the steps (`train/approx_kl`), mean over the "
        f"updates of a run and the seeds {', '.join(map(str, sorted(set(rows['seed']))))}."
    )
    headings = {name: name.capitalize() for name in found.index.names}
    return Table("divergence", "Divergence of updates", caption, found.reset_index(), text.rename(columns=headings))


def tables(trials: Sequence[Trial]) -> list[Table]:
    """All tables of trials: of divergences only where some are known."""
    known = any(not isnan(each.divergence) for each in trials)
    return [tuning_table(trials), *([divergence_table(trials)] if known else [])]


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("run", help="make the trials that are missing")
    train.add_argument("suite", help="of trials")
    train.add_argument("--runs", type=Path, default=Path("my_results"), help="folder of their run directories")
    for command in (train, commands.add_parser("report", help="write the table of tuning.csv")):
        command.add_argument("--output", type=Path, required=True, help=f"folder of {_FILE} and tables")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what it does not know goes to ``maxent-onpolicy bench``."""
    options, rest = parser().parse_known_args(arguments)
    path = options.output / _FILE
    if options.command == "run":
        run(options.suite, options.runs, path, rest)
    elif rest:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; python -m benchmarks.tuning run makes it")
    (options.output / "tables").mkdir(parents=True, exist_ok=True)
    for table in tables(read(path)):
        table.write(options.output / "tables")
        print(f"table: {options.output / 'tables' / table.name}.md")


if __name__ == "__main__":
    main()
