"""A tiny suite on submitit's own processes and on Ray, for real: failures, kills, preemption, Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import TINY, command, environment, run_command, wait_until, write_suite

from maxent_onpolicy.cli.launchers.record import Record
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError, find_runs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")]
SUBMITIT = ["--launcher", "submitit", "--time", "5", "--launcher-option", "cluster=local"]
RAY = ["--launcher", "ray", "--jobs", "2"]
STEPS = 20_480
LONG = {**TINY["defaults"], "total_timesteps": STEPS, "evaluation": {"every": 5120, "episodes": 2}}
ENDLESS = {**LONG, "total_timesteps": 10_000_000, "evaluation": {"every": 10_000_000, "episodes": 1}}


@pytest.fixture(params=["submitit", "ray"])
def launcher(request) -> list[str]:
    pytest.importorskip(request.param)
    return {"submitit": SUBMITIT, "ray": RAY}[request.param]


@pytest.fixture(autouse=True)
def leave_no_process(tmp_path) -> Iterator[None]:
    """A test that fails must not leave a benchmark without end behind."""
    yield
    for number in processes(lambda words: str(tmp_path) in " ".join(words)):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def start(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(command("bench", *arguments), cwd=folder, env=env or environment(), **options)


def children(process: int) -> list[int]:
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for file in files for number in file.read_text().split()]


def processes(matches: Callable[[list[str]], bool]) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        if matches(words):
            found.append(int(file.parent.name))
    return found


def workers_of(path: Path) -> list[int]:
    return processes(lambda words: "maxent_onpolicy.cli.worker" in words and str(path) in words)


def iterating(path: Path) -> bool:
    return (path / "train.csv").exists() and (path / "train.csv").stat().st_size > 500


def completed(path: Path) -> bool:
    try:
        return RunDirectory(path).completed
    except RunError:
        return False


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_command("bench", write_suite(folder, defaults=LONG), "--no-report", cwd=folder).returncode == 0
    return (folder / "results/tiny/runs/PPO/CartPole-v1/seed_0/eval.csv").read_bytes()


def test_failures_are_reported_as_they_are_on_this_machine(tmp_path, launcher):
    suite = write_suite(
        tmp_path,
        environments={
            "CartPole-v1": {},
            "broken_envs:Exploding-v0": {"environment": {"kwargs": {"steps": 100}}},
            "broken_envs:Flaky-v0": {"environment": {"kwargs": {"marker": str(tmp_path / "exploded")}}},
        },
    )
    done = run_command("bench", suite, *launcher, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed: PPO on broken_envs:Exploding-v0, seed 0" in done.stdout
    assert "RuntimeError: the simulator exploded (broken_envs.py:" in done.stdout
    assert '|     raise RuntimeError("the simulator exploded")' in done.stdout
    assert "1 of 3 runs did not complete" in done.stdout
    assert "will retry   PPO on broken_envs:Flaky-v0, seed 0: RuntimeError" in done.stdout
    assert "report: results/tiny/report.html" in done.stdout
    attempts = {run.env_id: (run.completed, run.status["attempts"]) for run in find_runs(tmp_path / "results")[0]}
    assert attempts["CartPole-v1"] == (True, 1)
    assert attempts["broken_envs:Exploding-v0"] == (False, 2)
    assert attempts["broken_envs:Flaky-v0"] == (True, 2)
    wordy = ("  |", "  Runtime", "will retry", "failed")
    long = [line for line in done.stdout.splitlines() if len(line.rstrip()) > 80 and not line.startswith(wordy)]
    assert long == []
    again = run_command("bench", suite, *launcher, "--only", "CartPole-v1", "--no-report", cwd=tmp_path)
    assert again.returncode == 0
    assert "0 runs to do, 1 completed already" in again.stdout


def test_a_worker_killed_from_outside_goes_on_from_its_checkpoint(tmp_path, launcher, uninterrupted):
    suite = write_suite(tmp_path, defaults=LONG)
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    process = start(tmp_path, suite, *launcher, "--checkpoint-seconds", "0", "--no-report")
    wait_until(lambda: iterating(path))
    (worker,) = workers_of(path)
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "will retry   PPO on CartPole-v1, seed 0: killed by SIGKILL" in output
    assert "(attempt 2)" in output
    assert (path / "eval.csv").read_bytes() == uninterrupted


def test_ctrl_c_stops_the_runs_and_the_same_command_goes_on(tmp_path, launcher):
    suite = write_suite(tmp_path, seeds=[0, 1, 2], defaults=ENDLESS)
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    process = start(tmp_path, suite, *launcher)
    wait_until(lambda: iterating(path))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "stopping: each run writes a checkpoint" in output
    assert "interrupted with 3 runs unfinished; the same command goes on from there" in output
    run = RunDirectory(path)
    assert run.status["state"] == "interrupted"
    assert run.checkpoint.exists()
    assert workers_of(path) == []
    plan = run_command("bench", suite, "--dry-run", cwd=tmp_path).stdout
    assert f"resume from {run.status['timesteps']:,}" in plan
    assert Record(tmp_path / "results/tiny").read() == {}


@pytest.mark.parametrize("announced", [False, True], ids=["USR2", "TERM to every process, then USR2"])
def test_a_preempted_job_is_queued_again_and_ends_as_if_nothing_had_been(tmp_path, uninterrupted, announced):
    pytest.importorskip("submitit")
    suite = write_suite(tmp_path, defaults=LONG)
    results = tmp_path / "results/tiny"
    path = results / "runs/PPO/CartPole-v1/seed_0"
    process = start(tmp_path, suite, *SUBMITIT, "--no-report")
    wait_until(lambda: iterating(path))
    (submission,) = Record(results).read().values()
    (task,) = children(int(submission.job))
    if announced:
        for number in workers_of(path):
            os.kill(number, signal.SIGTERM)
            os.kill(number, signal.SIGUSR2)
    os.kill(task, signal.SIGUSR2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "queued again PPO on CartPole-v1, seed 0" in output
    assert "started      PPO on CartPole-v1, seed 0 from step" in output
    assert RunDirectory(path).status["attempts"] == 2
    assert (path / "eval.csv").read_bytes() == uninterrupted


def test_a_detached_submission_goes_on_alone_and_is_followed_later(tmp_path, uninterrupted):
    pytest.importorskip("submitit")
    suite = write_suite(tmp_path, defaults=LONG)
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    said = tmp_path / "said"  # submitit's own processes keep the output open, so that of a pipe would not end
    with said.open("w") as file:
        detach = command("bench", suite, *SUBMITIT, "--detach")
        subprocess.run(detach, cwd=tmp_path, env=environment(), stdout=file, check=True)
    assert "submitted 1 run as job" in said.read_text()
    wait_until(lambda: len(workers_of(path)) == 1)
    (worker,) = workers_of(path)
    os.kill(worker, signal.SIGSTOP)  # so that the second command finds it at work
    process = start(tmp_path, suite, *SUBMITIT)
    assert process.stdout is not None
    patience = threading.Timer(60, os.kill, (worker, signal.SIGCONT))
    patience.start()
    seen = next((line for line in process.stdout if "1 run is with the cluster already" in line), None)
    patience.cancel()
    os.kill(worker, signal.SIGCONT)
    output, _ = process.communicate(timeout=300)
    assert seen is not None
    assert process.returncode == 0, output
    assert "report: results/tiny/report.html" in output
    assert RunDirectory(path).status["attempts"] == 1
    assert (path / "eval.csv").read_bytes() == uninterrupted
    assert Record(tmp_path / "results/tiny").read() == {}


def test_a_ray_worker_that_dies_is_reported_and_its_run_goes_on(tmp_path, uninterrupted):
    pytest.importorskip("ray")
    suite = write_suite(tmp_path, defaults=LONG)
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    process = start(tmp_path, suite, *RAY, "--checkpoint-seconds", "0", "--no-report")
    wait_until(lambda: iterating(path))
    (worker,) = workers_of(path)
    parent = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "will retry   PPO on CartPole-v1, seed 0: Ray lost it: The worker died unexpectedly" in output
    assert completed(path)
    assert (path / "eval.csv").read_bytes() == uninterrupted


def test_ray_does_not_wait_for_what_this_machine_lacks(tmp_path):
    pytest.importorskip("ray")
    done = run_command("bench", write_suite(tmp_path), "--launcher", "ray", "--cpus", "9999", cwd=tmp_path)
    assert done.returncode == 2
    assert "--cpus 9999 is more than Ray has on this machine" in done.stderr


FAKE = {
    "srun": 'while [ "${1#-}" != "$1" ]; do [ "$1" = --output ] || [ "$1" = --error ] && shift; shift; done; exec "$@"',
    "sbatch": """
        cp "$1" {0}/script.sh; echo "Submitted batch job 4711"
        SLURM_JOB_ID=4711 SLURM_PROCID=0 setsid sh -c 'sh {0}/script.sh; echo $? >> {0}/ends' >{0}/out 2>&1 &""",
    "scontrol": """
        echo "$@" >> {0}/requeued
        SLURM_JOB_ID=4711 SLURM_PROCID=0 setsid sh -c 'sleep 2; sh {0}/script.sh' >>{0}/out 2>&1 &""",
    "sacct": 'echo "JobID|State|NodeList"; echo "4711|RUNNING|node1"',
}


@pytest.mark.parametrize("first", [(), (signal.SIGTERM,)], ids=["out of time", "preempted"])
def test_slurm_gets_a_job_back_that_it_takes_away(tmp_path, uninterrupted, first):
    """Commands of SLURM's names that run the job here; every process of it gets the signals, as from SLURM."""
    pytest.importorskip("submitit")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in FAKE.items():
        (folder / name).write_text(f"#!/bin/sh\n{body.replace('{0}', str(folder))}\n")
        (folder / name).chmod(0o755)
    suite = write_suite(tmp_path, defaults=LONG)
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    options = ["--launcher", "submitit", "--time", "60", "--no-report"]
    search = f"{folder}{os.pathsep}{os.environ['PATH']}"
    process = start(tmp_path, suite, *options, env={**environment(), "PATH": search})
    wait_until(lambda: iterating(path))
    (worker,) = workers_of(path)
    (task,) = processes(lambda words: "submitit.core._submit" in words and str(tmp_path) in " ".join(words))
    for number in first:
        os.kill(worker, number)
        os.kill(task, number)
        wait_until(lambda: workers_of(path) == [])
        assert Path(f"/proc/{task}").exists(), "it waits for what SLURM does next"
    for each in {worker, task} if not first else {task}:
        os.kill(each, signal.SIGUSR2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert (folder / "requeued").read_text() == "requeue 4711\n"
    assert "queued again PPO on CartPole-v1, seed 0" in output
    assert RunDirectory(path).status["attempts"] == 2
    assert (path / "eval.csv").read_bytes() == uninterrupted
