"""A run killed by SIGKILL, and resumed, ends as one that was left alone: bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
from killing import Training, assert_ends_like, differences, leavings
from resume_cases import CASES, ON_POLICY

from maxent_onpolicy.cli.registry import ALGORITHMS
from maxent_onpolicy.evaluation.runs import RunDirectory

pytestmark = pytest.mark.timeout(900)


def test_every_algorithm_is_killed() -> None:
    ours = {name for name, entry in ALGORITHMS.items() if entry.module.startswith("maxent_onpolicy.algorithms")}
    assert ours <= {case.arguments[0] for case in CASES.values()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_runs_that_are_left_alone_are_equal(server, whole, tmp_path, case):
    """Otherwise, no comparison with a killed one means anything."""
    assert_ends_like(Training(server, tmp_path, CASES[case].arguments, CASES[case].every), whole(case).leavings)


@pytest.mark.slow
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
def test_killed_where_no_code_of_ours_started_it(whole, tmp_path):
    """The same from the command line, with the whole process group killed from outside."""
    expected = whole("every option").leavings
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
