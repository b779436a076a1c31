"""Trials that the settings of the suite ``textworld-mini`` were chosen by, from their run directories to a CSV file."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.rows import read_rows, write_rows
from benchmarks.tuning import make_trials
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.evaluation.tables import Table

SUITE = "textworld-tuning"
_MODES = ("stochastic", "deterministic")


class Trial(NamedTuple):
    """What a trial came to.

    Attributes:
        algorithm: label in the suite.
        setting: that is tried.
        sampled: share of unseen games that are won with sampled commands.
        greedy: and with the likeliest ones.
        entropy: of a token at the end of the training, nats.
    """

    algorithm: str
    setting: str
    sampled: float
    greedy: float
    entropy: float


def measure(runs: Path, path: Path, jobs: int) -> None:
    """Run the trials, as far as they are not run yet, and write what they came to.

    Args:
        runs: folder of results, in which their run directories are.
        path: the CSV file.
        jobs: how many at a time.

    Raises:
        SystemExit: if a trial failed.
    """
    found = make_trials(SUITE, runs, ["--jobs", str(jobs)])
    write_rows(path, Trial._fields, sorted(map(trial, found)))


def trial(run: RunDirectory) -> Trial:
    """Return what a completed run came to: a label is the algorithm and, behind the last comma, the setting."""
    algorithm, _, setting = run.label.rpartition(", ")
    last = run.read_eval()
    last = last[(last["timesteps"] == last["timesteps"].max()) & (last["split"] == "test")]
    sampled, greedy = (round(float(last[last["mode"] == mode]["return"].mean()), 4) for mode in _MODES)
    entropy = run.read_train()["train/entropy"].dropna()
    return Trial(algorithm, setting, sampled, greedy, round(float(entropy.iloc[-5:].mean()), 4))


def read(path: Path) -> list[Trial]:
    """Return the trials of a CSV file."""
    return [Trial(*row[:2], *map(float, row[2:])) for row in read_rows(path)]


def chosen(trials: list[Trial]) -> dict[str, Trial]:
    """Return each algorithm's best: it wins most with sampled commands, or if several do, with greedy ones."""
    return {
        name: max((each for each in trials if each.algorithm == name), key=lambda each: (each.sampled, each.greedy))
        for name in dict.fromkeys(each.algorithm for each in trials)
    }


def tuning_table(trials: list[Trial]) -> Table:
    """All trials, and which was chosen."""
    best = set(chosen(trials).values())
    text = [
        [*each[:2], *(f"{value:.3f}" for value in each[2:4]), f"{each.entropy:.2f}", "yes" if each in best else ""]
        for each in trials
    ]
    return Table(
        "tuning",
        "Trials",
        "Three trials for each algorithm, on one seed and on the validation games, neither of which the suite uses: "
        "share of games won with sampled and with the likeliest commands, and the entropy of a token at the end, nats. "
        "The most wins with sampled commands are chosen.",
        pd.DataFrame(trials, columns=list(Trial._fields)),
        pd.DataFrame(text, columns=["Algorithm", "Setting", "Won, sampled", "Won, greedy", "Entropy", "Chosen"]),
    )
