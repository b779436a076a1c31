"""What suites without committed runs take."""

import pytest

from benchmarks import budgets
from benchmarks.budgets import Speed
from maxent_onpolicy.cli.suite import load_suite

SUITE = """
name: small
seeds: [3, 4]
defaults:
  total_timesteps: 512
  hyperparameters: {n_steps: 64, batch_size: 64, n_epochs: 1, device: cpu}
  evaluation: {every: 128, episodes: 2}
algorithms:
  PPO, slow: {algorithm: PPO, hyperparameters: {learning_rate: 1e-4}}
  PPO, fast: {algorithm: PPO, hyperparameters: {learning_rate: 1e-3}}
environments:
  CartPole-v1: {}
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return load_suite(path)


def test_hours_are_those_of_the_same_algorithm_and_environment(suite):
    speeds = [
        Speed("small", "PPO", "CartPole-v1", "PPO, slow", 3.0, 1.0),
        Speed("small", "PPO", "CartPole-v1", "PPO, fast", 5.0, 2.0),
        Speed("other", "PPO", "CartPole-v1", "PPO, slow", 1.0, 9.0),
    ]
    assert budgets.core_hours(suite, speeds) == pytest.approx(4 * (4 + 512 * 0.75) / 3600)
    with pytest.raises(SystemExit, match="no run is measured of PPO in CartPole-v1"):
        budgets.core_hours(suite, speeds[2:])


def test_a_part_of_a_run_is_measured(suite, tmp_path, capsys):
    part = ["--timesteps", "256", "--seeds", "3", "--only", "PPO, slow"]
    budgets.write_rows(tmp_path / "budgets.csv", Speed._fields, [("other", "A", "B", "A, c", 1.0, 2.5)])
    budgets.main([str(suite.path), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path), *part])
    found = budgets.read(tmp_path / "budgets.csv")
    assert [row[:4] for row in found] == [("other", "A", "B", "A, c"), ("small", "PPO", "CartPole-v1", "PPO, slow")]
    assert found[0][4:] == (1.0, 2.5)
    frame = next(tmp_path.glob("runs/small/runs/*/*/seed_3/train.csv")).read_text().splitlines()
    ends = [[float(number) for number in row.split(",")[:2]] for row in (frame[1], frame[3])]
    assert [steps for steps, _ in ends] == [64, 192]
    assert found[1].start_seconds == pytest.approx(ends[0][1], abs=0.1)
    assert found[1].steps_per_second == pytest.approx(128 / (ends[1][1] - ends[0][1]), abs=0.1)
    assert "core-hours for 4 runs" in capsys.readouterr().out


def test_a_run_without_an_evaluation_is_too_short(suite, tmp_path):
    part = ["--timesteps", "128", "--seeds", "3", "--only", "PPO, slow"]
    with pytest.raises(SystemExit, match="128 steps apart; give --timesteps of more"):
        budgets.main([str(suite.path), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path), *part])
    assert not (tmp_path / "budgets.csv").exists()
