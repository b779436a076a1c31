"""Trials of settings: what is read from runs, chosen, and shown."""

import json
from pathlib import Path

import pytest

from benchmarks import tuning
from benchmarks.rows import write_rows
from benchmarks.tuning import Trial
from maxent_onpolicy.cli.suite import load_suite
from maxent_onpolicy.evaluation.ranges import load_score_ranges, normalise
from maxent_onpolicy.evaluation.runs import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
name: trials
description: two settings
seeds: [7]
defaults:
  total_timesteps: 256
  hyperparameters: {n_steps: 64, batch_size: 64, n_epochs: 1, device: cpu}
  evaluation: {every: 128, episodes: 2}
algorithms:
  "PPO, slow, but sure": {algorithm: PPO, hyperparameters: {learning_rate: 1e-4}}
  "PPO, fast": {algorithm: PPO, hyperparameters: {learning_rate: 1e-3}}
environments:
  CartPole-v1: {}
"""


def trials_of(algorithm, setting, cheetah, hopper):
    """Two seeds in two environments, whose mean over seeds and modes is what is given."""
    return [
        Trial(algorithm, setting, env_id, seed, value - 10 + shift, value + 10 + shift)
        for env_id, value in (("HalfCheetah-v5", cheetah), ("Hopper-v5", hopper))
        for seed, shift in ((100, -5), (101, 5))
    ]


def test_the_highest_mean_score_is_best_for_each_algorithm():
    trials = [
        *trials_of("PPO", "a", 3000.0, 500.0),
        *trials_of("PPO", "b", 2000.0, 1500.0),  # fewer returns in all, but a Hopper counts more
        *trials_of("TRPO", "c", 0.0, 0.0),
    ]
    found = tuning.scores(trials).set_index(["algorithm", "setting"])
    assert found["best"].to_dict() == {("PPO", "a"): False, ("PPO", "b"): True, ("TRPO", "c"): True}
    ranges = load_score_ranges()
    expected = (normalise(2000.0, "HalfCheetah-v5", ranges) + normalise(1500.0, "Hopper-v5", ranges)) / 2
    assert found.loc[("PPO", "b"), "score"] == pytest.approx(expected)
    assert found.loc[("PPO", "b"), "Hopper-v5"] == pytest.approx(1500.0)
    table = tuning.tuning_table(trials)
    assert table.text[["Algorithm", "Setting", "HalfCheetah-v5", "Hopper-v5", "Best"]].values.tolist() == [
        ["PPO", "b", "2,000", "1,500", "yes"],
        ["PPO", "a", "3,000", "500", ""],
        ["TRPO", "c", "0.00", "0.00", "yes"],
    ]
    assert "seeds 100, 101" in table.caption
    assert "PPO 2, TRPO 1" in table.caption


def test_a_setting_that_lacks_an_environment_is_not_best():
    trials = [*trials_of("PPO", "a", 9000.0, 0.0)[:2], *trials_of("PPO", "b", 0.0, 0.0)]
    assert tuning.scores(trials).set_index("setting")["best"].to_dict() == {"a": False, "b": True}
    (_, lacking) = tuning.tuning_table(trials).text[["Setting", "Hopper-v5", "Score"]].values.tolist()
    assert lacking == ["a", "–", "–"]


def test_divergences_are_averaged_where_they_are_known():
    (first, second, third, fourth) = trials_of("PPO", "a", 3000.0, 500.0)
    known = [first._replace(divergence=0.01), second._replace(divergence=0.02), third._replace(divergence=0.5), fourth]
    unknown = trials_of("TRPO", "b", 0.0, 0.0)
    (_, table) = tuning.tables([*known, *unknown])
    assert table.text.values.tolist() == [["PPO", "a", "0.015", "0.500"]]
    assert "seeds 100, 101" in table.caption
    assert [each.name for each in tuning.tables(unknown)] == ["tuning"]


@pytest.mark.parametrize("name", ["mujoco-tuning", "mujoco-tuning-long", "mujoco-tuning-networks", "mujoco-tuning-ppo"])
def test_the_committed_tables_regenerate_byte_for_byte(tmp_path, name):
    folder = ROOT / "results" / name
    for table in tuning.tables(tuning.read(folder / "tuning.csv")):
        table.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (folder / "tables").iterdir()}
    for path in sorted((folder / "tables").iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_a_trial_is_read_from_its_run(tmp_path, monkeypatch):
    suite = tmp_path / "trials.yaml"
    suite.write_text(SUITE)
    output, runs = tmp_path / "out", tmp_path / "runs"
    status = tuning.bench([str(suite), "--results", str(runs), "--no-model", "--no-report", "--no-tensorboard"])
    assert status == 0
    found = [RunDirectory(path.parent) for path in sorted(runs.rglob("status.json"))]
    one = tuning.trial(found[0])
    assert (one.algorithm, one.env_id, one.seed) == ("PPO", "CartPole-v1", 7)
    assert {tuning.trial(each).setting for each in found} == {"slow, but sure", "fast"}
    rows = found[0].read_eval()
    last = rows[(rows["timesteps"] == rows["timesteps"].max()) & (rows["mode"] == "stochastic")]
    assert one.stochastic == pytest.approx(last["return"].mean(), abs=0.01)
    assert one.divergence == pytest.approx(found[0].read_train()["train/approx_kl"].mean(), abs=1e-5)
    with pytest.raises(SystemExit, match="does not exist"):
        tuning.main(["report", "--output", str(output)])
    elsewhere, outdated = Trial("PPO", "made elsewhere", "CartPole-v1", 7, 1.0, 2.0, 0.1), one._replace(stochastic=-1.0)
    write_rows(output / "tuning.csv", Trial._fields, [outdated, elsewhere])
    tuning.main(["run", str(suite), "--runs", str(runs), "--output", str(output)])
    assert tuning.read(output / "tuning.csv") == sorted([elsewhere, *map(tuning.trial, found)])
    monkeypatch.setattr(tuning, "bench", lambda arguments: 130)
    with pytest.raises(SystemExit):
        tuning.main(["run", str(suite), "--runs", str(runs), "--output", str(tmp_path / "part")])
    assert tuning.read(tmp_path / "part" / "tuning.csv") == sorted(map(tuning.trial, found)), "what is done is kept"


def test_without_a_completed_trial_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "bench", lambda arguments: 1)
    with pytest.raises(SystemExit):
        tuning.main(["run", "mujoco-tuning", "--runs", str(tmp_path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_runs_with_other_settings_are_no_trials(tmp_path, capsys):
    suite, runs = tmp_path / "trials.yaml", tmp_path / "runs"
    suite.write_text(SUITE)
    config = load_suite(suite).runs[0].to_json() | {"total_timesteps": 64}
    folder = runs / "trials" / "runs" / config["label"] / "CartPole-v1" / "seed_7"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "provenance.json").write_text("{}")
    (folder / "status.json").write_text(json.dumps({"state": "completed"}))
    with pytest.raises(SystemExit) as raised:
        tuning.main(["run", str(suite), "--runs", str(runs), "--output", str(tmp_path / "out")])
    assert raised.value.code == 2
    assert "other settings" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_bench_knows_goes_to_bench(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(tuning, "bench", lambda arguments: given.append(arguments) or 1)
    with pytest.raises(SystemExit):
        tuning.main(["run", "mujoco-tuning", "--runs", str(tmp_path), "--output", str(tmp_path), "--jobs", "3"])
    assert given[0][:3] == ["mujoco-tuning", "--results", str(tmp_path)]
    assert given[0][-2:] == ["--jobs", "3"]
