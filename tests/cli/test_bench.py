"""A benchmark goes on when runs fail, says which did, and picks up where it was stopped."""

import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import TINY, command, environment, run_command, wait_until, write_suite

from maxent_onpolicy.cli.main import main
from maxent_onpolicy.evaluation.cells import read_cells
from maxent_onpolicy.evaluation.runs import RunDirectory, find_runs

LONG = {**TINY["defaults"], "total_timesteps": 1_000_000, "evaluation": {"every": 1_000_000, "episodes": 1}}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run a benchmark in which one run works, one always fails, one fails once, and one directory is corrupt."""
    folder = tmp_path_factory.mktemp("mixed")
    corrupt = folder / "out" / "tiny" / "runs" / "PPO" / "CartPole-v1" / "seed_1"
    corrupt.mkdir(parents=True)
    (corrupt / "config.json").write_text('{"suite": "tiny"')
    suite = write_suite(
        folder,
        seeds=[0, 1],
        environments={
            "CartPole-v1": {},
            "broken_envs:Exploding-v0": {"environment": {"kwargs": {"steps": 100}}},
            "broken_envs:Flaky-v0": {"environment": {"kwargs": {"marker": str(folder / "exploded")}}},
        },
    )
    chosen = ["--only", "CartPole-v1", "*/*/seed_0"]
    arguments = ["--results", "out", "--checkpoint-seconds", "0"]
    return folder, run_command("bench", suite, *chosen, *arguments, cwd=folder)


def test_a_failed_run_makes_the_benchmark_fail_and_is_named_with_its_last_lines(mixed):
    folder, done = mixed
    assert done.returncode == 1
    assert "failed: PPO on broken_envs:Exploding-v0, seed 0" in done.stdout
    assert "RuntimeError: the simulator exploded (broken_envs.py:" in done.stdout
    assert '|     raise RuntimeError("the simulator exploded")' in done.stdout
    assert "2 of 4 runs did not complete" in done.stdout
    run = RunDirectory(folder / "out/tiny/runs/PPO/broken_envs_Exploding-v0/seed_0")
    assert run.status["state"] == "failed"
    assert run.status["attempts"] == 2, "it was tried again once"


def test_the_other_runs_go_on(mixed):
    folder, _ = mixed
    states = {run.env_id: run.status["state"] for run in find_runs(folder / "out")[0]}
    assert states["CartPole-v1"] == "completed"
    run = RunDirectory(folder / "out/tiny/runs/PPO/CartPole-v1/seed_0")
    assert run.provenance["threads"] == 1
    assert run.provenance["command"].startswith("maxent-onpolicy bench tiny.yaml --only CartPole-v1")
    assert "resumed_with" not in run.provenance
    assert run.model.exists()


def test_a_run_that_fails_once_completes_at_its_second_attempt(mixed):
    folder, done = mixed
    run = RunDirectory(folder / "out/tiny/runs/PPO/broken_envs_Flaky-v0/seed_0")
    assert run.completed
    assert run.status["attempts"] == 2
    assert "will retry   PPO on broken_envs:Flaky-v0, seed 0: RuntimeError" in done.stdout
    assert "(attempt 2)" in done.stdout


def test_a_corrupt_directory_is_reported_and_left_alone(mixed):
    folder, done = mixed
    corrupt = folder / "out/tiny/runs/PPO/CartPole-v1/seed_1"
    assert f"corrupt: {corrupt.relative_to(folder)}: config.json cannot be read" in done.stdout
    assert "--restart discards it" in done.stdout
    assert (corrupt / "config.json").read_text() == '{"suite": "tiny"'


def test_the_benchmark_ends_with_a_table_and_the_report(mixed):
    folder, done = mixed
    assert "Environment" in done.stdout
    assert "report: out/tiny/report.html" in done.stdout
    assert (folder / "out/tiny/report.html").exists()


def test_no_line_is_longer_than_it_has_to_be(mixed):
    _, done = mixed
    for line in done.stdout.splitlines():
        assert len(line.rstrip()) <= 80 or line.startswith(("corrupt", "  |", "  Runtime", "will retry", "failed")), (
            line
        )


def test_the_cells_of_the_suite_are_written_down(mixed):
    folder, _ = mixed
    env_ids = ("CartPole-v1", "broken_envs:Exploding-v0", "broken_envs:Flaky-v0")
    assert read_cells(folder / "out" / "tiny") == {"PPO": env_ids}


def test_only_what_is_missing_runs_again(mixed, capsys, monkeypatch):
    folder, _ = mixed
    monkeypatch.chdir(folder)
    (folder / "exploded").touch()
    assert main(["bench", "tiny.yaml", "--results", "out", "--dry-run", "--restart"]) == 0
    plan = capsys.readouterr().out
    rows = {tuple(line.split()[1:3]): line.split()[4:] for line in plan.splitlines() if line.startswith("PPO")}
    assert rows["CartPole-v1", "0"] == ["skip"]
    assert rows["CartPole-v1", "1"] == ["start", "over"]
    assert rows["broken_envs:Flaky-v0", "1"] == ["start"]
    assert "4 of 6 runs to do" in plan


def test_completed_runs_are_skipped_and_other_settings_refused(mixed, capsys, monkeypatch):
    folder, _ = mixed
    monkeypatch.chdir(folder)
    one = ["bench", "tiny.yaml", "--results", "out", "--only", "PPO/CartPole-v1/seed_0", "--no-report"]
    before = sorted((path, path.stat().st_mtime_ns) for path in (folder / "out").rglob("*.json"))
    assert main(one) == 0
    assert "0 runs to do, 1 completed already" in capsys.readouterr().out
    assert main([*one, "--timesteps", "1536"]) == 2
    error = capsys.readouterr().err
    assert "out/tiny holds runs that were made with other settings" in error
    assert "evaluation.every: 256 → 512; total_timesteps: 768 → 1536" in error
    assert "--restart" in error
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (folder / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "quikc"], "did you mean 'quick'"),
        (["bench", "tiny.yaml", "--jobs", "0"], "--jobs must be at least 1"),
        (["bench", "tiny.yaml", "--seeds", "1", "1"], "--seeds must be different"),
        (["bench", "tiny.yaml", "--only", "PP"], "--only 'PP' matches no run (did you mean 'PPO'?)"),
        (["bench", "tiny.yaml", "--results", "tiny.yaml"], "--results: cannot make the directory tiny.yaml/tiny"),
        (["bench", "wrong.yaml"], "wrong.yaml: algorithms.PPO.hyperparameters: PPO has no hyperparameter 'clip_rang'"),
        (["bench", "range.yaml"], "range.yaml: PPO on CartPole-v1: `clip_range`"),
    ],
)
def test_mistakes_are_errors_before_anything_is_written(in_tmp, capsys, arguments, message):
    write_suite(in_tmp)
    for name, value in (("wrong", {"clip_rang": 0.1}), ("range", {"clip_range": -1.0})):
        suite = write_suite(in_tmp, name=name, algorithms={"PPO": {"hyperparameters": value}})
        suite.rename(in_tmp / f"{name}.yaml")
    write_suite(in_tmp)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (in_tmp / "results").exists()


def start_bench(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("bench", *arguments), cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    )


def iterating(path: Path) -> bool:
    return (path / "train.csv").exists() and (path / "train.csv").stat().st_size > 500


@pytest.mark.slow
def test_sigint_leaves_a_state_that_can_be_resumed(tmp_path):
    suite = write_suite(tmp_path, seeds=[0, 1, 2], defaults=LONG)
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    process = start_bench(tmp_path, suite, "--jobs", "1")
    wait_until(lambda: iterating(path))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "stopping: each run writes a checkpoint" in output
    assert "interrupted with 3 runs unfinished; the same command goes on from there" in output
    run = RunDirectory(path)
    assert run.status["state"] == "interrupted"
    assert run.status["timesteps"] % 128 == 0
    assert run.status["timesteps"] > 0
    assert run.checkpoint.exists()
    assert not (path.parent / "seed_1").exists()
    plan = run_command("bench", suite, "--dry-run", cwd=tmp_path).stdout
    assert f"resume from {run.status['timesteps']:,}" in plan


def grow(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.slow
def test_a_run_that_cannot_write_fails_and_the_others_go_on(tmp_path):
    """The limit on file sizes is a real write error: the small model fits, the large one does not."""
    large = {"algorithm": "PPO", "hyperparameters": {"policy_kwargs": {"net_arch": [512, 512]}}}
    suite = write_suite(tmp_path, algorithms={"Large": large, "PPO": {}})
    done = run_command("bench", suite, "--no-report", cwd=tmp_path, preexec_fn=lambda: grow(1_000_000))
    assert done.returncode == 1
    runs = {run.label: run for run in find_runs(tmp_path / "results")[0]}
    assert runs["PPO"].completed
    assert runs["Large"].status["state"] == "failed"
    assert "failed: Large on CartPole-v1, seed 0" in done.stdout
    assert "File too large" in done.stdout or "writing" in done.stdout
    assert not runs["Large"].model.exists()
    assert not list(runs["Large"].path.glob(".*")), "half a model is removed"


@pytest.mark.slow
def test_a_full_disk_fails_its_run_and_the_others_go_on(tmp_path):
    """A file system of its own, too small for the model, under one algorithm's runs."""
    full = tmp_path / "results/tiny/runs/PPO"
    full.mkdir(parents=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a file system here: {mount.stderr.strip()}")
    try:
        suite = write_suite(tmp_path, algorithms={"PPO": {}, "MaxEntPPO": {}})
        done = run_command("bench", suite, "--checkpoint-seconds", "0", cwd=tmp_path)
        assert done.returncode == 1
        assert "failed: PPO on CartPole-v1, seed 0" in done.stdout
        assert "No space left on device" in done.stdout
        runs = {run.label: run for run in find_runs(tmp_path / "results")[0]}
        assert runs["MaxEntPPO"].completed
        assert not runs["PPO"].completed
    finally:
        subprocess.run(["umount", str(full)], check=True)
    again = run_command("bench", suite, "--no-report", cwd=tmp_path)
    assert again.returncode == 0, "with space, the same command completes it"


@pytest.mark.slow
def test_a_killed_benchmark_completes_when_it_is_run_again(tmp_path):
    suite = write_suite(tmp_path, seeds=[0, 1], defaults={**TINY["defaults"], "total_timesteps": 4096})
    root = tmp_path / "results/tiny/runs/PPO/CartPole-v1"
    process = start_bench(tmp_path, suite, "--checkpoint-seconds", "0")
    wait_until(lambda: iterating(root / "seed_0") and iterating(root / "seed_1"))
    process.kill()
    process.communicate()
    # at once: the runs notice that nobody listens, write a checkpoint and end, and the new benchmark waits for that
    done = run_command("bench", suite, cwd=tmp_path)
    assert done.returncode == 0
    runs, corrupt = find_runs(root)
    assert [run.completed for run in runs] == [True, True]
    assert corrupt == []


@pytest.mark.slow
def test_a_run_killed_from_outside_is_retried_from_its_checkpoint(tmp_path):
    suite = write_suite(tmp_path, defaults={**TINY["defaults"], "total_timesteps": 4096})
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    process = start_bench(tmp_path, suite, "--checkpoint-seconds", "0", "--no-report")
    wait_until(lambda: iterating(path))
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    workers = [int(pid) for file in children for pid in file.read_text().split()]
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "will retry   PPO on CartPole-v1, seed 0: killed by SIGKILL" in output
    assert "(attempt 2)" in output
    run = RunDirectory(path)
    assert run.completed
    assert run.status["attempts"] == 2


@pytest.mark.slow
def test_a_second_sigint_kills(tmp_path):
    suite = write_suite(tmp_path, defaults={**LONG, "hyperparameters": {"n_steps": 200_000, "device": "cpu"}})
    path = tmp_path / "results/tiny/runs/PPO/CartPole-v1/seed_0"
    process = start_bench(tmp_path, suite)
    wait_until(lambda: (path / "eval.csv").exists())
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)  # the iteration takes minutes
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads((path / "status.json").read_text())["state"] == "running"
