"""Launchers refuse what they cannot do, and hand to SLURM what the user asked for."""

import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import write_suite

from maxent_onpolicy.cli.jobs import Job
from maxent_onpolicy.cli.launchers import record
from maxent_onpolicy.cli.launchers.remote import RemoteQueue, Tail
from maxent_onpolicy.cli.lock import locked, wait_until_free
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.cli.worker import MARK
from maxent_onpolicy.evaluation.runs import RunDirectory

HERE = ["--launcher", "submitit", "--time", "5", "--launcher-option", "cluster=local"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "submitt"], "unknown --launcher 'submitt' (did you mean 'submitit'?)"),
        (["--cpus", "2"], "--cpus is for --launcher submitit or ray, not for local"),
        (["--launcher-option", "address=auto"], "--launcher local has no options, got address"),
        (["--cpus", "0"], "--cpus must be at least 1"),
        (["--gpus", "-1"], "--gpus must not be negative"),
    ],
)
def test_mistakes_name_the_option(in_tmp, capsys, arguments, message):
    assert main(["bench", str(write_suite(in_tmp)), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (in_tmp / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "submitit"], "--launcher submitit needs --time MINUTES"),
        ([*HERE[:4]], "there is no SLURM here (no `srun`); --launcher-option cluster=local tries"),
        ([*HERE, "cluster=slrm"], "cluster=slrm (did you mean 'slurm'?)"),
        ([*HERE, "slurm_qso=low"], "--launcher-option slurm_qso (did you mean 'slurm_qos'?): Unknown argument 'qso'"),
        ([*HERE, "nodes=x"], "--launcher-option nodes: Parameter \"nodes\" expected type <class 'int'>"),
        ([*HERE, "--gpus", "0.5"], "--gpus 0.5: a cluster gives whole GPUs only"),
        ([*HERE, "qos"], "--launcher-option expects key=value, got 'qos'"),
    ],
)
def test_submitits_complaints_become_ours(in_tmp, capsys, monkeypatch, arguments, message):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(in_tmp))
    assert main(["bench", str(write_suite(in_tmp)), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (in_tmp / "results" / "tiny" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "3"], "--time is for --launcher submitit, not for ray"),
        (["--launcher-option", "adress=x"], "unknown key 'adress' (did you mean 'address'?)"),
        (["--launcher-option", "address=127.0.0.1:1"], "cannot connect to Ray at 127.0.0.1:1: "),
    ],
)
def test_what_ray_cannot_do_is_said(in_tmp, capsys, arguments, message):
    pytest.importorskip("ray")
    assert main(["bench", str(write_suite(in_tmp)), "--launcher", "ray", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("launcher", "package", "extra"), [("ray", "ray", "ray"), ("submitit", "submitit", "slurm")])
def test_a_missing_package_is_named_with_its_extra(in_tmp, capsys, monkeypatch, launcher, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["bench", str(write_suite(in_tmp)), "--launcher", launcher]) == 2
    assert f"pip install 'maxent-onpolicy[{extra}]'" in capsys.readouterr().err


def test_help_teaches_clusters(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = capsys.readouterr().out.partition("usage:")[0]
    assert "bench quick --launcher submitit --time 240 --detach" in text
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.fixture
def slurm(in_tmp, monkeypatch) -> Path:
    """A SLURM that writes down what it is told: commands of its names on PATH; jobs wait for ever."""
    pytest.importorskip("submitit")
    folder = in_tmp / "slurm"
    folder.mkdir()
    commands = {
        "srun": "",
        "sbatch": f'cp "$1" {folder}/script.sh; echo submitted >> {folder}/calls; echo "Submitted batch job 4711"',
        "sacct": f'echo "JobID|State|NodeList"; for i in "" _0 _1; do echo "4711$i|$(cat {folder}/state)|"; done',
        "scancel": f"echo scancel $@ >> {folder}/calls; echo CANCELLED > {folder}/state",
    }
    for name, body in commands.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (folder / "state").write_text("PENDING")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def submit(*arguments: str) -> int:
    options = ["--launcher", "submitit", "--time", "240", "--detach", "--no-report"]
    return main(["bench", "tiny.yaml", *options, *arguments])


def test_slurm_gets_an_array_with_what_was_asked_for(in_tmp, slurm, capsys):
    write_suite(in_tmp, seeds=[0, 1])
    wanted = ["--partition", "gpu", "--cpus", "2", "--memory", "4", "--gpus", "1", "--jobs", "7"]
    assert submit(*wanted, "--launcher-option", "slurm_qos=low") == 0
    script = (slurm / "script.sh").read_text()
    for line in (
        "--partition=gpu",
        "--time=240",
        "--cpus-per-task=2",
        "--mem=4GB",
        "--gpus-per-node=1",
        "--qos=low",
        "--array=0-1%2",
        "--job-name=tiny",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}\n" in script
    out = capsys.readouterr().out
    assert "tiny: 2 runs to do; SLURM, 240 min each" in out
    assert "submitted 2 runs as jobs 4711_0 and 4711_1; logs in results/tiny/jobs/" in out
    assert "the same command shows what is there" in out


def test_what_waits_in_slurm_is_not_started_a_second_time(in_tmp, slurm, capsys):
    write_suite(in_tmp, seeds=[0, 1])
    assert submit() == 0
    assert submit() == 0
    assert "2 runs are with the cluster already (job 4711_0: PENDING)" in capsys.readouterr().out
    assert (slurm / "calls").read_text() == "submitted\n"
    assert main(["bench", "tiny.yaml"]) == 2
    assert "2 runs are with the cluster, as jobs 4711_0 4711_1: cancel them (scancel)" in capsys.readouterr().err
    assert main(["bench", "tiny.yaml", "--launcher", "submitit", "--time", "9", "--timesteps", "512", "--restart"]) == 2
    assert "cancel them" in capsys.readouterr().err


def test_what_slurm_lost_is_named_and_submitted_again(in_tmp, slurm, capsys, monkeypatch):
    monkeypatch.setattr("maxent_onpolicy.cli.launchers.submitit_launcher._RESULT_SECONDS", 0.0)
    write_suite(in_tmp)
    assert submit() == 0
    (slurm / "state").write_text("NODE_FAIL")
    assert submit() == 0
    out = capsys.readouterr().out
    assert "job 4711 did not complete runs/PPO/CartPole-v1/seed_0: the job ended without a result (NODE_FAIL)" in out
    assert (slurm / "calls").read_text() == "submitted\nsubmitted\n"


class FakeHandle:
    """A job whose log and end the test writes."""

    def __init__(self, log: Path, outcome: int | str | None = None) -> None:
        self.log = log
        self.result = outcome
        self.stopped: list[bool] = []

    def outcome(self) -> int | str | None:
        return self.result

    def stop(self, kill: bool) -> None:
        self.stopped.append(kill)


class FakeDisplay:
    def __init__(self) -> None:
        self.told: list[str] = []

    def update(self) -> None: ...

    def started(self, job: Job) -> None:
        self.told.append(f"started {job.attempts} at {job.timesteps}")

    def finished(self, job: Job) -> None:
        self.told.append(f"{job.state}: {job.error}")

    def message(self, text: str) -> None:
        self.told.append(text)


def make_job(path: Path) -> Job:
    run = SimpleNamespace(path=path, status={"timesteps": 0}, checkpoint=path / "checkpoint.zip")
    config = SimpleNamespace(name="PPO on X, seed 0", total_timesteps=100)
    return Job(config, path, lambda: run)  # type: ignore[arg-type, return-value]


def test_a_lost_job_is_handed_over_once_more_and_then_fails(tmp_path):
    log = tmp_path / "log"
    display = FakeDisplay()

    def submit(batch):
        with log.open("a") as file:
            file.write(MARK + json.dumps({"event": "started", "timesteps": 7}) + "\n")
        return [FakeHandle(log, "the node failed") for _ in batch]

    job = make_job(tmp_path)
    RemoteQueue([job], submit, 1, display, poll_seconds=0).run()
    once = ["started 1 at 7", "waiting: the node failed"]
    assert display.told == [*once, "started 2 at 7", "failed: the node failed"]


def test_a_job_that_is_queued_again_is_told_and_starts_again(tmp_path):
    log = tmp_path / "log"
    events: list[dict[str, object]] = [{"event": "started", "timesteps": 0}, {"event": "stopped"}]
    events += [{"event": "started", "timesteps": 64}, {"timesteps": 100, "return": 1.5}]
    display = FakeDisplay()

    def submit(batch):
        log.write_text("".join(f"{MARK}{json.dumps(event)}\n" for event in events) + "half a li")
        return [FakeHandle(log, 0) for _ in batch]

    job = make_job(tmp_path)
    queue = RemoteQueue([job], submit, 1, display, poll_seconds=0)
    monkey = FakeHandle(log, 0)
    queue.submit = lambda batch: [monkey]
    queue._hand_over()
    submit([job])
    queue.run()
    assert display.told[0] == "started 1 at 0"
    assert display.told[1].startswith("queued again PPO on X, seed 0")
    assert display.told[2:] == ["started 1 at 64", "completed: None"]
    assert job.mean_return == 1.5


def test_a_refusal_fails_its_runs_once_others_are_under_way(tmp_path):
    first, second = make_job(tmp_path / "a"), make_job(tmp_path / "b")
    display = FakeDisplay()
    handle = FakeHandle(tmp_path / "log")

    def submit(batch):
        if batch == [second]:
            handle.result = 0
            raise UsageError("the cluster refused the jobs: no such partition")
        return [handle]

    queue = RemoteQueue([first, second], submit, 2, display, poll_seconds=0)
    queue.limit = 1
    queue._hand_over()
    queue.limit = 2
    queue.run()
    assert (first.state, second.state) == ("completed", "failed")
    assert second.error == "the cluster refused the jobs: no such partition"


def test_lines_are_read_as_they_come_and_never_in_halves(tmp_path):
    tail = Tail(tmp_path / "log")
    assert tail.lines() == []
    (tmp_path / "log").write_bytes(b"one\ntw")
    assert tail.lines() == ["one"]
    with (tmp_path / "log").open("ab") as file:
        file.write("o\näö\n".encode())
    assert tail.lines() == ["two", "äö"]


def test_the_record_survives_nonsense_and_forgets_what_it_is_told_to(tmp_path):
    kept = record.Record(tmp_path)
    assert kept.read() == {}
    submission = record.Submission("slurm", "1_0", "folder", "log")
    kept.add({tmp_path / "runs" / "a": submission, tmp_path / "runs" / "b": submission})
    kept.remove([tmp_path / "runs" / "a"])
    assert kept.read() == {(tmp_path / "runs" / "b").resolve(): submission}
    kept.path.write_text('{"runs/a": 3}')
    assert kept.read() == {}


def test_waiting_for_a_lock_ends_with_it_or_with_patience(tmp_path):
    assert wait_until_free(tmp_path, 0.0)
    with locked(tmp_path):
        assert not wait_until_free(tmp_path, 0.0)


def test_a_completed_run_is_not_run_again(tmp_path):
    """A job that waited in a queue may find its run done."""
    from maxent_onpolicy.cli.worker import main as worker

    config = {"suite": "s", "label": "PPO", "algorithm": "PPO", "env_id": "X", "seed": 0}
    rest = {"total_timesteps": 1, "hyperparameters": {}, "evaluation": {}}
    run = RunDirectory.create(tmp_path / "seed_0", {**config, **rest}, {})
    run.write_status("completed", attempts=1)
    import subprocess

    command = [sys.executable, "-m", worker.__module__, str(run.path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert RunDirectory(run.path).status["attempts"] == 1
