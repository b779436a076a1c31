"""Runs that are trained together leave what each would have left alone."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import run_command, write_suite

from maxent_onpolicy import PPO, make_vec_env, train_seeds
from maxent_onpolicy.cli import runner, worker
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.jobs import Job, hear
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.runner import Reporter, Stopped, execute
from maxent_onpolicy.cli.together import put_together
from maxent_onpolicy.engine.packed import stacked
from maxent_onpolicy.evaluation.runs import RunDirectory, find_runs

SETTINGS: dict[str, Any] = {
    "total_timesteps": 1024,
    "n_envs": 2,
    "hyperparameters": {"n_steps": 64, "batch_size": 64, "n_epochs": 2, "device": "cpu"},
    "environment": {"normalize_observation": True, "normalize_reward": True},
    "evaluation": {"every": 300, "episodes": 2},
}
OPTIONS = {"checkpoint_seconds": 0.0, "keep_model": True, "threads": None}
SEEDS = (1, 2, 3)


def config_of(seed: int, **settings: Any) -> Any:
    who = {"suite": "s", "label": "MaxEntPPO", "algorithm": "MaxEntPPO", "env_id": "CartPole-v1", "seed": seed}
    return make_config({**SETTINGS, **settings}, "test", **who)


def make_run(folder: Path, seed: int, **settings: Any) -> RunDirectory:
    return RunDirectory.create(folder / f"seed_{seed}", config_of(seed, **settings).to_json(), {})


def make_job(seed: int, label: str = "MaxEntPPO", env_id: str = "CartPole-v1", **settings: Any) -> Job:
    who = {"suite": "s", "label": label, "algorithm": "MaxEntPPO", "env_id": env_id, "seed": seed}
    config = make_config({**SETTINGS, **settings}, "test", **who)
    return Job(config, Path(f"{label}/{env_id}/seed_{seed}"), lambda: RunDirectory(Path()))


def learning(run: RunDirectory) -> pd.DataFrame:
    """What was logged, without what depends on the clock."""
    frame = run.read_train()
    return frame.drop(columns=[name for name in frame if name == "wall_seconds" or name.startswith("time/")])


def assert_same(run: RunDirectory, expected: RunDirectory) -> None:
    assert (run.path / "eval.csv").read_bytes() == (expected.path / "eval.csv").read_bytes()
    pd.testing.assert_frame_equal(learning(run), learning(expected), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    folder = tmp_path_factory.mktemp("alone")
    runs = [make_run(folder, seed) for seed in SEEDS]
    for run in runs:
        execute(run)
    return runs


def test_runs_trained_together_are_those_trained_alone(tmp_path, alone, capsys):
    runs = [make_run(tmp_path, seed) for seed in SEEDS]

    code = worker._execute_together([run.path for run in runs], OPTIONS)

    assert code == worker.COMPLETED
    for run, expected in zip(runs, alone, strict=True):
        assert RunDirectory(run.path).completed
        assert sorted(path.name for path in run.path.iterdir()) == sorted(p.name for p in expected.path.iterdir())
        assert_same(run, expected)
        size, usual = ((each.path / "model.zip").stat().st_size for each in (run, expected))
        assert size < 1.05 * usual
    told = [json.loads(line.removeprefix(worker.MARK)) for line in capsys.readouterr().out.splitlines()]
    assert {(each["run"], each["outcome"]) for each in told if "outcome" in each} == {(0, 0), (1, 0), (2, 0)}


@pytest.mark.slow
def test_runs_at_different_points_go_on_together_exactly(tmp_path, alone):
    runs = [make_run(tmp_path, seed) for seed in SEEDS]

    def stop_soon(timesteps: int, results: object) -> None:
        if timesteps == 300:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        execute(runs[1], reporter=Reporter(evaluated=stop_soon))
    stopped_at = RunDirectory(runs[1].path).status["timesteps"]
    execute(runs[2])

    code = worker._execute_together([run.path for run in runs], OPTIONS)

    assert 0 < stopped_at < 1024
    assert code == worker.COMPLETED
    for run, expected in zip(runs, alone, strict=True):
        assert_same(run, expected)


def test_all_runs_stop_with_a_checkpoint_and_go_on_exactly(tmp_path, alone, monkeypatch):
    runs = [make_run(tmp_path, seed) for seed in SEEDS]
    tell = worker._tell

    def stop_late(timesteps: int, mean_return: float | None, **which: int) -> None:
        tell(timesteps, mean_return, **which)
        if which["run"] == 1 and timesteps >= 300:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "ProgressCallback", partial(runner.ProgressCallback, every_seconds=0.0))
        patch.setattr(worker, "_tell", stop_late)
        assert worker._execute_together([run.path for run in runs], OPTIONS) == worker.INTERRUPTED
    stopped = [RunDirectory(run.path) for run in runs]
    assert [run.status["state"] for run in stopped] == ["interrupted"] * 3
    assert all(run.checkpoint.exists() and 0 < run.status["timesteps"] < 1024 for run in stopped)

    assert worker._execute_together([run.path for run in runs], OPTIONS) == worker.COMPLETED

    for run, expected in zip(runs, alone, strict=True):
        assert_same(run, expected)


def test_progress_keeps_no_model_from_common_rollouts(monkeypatch):
    common, told = [], []
    collect = stacked.collect_all
    monkeypatch.setattr(stacked, "collect_all", lambda requests: common.append(len(requests)) or collect(requests))
    reporter = Reporter(progress=lambda timesteps, mean_return: told.append(timesteps))

    train_seeds(
        PPO,
        "MlpPolicy",
        lambda seed: make_vec_env("CartPole-v1", 4, seed, "torch", device="cpu"),
        [1, 2],
        256,
        callbacks=lambda model: runner.ProgressCallback(reporter, every_seconds=0.0),
        n_steps=32,
        batch_size=64,
        n_epochs=1,
        device="cpu",
    )

    assert [count for count in common if count] == [2, 2]
    assert sorted(set(told)) == [0, 128, 256]


def test_a_run_that_fails_is_told_apart_and_the_others_complete(tmp_path, alone, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    runs = [make_run(tmp_path, 1), make_run(tmp_path, 2)]
    who = {"suite": "s", "label": "PPO", "algorithm": "PPO", "env_id": "broken_envs:Exploding-v0", "seed": 7}
    broken = make_config({**SETTINGS, "environment": {"kwargs": {"steps": 200}}}, "test", **who)
    runs.insert(1, RunDirectory.create(tmp_path / "broken", broken.to_json(), {}))

    code = worker._execute_together([run.path for run in runs], OPTIONS)

    assert code == worker.FAILED
    states = [RunDirectory(run.path).status for run in runs]
    assert [status["state"] for status in states] == ["completed", "failed", "completed"]
    assert states[1]["error"].startswith("RuntimeError: the simulator exploded (broken_envs.py:")
    assert_same(runs[0], alone[0])
    assert_same(runs[2], alone[1])
    jobs = [make_job(seed) for seed in SEEDS]
    for line in capsys.readouterr().out.splitlines():
        hear(jobs, line)
    assert [job.outcome for job in jobs] == [worker.COMPLETED, worker.FAILED, worker.COMPLETED]
    assert [job.tail[-1] if job.tail else None for job in jobs] == [None, "RuntimeError: the simulator exploded", None]


def test_models_that_cannot_be_stacked_are_trained_by_themselves(tmp_path, capsys):
    shared = {"hyperparameters": {**SETTINGS["hyperparameters"], "engine": "eager"}, "total_timesteps": 256}
    runs = [make_run(tmp_path, seed, **shared) for seed in SEEDS[:2]]

    assert worker._execute_together([run.path for run in runs], OPTIONS) == worker.COMPLETED

    assert all(RunDirectory(run.path).completed for run in runs)
    assert "MaxEntPPO on CartPole-v1, seed 1: trained by itself because of `engine='eager'`" in capsys.readouterr().err


@pytest.mark.parametrize(("workers", "parts"), [(1, [4, 2]), (2, [4, 2]), (4, [2, 2, 1, 1]), (64, [1] * 6)])
def test_seeds_share_the_workers_of_a_cpu(workers, parts):
    jobs = [make_job(seed) for seed in range(4)] + [make_job(seed, label="other") for seed in range(2)]

    put_together(jobs, workers, pytest.fail)

    groups = [job.together for job in jobs]
    assert sorted((groups.count(group) for group in set(groups)), reverse=True) == parts


def test_what_does_not_go_together_is_said_and_stays_apart():
    apart = {"hyperparameters": {**SETTINGS["hyperparameters"], "engine": "eager"}}
    jobs = [make_job(1), make_job(2, label="Own", **apart), make_job(3, label="Own", **apart)]
    said: list[str] = []

    put_together(jobs, 1, said.append)

    assert [job.together for job in jobs] == [None] * 3
    assert said == ["Own on CartPole-v1: seeds are trained one by one because of `engine='eager'`"]


@pytest.mark.slow
def test_a_benchmark_of_vectorised_seeds(tmp_path):
    """One seed fails at first; it is tried again alone."""
    suite = write_suite(
        tmp_path,
        seeds=[0, 1, 2],
        environments={"broken_envs:Flaky-v0": {"environment": {"kwargs": {"marker": str(tmp_path / "exploded")}}}},
    )

    done = run_command("bench", suite, "--vectorise-seeds", "--jobs", "1", "--no-report", cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    runs = find_runs(tmp_path / "results")[0]
    assert [run.status["state"] for run in runs] == ["completed"] * 3
    assert sorted(run.status["attempts"] for run in runs) == [1, 1, 2]
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["started"] * 3
    assert sum("will retry" in line for line in lines) == 1


def test_vectorised_seeds_are_for_this_machine(in_tmp, capsys):
    suite = write_suite(in_tmp)
    assert main(["bench", str(suite), "--vectorise-seeds", "--launcher", "ray"]) == 2
    assert "--vectorise-seeds works with --launcher local, not with ray" in capsys.readouterr().err
