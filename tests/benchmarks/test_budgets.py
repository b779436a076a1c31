"""What suites take, of committed runs and of parts of runs."""

import json

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


def test_hours_are_those_of_the_same_algorithm_and_environment(suite, tmp_path):
    speeds = [
        Speed("small", "PPO", "CartPole-v1", "PPO, slow", 3.0, 1.0),
        Speed("small", "PPO", "CartPole-v1", "PPO, fast", 5.0, 2.0),
        Speed("other", "PPO", "CartPole-v1", "PPO, slow", 1.0, 9.0),
    ]
    assert budgets.core_hours(suite, tmp_path, speeds) == pytest.approx(4 * (4 + 512 * 0.75) / 3600)
    with pytest.raises(SystemExit, match="no run is measured of PPO in CartPole-v1"):
        budgets.core_hours(suite, tmp_path, speeds[2:])


def test_committed_runs_count_before_parts(suite, tmp_path):
    for seed, (state, seconds) in enumerate([("completed", 30.0), ("completed", 50.0), ("interrupted", 9.0)]):
        folder = tmp_path / "small" / "runs" / "PPO, slow" / "CartPole-v1" / f"seed_{seed}"
        folder.mkdir(parents=True)
        config = suite.runs[0].to_json() | {"seed": seed}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "provenance.json").write_text("{}")
        (folder / "status.json").write_text(json.dumps({"state": state, "wall_seconds": seconds}))
    part = Speed("small", "PPO", "CartPole-v1", "PPO, fast", 3.0, 1.0)
    assert budgets.core_hours(suite, tmp_path, [part]) == pytest.approx(4 * 40 / 3600)


def test_a_part_of_a_run_is_measured(suite, tmp_path, capsys):
    part = ["--timesteps", "384", "--seeds", "3", "--only", "PPO, slow"]
    folders = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    budgets.write_rows(tmp_path / "budgets.csv", Speed._fields, [("other", "A", "B", "A, c", 1.0, 2.5)])
    budgets.main([str(suite.path), *folders, *part])
    found = budgets.read(tmp_path / "budgets.csv")
    assert [row[:4] for row in found] == [("other", "A", "B", "A, c"), ("small", "PPO", "CartPole-v1", "PPO, slow")]
    assert found[0][4:] == (1.0, 2.5)
    frame = next(tmp_path.glob("runs/small/runs/*/*/seed_3/train.csv")).read_text().splitlines()
    rows = [[float(number) for number in row.split(",")[:2]] for row in frame[1:]]
    assert [steps for steps, _ in rows] == [64, 128, 192, 256, 320, 384]
    assert found[1].start_seconds == pytest.approx(rows[0][1], abs=0.1)
    assert found[1].steps_per_second == pytest.approx(256 / (rows[5][1] - rows[1][1]), abs=0.1), "two intervals"
    assert "core-hours for 4 runs" in capsys.readouterr().out

    def fail(*arguments):
        raise AssertionError(f"runs were made: {arguments}")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(budgets, "measure", fail)
        budgets.main([str(suite.path), *folders])
    assert budgets.read(tmp_path / "budgets.csv") == found


def test_a_run_without_an_evaluation_is_too_short(suite, tmp_path):
    part = ["--timesteps", "128", "--seeds", "3", "--only", "PPO, slow"]
    with pytest.raises(SystemExit, match="128 steps apart; give --timesteps of more"):
        budgets.main([str(suite.path), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path), *part])
    assert not (tmp_path / "budgets.csv").exists()


def test_evaluations_are_cut_with_their_intervals():
    content = {
        "defaults": {"total_timesteps": 512, "evaluation": {"every": 128, "episodes": 2}},
        "algorithms": {"PPO": {"total_timesteps": 1024, "hyperparameters": {"n_steps": 64}}},
    }
    assert budgets.shortened(content, 96, 2) == {
        "defaults": {"total_timesteps": 96, "evaluation": {"every": 64, "episodes": 1}},
        "algorithms": {"PPO": {"total_timesteps": 96, "hyperparameters": {"n_steps": 64}}},
    }
    assert budgets.shortened(content, None, 1) == content
    with pytest.raises(SystemExit, match=r"--part 4: evaluation.episodes is 2, which cannot be cut into 4"):
        budgets.shortened(content, 96, 4)


@pytest.mark.parametrize("part", ["0", "-1"])
def test_parts_are_counted_from_one(suite, capsys, part):
    with pytest.raises(SystemExit):
        budgets.main([str(suite.path), "--part", part])
    assert f"--part: expected a number of at least 1, got {part}" in capsys.readouterr().err
