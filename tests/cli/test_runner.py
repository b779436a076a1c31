"""One run: trained, evaluated, stopped, resumed exactly, and failed as it should."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import environment, wait_until

from maxent_onpolicy import MaxEntPPO
from maxent_onpolicy.cli import runner
from maxent_onpolicy.cli.build import make_training_env
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.jobs import Job
from maxent_onpolicy.cli.lock import locked
from maxent_onpolicy.cli.runner import Reporter, Stopped, execute
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.envs.make import BACKENDS
from maxent_onpolicy.evaluation.runs import RunDirectory

SETTINGS: dict[str, Any] = {
    "total_timesteps": 1024,
    "n_envs": 2,
    "hyperparameters": {"n_steps": 64, "batch_size": 64, "n_epochs": 2, "tau": 0.02, "device": "cpu"},
    "environment": {"normalize_observation": True, "normalize_reward": True},
    "evaluation": {"every": 300, "episodes": 2},
}


def make_run(path: Path, algorithm: str = "MaxEntPPO", env_id: str = "CartPole-v1", **settings: Any) -> RunDirectory:
    who = {"suite": "s", "label": algorithm, "algorithm": algorithm, "env_id": env_id, "seed": 1}
    return RunDirectory.create(path, make_config({**SETTINGS, **settings}, "test", **who).to_json(), {})


def learning(run: RunDirectory) -> pd.DataFrame:
    """What was logged, without what depends on the clock."""
    frame = run.read_train()
    return frame.drop(columns=[name for name in frame if name == "wall_seconds" or name.startswith("time/")])


def stop_soon(timesteps: int, results: object) -> None:
    """Stop a run as the system does, in the middle of an iteration."""
    if timesteps == 600:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("reference") / "seed_1")
    execute(run)
    return RunDirectory(run.path)


def test_a_run_leaves_a_complete_directory(uninterrupted):
    run = uninterrupted
    assert run.completed
    assert run.status["timesteps"] == 1024
    assert run.status["attempts"] == 1
    assert run.status["wall_seconds"] > 0
    assert run.status["started"] <= run.status["finished"]
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "eval.csv",
        "model.zip",
        "normalization.npz",
        "provenance.json",
        "status.json",
        "tensorboard",
        "train.csv",
    ]
    assert run.read_train()["timesteps"].tolist() == list(range(128, 1025, 128))
    evaluations = run.read_eval()
    assert sorted(set(evaluations["timesteps"])) == [0, 300, 600, 900, 1024]
    assert len(evaluations) == 5 * 2 * 2


def test_an_unfinished_run_without_a_checkpoint_is_said_to_begin_anew(tmp_path):
    run = make_run(tmp_path / "seed_1")
    run.write_status("interrupted", timesteps=600)
    config = make_config(SETTINGS, "test", suite="s", label="PPO", algorithm="PPO", env_id="CartPole-v1", seed=1)
    job = Job(config, run.path, prepare=lambda: RunDirectory(run.path))
    job.begin_attempt()
    assert (job.timesteps, job.done_before) == (0, 0)
    run.checkpoint.touch()
    job = Job(config, run.path, prepare=lambda: RunDirectory(run.path))
    job.begin_attempt()
    assert (job.timesteps, job.done_before) == (600, 600)


def test_without_models_nothing_but_text_is_left(tmp_path):
    run = make_run(tmp_path / "seed_1", total_timesteps=256)
    execute(run, keep_model=False, checkpoint_seconds=0)
    assert not any(path.suffix in (".zip", ".npz") for path in run.path.iterdir())


def test_a_run_stopped_by_a_signal_resumes_exactly(tmp_path, uninterrupted):
    run = make_run(tmp_path / "seed_1")

    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(evaluated=stop_soon))
    run = RunDirectory(run.path)
    assert run.status["state"] == "interrupted"
    assert run.status["timesteps"] == 640, "the iteration was finished"
    assert run.checkpoint.exists()
    execute(run)
    run = RunDirectory(run.path)
    assert run.completed
    assert run.status["attempts"] == 2
    assert not run.checkpoint.exists()
    assert (run.path / "eval.csv").read_bytes() == (uninterrupted.path / "eval.csv").read_bytes()
    pd.testing.assert_frame_equal(learning(run), learning(uninterrupted))
    assert run.read_train()["wall_seconds"].is_monotonic_increasing


def test_a_killed_run_resumes_exactly_from_its_last_checkpoint(tmp_path, uninterrupted):
    run = make_run(tmp_path / "seed_1")
    command = [sys.executable, "-m", "maxent_onpolicy.cli.worker", str(run.path), "--checkpoint-seconds", "0"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        wait_until(lambda: (run.checkpoint.exists() and len(run.read_train()) >= 3) or process.poll() is not None)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    killed = RunDirectory(run.path)
    assert killed.status["state"] == "running", "it had no time to say anything else"
    # what a kill can leave: rows beyond the checkpoint, a torn line, a temporary file
    with (run.path / "eval.csv").open("a") as file:
        file.write("990,deterministic,0,1.0,1\n990,determ")
    (run.path / ".checkpoint-abcdefgh.zip").write_bytes(b"half")
    execute(killed)
    assert (run.path / "eval.csv").read_bytes() == (uninterrupted.path / "eval.csv").read_bytes()
    pd.testing.assert_frame_equal(learning(run), learning(uninterrupted))
    assert not list(run.path.glob(".*"))


@pytest.mark.slow
def test_a_worker_that_nobody_listens_to_stops_with_a_checkpoint(tmp_path):
    run = make_run(tmp_path / "seed_1", total_timesteps=1_000_000, evaluation={"every": 1_000_000, "episodes": 1})
    process = subprocess.Popen(
        [sys.executable, "-m", "maxent_onpolicy.cli.worker", str(run.path)], env=environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(300) == 130
    stopped = RunDirectory(run.path)
    assert stopped.status["state"] == "interrupted"


def test_an_exception_makes_the_run_failed_and_says_where(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run = make_run(tmp_path / "seed_1", env_id="broken_envs:Exploding-v0", environment={"kwargs": {"steps": 100}})
    with pytest.raises(RuntimeError, match="the simulator exploded"):
        execute(run)
    status = RunDirectory(run.path).status
    assert status["state"] == "failed"
    assert status["error"].startswith("RuntimeError: the simulator exploded (broken_envs.py:")
    assert status["finished"]


def test_two_processes_cannot_run_one_directory(tmp_path):
    run = make_run(tmp_path / "seed_1")
    with locked(run.path), pytest.raises(UsageError, match="is being run by another process"):
        execute(run)
    assert RunDirectory(run.path).status["attempts"] == 0


def test_an_unreadable_checkpoint_is_not_thrown_away(tmp_path):
    run = make_run(tmp_path / "seed_1")
    run.checkpoint.write_bytes(b"no zip")
    with pytest.raises(UsageError, match=r"checkpoint.zip cannot be loaded .*--restart"):
        execute(run)
    assert run.checkpoint.read_bytes() == b"no zip"


def test_a_run_goes_on_where_it_computed_before(tmp_path, monkeypatch):
    """Not on the GPU of a computer that has one."""
    run = make_run(tmp_path / "seed_1")
    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(evaluated=stop_soon))
    devices, load = [], MaxEntPPO.load.__func__

    def loading(cls, path, env, device="auto", **kwargs):
        devices.append(device)
        return load(cls, path, env, device, **kwargs)

    monkeypatch.setattr(MaxEntPPO, "load", classmethod(loading))
    execute(RunDirectory(run.path))
    assert devices == ["cpu"]


def test_environments_on_tensors_are_where_the_model_is(monkeypatch):
    requests = []
    backend = BACKENDS["torch"]

    def making(request):
        requests.append(request)
        return backend.make(request)

    monkeypatch.setitem(BACKENDS, "torch", backend._replace(make=making))
    who = {"suite": "s", "label": "PPO", "algorithm": "PPO", "env_id": "CartPole-v1", "seed": 1}
    make_training_env(make_config({**SETTINGS, "backend": "torch"}, "test", **who))
    environment = {"kwargs": {"device": "cpu:0"}}
    make_training_env(make_config({**SETTINGS, "backend": "torch", "environment": environment}, "test", **who))
    assert [request.env_kwargs["device"] for request in requests] == ["cpu", "cpu:0"]


def test_an_environment_without_a_state_resumes_with_its_statistics_and_says_so(tmp_path, monkeypatch):
    """Some environments hold what no file can: they go on with new episodes."""
    from gymnasium.envs.classic_control import CartPoleEnv

    original = CartPoleEnv.__init__

    def with_socket(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.connection = open(os.devnull)  # noqa: SIM115

    monkeypatch.setattr(CartPoleEnv, "__init__", with_socket)
    run = make_run(tmp_path / "seed_1")
    with pytest.raises(Stopped):
        execute(run, reporter=Reporter(evaluated=stop_soon))
    counts = []
    continued = runner._continued

    def counting(*arguments: Any) -> Any:
        model = continued(*arguments)
        counts.append(model.get_vec_normalize_env().obs_rms.count)
        return model

    monkeypatch.setattr(runner, "_continued", counting)
    messages: list[str] = []
    execute(RunDirectory(run.path), reporter=Reporter(message=messages.append))
    assert "goes on with new episodes, not bit for bit" in messages[0]
    assert "connection" in messages[0]
    assert counts[0] == pytest.approx(640 + 2, abs=0.01), "every observation before, the first two among them"
    assert RunDirectory(run.path).completed


def test_a_run_that_starts_elsewhere_says_where_it_ran(tmp_path):
    run = make_run(tmp_path / "seed_1", total_timesteps=128)
    run.write_provenance({"cpu": {"model": "login node", "cores": 1}, "command": "maxent-onpolicy bench x"})
    execute(run)
    provenance = RunDirectory(run.path).provenance
    assert provenance["cpu"] != {"model": "login node", "cores": 1}
    assert provenance["command"] == "maxent-onpolicy bench x"
    assert "resumed_with" not in provenance


def test_other_code_at_resume_is_written_down(tmp_path):
    run = make_run(tmp_path / "seed_1", total_timesteps=128)
    run.write_provenance({"git": {"revision": "0" * 40, "dirty": False}})
    run.write_status("interrupted", attempts=1)
    execute(run)
    provenance = RunDirectory(run.path).provenance
    assert provenance["git"]["revision"] == "0" * 40
    assert len(provenance["resumed_with"]) == 1
    assert provenance["resumed_with"][0]["packages"]["torch"]
