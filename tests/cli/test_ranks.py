"""``torchrun ... train``: several processes, one run directory."""

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import environment, wait_until

from maxent_onpolicy.cli.lock import wait_until_free
from maxent_onpolicy.evaluation.runs import RunDirectory

RUN = Path("runs") / "PPO" / "CartPole-v1" / "seed_0"
SETTINGS = (
    *("PPO", "CartPole-v1", "--timesteps", "2048", "--n-envs", "4", "--n-steps", "32", "--batch-size", "64"),
    *("--n-epochs", "2", "--normalize-observation", "--eval-every", "1024", "--eval-episodes", "2"),
)


def start(*arguments: str | Path, processes: int = 2) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "-m", "maxent_onpolicy"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run(*arguments: str | Path, processes: int = 2) -> tuple[int, str, str]:
    process = start(*arguments, processes=processes)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def learning(results: Path) -> pd.DataFrame:
    frame = RunDirectory(results / "local" / RUN).read_train()
    return frame.drop(columns=[name for name in frame if name == "wall_seconds" or name.startswith("time/")])


@pytest.mark.slow
def test_ranks_train_one_run_that_can_be_stopped_and_resumed(tmp_path: Path) -> None:
    status, output, errors = run("train", *SETTINGS, "--results", tmp_path / "through")
    assert status == 0, errors
    assert output.count("completed; model in") == 1
    assert output.count("PPO on CartPole-v1, seed 0") == 1

    process = start("train", *SETTINGS, "--results", tmp_path / "stopped", "--checkpoint-seconds", "0")
    checkpoint = tmp_path / "stopped" / "local" / RUN / "checkpoint.zip"
    wait_until(checkpoint.exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    stopped = RunDirectory(tmp_path / "stopped" / "local" / RUN)
    assert stopped.status["state"] == "interrupted"
    assert 0 < stopped.status["timesteps"] < 2048

    status, _, errors = run("train", "--resume", stopped.path)
    assert status == 0, errors
    pd.testing.assert_frame_equal(learning(tmp_path / "stopped"), learning(tmp_path / "through"), check_exact=True)

    status, _, errors = run("train", "--resume", stopped.path)
    assert status != 0
    assert errors.count("is completed; there is nothing to resume") == 1
    assert "SIGABRT" not in errors


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    status, _, errors = run("train", "PPO", "CartPole-v1", "--n-envs", "3", "--results", tmp_path)

    assert status != 0
    assert errors.count("`n_envs` counts the environments of all 2 processes together and must be a multiple of 2") == 1


@pytest.mark.slow
def test_other_commands_are_refused(tmp_path: Path) -> None:
    status, _, errors = run("report", tmp_path)

    assert status != 0
    assert "only train makes use of them, not report" in errors


@pytest.mark.slow
def test_no_process_outlives_a_killed_torchrun(tmp_path: Path) -> None:
    long = ("--timesteps", "1000000", "--eval-every", "1000000", "--checkpoint-seconds", "0")
    process = start("train", *SETTINGS, *long, "--results", tmp_path)
    path = tmp_path / "local" / RUN
    wait_until((path / "checkpoint.zip").exists)
    process.kill()
    process.wait()
    wait_until(lambda: RunDirectory(path).status["state"] == "interrupted")
    wait_until(lambda: wait_until_free(path, 0))
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.read()  # until the last of them has closed it
        stream.close()
