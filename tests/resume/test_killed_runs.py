"""A run killed by SIGKILL at any moment, and resumed, ends as one that was left alone: bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import HERE, KillServer, Training, differences, kill_at_random, leavings
from resume_cases import CASES, ON_POLICY

from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.registry import ALGORITHMS
from maxent_onpolicy.evaluation.runs import RunDirectory

pytestmark = pytest.mark.timeout(900)
FAST = ("every option",)
MISUSE = 2


@pytest.fixture(scope="module")
def server() -> Iterator[KillServer]:
    with KillServer() as server:
        yield server


@pytest.fixture(scope="module")
def whole(server: KillServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], int]]:
    """What a case leaves behind when nobody kills it, and how many files it touches."""

    @cache
    def run(case: str) -> tuple[dict[str, Any], int]:
        training = Training(server, tmp_path_factory.mktemp("whole"), CASES[case].arguments)
        touched = training.finish()
        assert training.path is not None
        return leavings(training.path), touched

    return run


def assert_ends_like(training: Training, expected: dict[str, Any]) -> None:
    if training.completed():
        assert training.start().wait()[0] == MISUSE, "there is nothing to resume"
    else:
        training.finish()
    assert training.path is not None
    assert differences(expected, leavings(training.path)) == []
    assert not list(training.path.parent.glob(".*")), "a temporary directory was left"


def marked(names: Any) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in names]


def test_every_algorithm_is_killed() -> None:
    ours = {name for name, entry in ALGORITHMS.items() if entry.module.startswith("maxent_onpolicy")}
    assert ours <= {case.arguments[0] for case in CASES.values()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_runs_that_are_left_alone_are_equal(server, whole, tmp_path, case):
    """Otherwise, nothing below means anything."""
    assert_ends_like(Training(server, tmp_path, CASES[case].arguments), whole(case)[0])


@pytest.mark.parametrize("case", marked(CASES))
def test_killed_at_random_moments(server, whole, tmp_path, case):
    expected, _ = whole(case)
    rng = np.random.default_rng(sum(case.encode()))
    training = Training(server, tmp_path, CASES[case].arguments)
    hits = kill_at_random(training, rng, seconds=0.5 if case in FAST else 1.5, kills=3)
    assert hits > 0
    assert_ends_like(training, expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name, case in CASES.items() if not case.slow])
def test_killed_at_many_random_moments(server, whole, tmp_path, case):
    expected, _ = whole(case)
    rng = np.random.default_rng(sum(case.encode()) + 1)
    hits = 0
    for attempt in range(5):
        training = Training(server, tmp_path / str(attempt), CASES[case].arguments)
        hits += kill_at_random(training, rng, seconds=0.4, kills=5)
        assert_ends_like(training, expected)
    assert hits > 10


def cut_and_compare(server: KillServer, folder: Path, case: str, at: list[int], expected: dict[str, Any]) -> None:
    for cut in at:
        training = Training(server, folder / str(cut), CASES[case].arguments)
        status, _ = training.start(cut=cut).wait()
        assert status == -signal.SIGKILL
        assert_ends_like(training, expected)


def test_killed_while_files_are_written(server, whole, tmp_path):
    """Every state of the files that a kill can leave lies between two of these operations."""
    expected, touched = whole("every option")
    cut_and_compare(server, tmp_path, "every option", [touched // 2, touched - 1], expected)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_killed_at_every_file(server, whole, tmp_path, first):
    expected, touched = whole("every option")
    assert touched > 100
    cut_and_compare(server, tmp_path, "every option", list(range(first, touched + 1, 4)), expected)


@pytest.mark.slow
def test_killed_again_and_again_while_files_are_written(server, whole, tmp_path):
    """Each attempt gets a little further."""
    expected, _ = whole("every option")
    training = Training(server, tmp_path, CASES["every option"].arguments)
    for cut in (9, 61, 20):
        assert training.start(cut=cut).wait()[0] == -signal.SIGKILL
    assert_ends_like(training, expected)


def test_where_environments_cannot_be_restored_a_kill_costs_a_rollout_at_most(server, tmp_path):
    steps, kills, rollout, evaluation = tmp_path / "steps", 0, 64, 2 * 8
    checkpoint, resets = b"", 1  # whoever is killed before its first checkpoint leaves no trace in the statistics
    arguments = ("PPO", "killed_envs:Held-v0", *ON_POLICY, "--env-kwarg", f"steps={steps}", "--eval-every", "512")
    training = Training(server, tmp_path, (*arguments, "--normalize-observation"))
    for cut in (70, 23):
        status, _ = training.start(cut=cut).wait()
        assert status == -signal.SIGKILL
        assert training.path is not None
        written = (training.path / "checkpoint.zip").read_bytes()
        resets += written != checkpoint
        checkpoint = written
        kills += 1
    training.finish()
    lost = steps.stat().st_size - 512 - 2 * evaluation
    assert 0 < lost <= kills * rollout
    assert training.path is not None
    run = RunDirectory(training.path)
    assert run.read_train()["timesteps"].tolist() == list(range(64, 513, 64))
    assert sorted(set(run.read_eval()["timesteps"])) == [0, 512]
    assert "goes on with new episodes, not bit for bit" in (tmp_path / "log.txt").read_text()
    assert leavings(run.path)["generators"][".normalization.0.observation.count"] == repr(512 + 2 * resets + 1e-4)


@pytest.mark.slow
def test_seeds_that_are_trained_together_are_killed_together(server, tmp_path):
    """Their last checkpoints are of different moments."""
    settings = {
        "total_timesteps": 512,
        "n_envs": 2,
        "hyperparameters": {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu"},
        "environment": {"normalize_observation": True},
        "evaluation": {"every": 150, "episodes": 1},
    }
    seeds = (1, 2)

    def execute(folder: str, cut: int | None = None) -> tuple[list[dict[str, Any]], int]:
        runs = [tmp_path / folder / "results" / str(seed) for seed in seeds]
        for seed, path in zip(seeds, runs, strict=True):
            if not path.exists():
                who = {"suite": "s", "label": "x", "algorithm": "MaxEntPPO", "env_id": "CartPole-v1", "seed": seed}
                RunDirectory.create(path, make_config(settings, "test", **who).to_json(), {})
        status, touched = server.start(tmp_path / folder, HERE / "seeds_together.py", cut=cut).wait()
        assert status == (0 if cut is None else -signal.SIGKILL)
        return [leavings(path) for path in runs] if cut is None else [], touched

    expected, touched = execute("whole")
    for cut in (touched // 4, touched // 2, 3 * touched // 4):
        execute(str(cut), cut)
        found, _ = execute(str(cut))
        assert [differences(one, other) for one, other in zip(expected, found, strict=True)] == [[], []]


@pytest.mark.slow
def test_killed_where_no_code_of_ours_started_it(whole, tmp_path):
    """The same from the command line, with the whole process group killed from outside."""
    expected, _ = whole("every option")
    command = [sys.executable, "-m", "maxent_onpolicy", "train"]
    new = [*CASES["every option"].arguments, "--results", str(tmp_path / "results"), "--checkpoint-seconds", "0"]
    path = tmp_path / "results/local/runs/MaxEntPPO/CartPole-v1/seed_3"
    process = subprocess.Popen([*command, *new], start_new_session=True)
    while not (path / "checkpoint.zip").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert subprocess.run([*command, "--resume", str(path)], check=False).returncode == 0
    assert differences(expected, leavings(path)) == []
