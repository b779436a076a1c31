"""Trials of language models: from run directories to a table that says which was chosen."""

from pathlib import Path

import pytest

from benchmarks.llm import tuning
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.suite import find_suite, load_suite
from maxent_onpolicy.evaluation.runs import RunDirectory

RESULTS = Path(__file__).resolve().parents[2] / "results" / "llm_cost"


def finished(folder: Path, label: str, sampled: tuple[float, ...], greedy: tuple[float, ...]) -> RunDirectory:
    who = {"suite": tuning.SUITE, "label": label, "algorithm": "GRPO", "env_id": "textworld", "seed": 100}
    config = make_config({"total_timesteps": 64}, "test", **who)  # type: ignore[arg-type]
    run = RunDirectory.create(folder / label, config.to_json(), {})
    rows = [
        {"timesteps": timesteps, "mode": mode, "episode": index, "return": value, "length": 2, "split": split}
        for timesteps, worse in ((0, 1.0), (64, 0.0))
        for split, here in (("train", 1.0), ("test", 0.0))
        for mode, values in (("stochastic", sampled), ("deterministic", greedy))
        for index, value in enumerate(values)
        for value in (max(value, worse, here),)  # only the last ones of the test split are to count
    ]
    run.eval_log().append(rows)
    run.train_log().append({"timesteps": step, "wall_seconds": step, "train/entropy": step / 64} for step in (32, 64))
    return run


def test_a_trial_is_its_last_evaluation_on_unseen_games(tmp_path: Path) -> None:
    run = finished(tmp_path, "GRPO, entropy bonus, coefficient 0.01", (0.0, 1.0, 0.0, 0.0), (1.0, 0.0))

    assert tuning.trial(run) == ("GRPO, entropy bonus", "coefficient 0.01", 0.25, 0.5, 0.75)


def test_the_one_that_wins_most_is_chosen(tmp_path: Path) -> None:
    trials = [
        tuning.Trial("EPO", "coefficient 0.1", 0.5, 0.75, 0.1),
        tuning.Trial("EPO", "coefficient 0.2", 0.5, 0.5, 0.2),
        tuning.Trial("GRPO", "learning rate 0.1", 0.25, 1.0, 0.3),
        tuning.Trial("GRPO", "learning rate 0.2", 0.75, 0.0, 0.4),
    ]

    assert {name: each.setting for name, each in tuning.chosen(trials).items()} == {
        "EPO": "coefficient 0.1",
        "GRPO": "learning rate 0.2",
    }
    table = tuning.tuning_table(trials)
    assert table.text["Chosen"].tolist() == ["yes", "", "", "yes"]
    path = tmp_path / "tuning.csv"
    tuning.write_rows(path, tuning.Trial._fields, trials)
    assert tuning.read(path) == trials


def test_every_algorithm_has_as_many_trials_and_none_on_what_is_reported() -> None:
    pytest.importorskip("trl")
    trials, suite = (load_suite(find_suite(name)) for name in (tuning.SUITE, "textworld-mini"))
    tried = [run.label.rpartition(", ")[0] for run in trials.runs]

    assert {label: tried.count(label) for label in tried} == dict.fromkeys({run.label for run in suite.runs}, 3)
    assert not {run.seed for run in trials.runs} & {run.seed for run in suite.runs}
    assert {run.evaluation["test_kwargs"]["split"] for run in trials.runs} == {"validation"}
    assert {run.evaluation["test_kwargs"]["split"] for run in suite.runs} == {"test"}
    for run in trials.runs:
        assert run.environment == suite.runs[0].environment


def test_the_suite_has_what_was_chosen() -> None:
    pytest.importorskip("trl")
    trials, suite = (load_suite(find_suite(name)) for name in (tuning.SUITE, "textworld-mini"))
    settings = {run.label: run.hyperparameters for run in trials.runs}
    found = tuning.read(RESULTS / "tuning.csv")

    assert {f"{each.algorithm}, {each.setting}" for each in found} == set(settings), "all were tried, and no others"
    best = {name: settings[f"{name}, {each.setting}"] for name, each in tuning.chosen(found).items()}
    assert {run.label: run.hyperparameters for run in suite.runs} == best
