"""Run directories survive kills, torn lines, full disks and damaged neighbours."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from maxent_onpolicy.evaluation import runs
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.runs import CsvLog, RunDirectory, find_runs, run_path

CONFIG = {
    "suite": "s",
    "label": "PPO",
    "algorithm": "PPO",
    "env_id": "CartPole-v1",
    "seed": 0,
    "total_timesteps": 100,
    "hyperparameters": {"learning_rate": 3e-4},
    "evaluation": {"every": 50, "episodes": 2, "seed": 7},
}


def make_run(root: Path, label: str = "PPO", env_id: str = "CartPole-v1", seed: int = 0) -> RunDirectory:
    config = {**CONFIG, "label": label, "env_id": env_id, "seed": seed}
    return RunDirectory.create(run_path(root, label, env_id, seed), config, {"git": None})


def test_a_created_run_reads_back_as_written(tmp_path):
    run = make_run(tmp_path, seed=3)
    again = RunDirectory(run.path)
    assert again.config == {**CONFIG, "seed": 3}
    assert (again.label, again.env_id, again.seed, again.completed) == ("PPO", "CartPole-v1", 3, False)
    assert again.provenance == {"git": None}
    assert again.status["attempts"] == 0
    assert again.read_eval().empty
    assert list(again.read_train().columns) == ["timesteps", "wall_seconds"]


def test_creating_over_a_run_is_refused(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(FileExistsError):
        RunDirectory.create(run.path, CONFIG, {})


def test_creating_leaves_nothing_half_made_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(path, text):
        if path.name == "status.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, text)

    monkeypatch.setattr(runs, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        make_run(tmp_path)
    assert find_runs(tmp_path) == ([], [])
    monkeypatch.undo()
    make_run(tmp_path)


def test_status_keeps_other_fields_and_refuses_unknown_ones(tmp_path):
    run = make_run(tmp_path)
    run.write_status("running", timesteps=10, attempts=1)
    run.write_status("completed", timesteps=100)
    again = RunDirectory(run.path)
    assert again.completed
    assert again.status["attempts"] == 1
    assert again.status["timesteps"] == 100
    with pytest.raises(ValueError, match="did you mean 'completed'"):
        run.write_status("complete")
    with pytest.raises(ValueError, match="did you mean 'attempts'"):
        run.write_status("running", attempt=2)


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path):
    """A real write error (the file size limit of the process), not a pretended one."""
    target = tmp_path / "status.json"
    write_atomic(target, "old")
    code = (
        "import resource, signal; from pathlib import Path; from maxent_onpolicy.evaluation.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"write_atomic(Path({str(target)!r}), 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_csv_rows_append_and_new_keys_add_columns(tmp_path):
    log = CsvLog(tmp_path / "train.csv", ("timesteps", "wall_seconds"))
    log.append([{"timesteps": 1, "wall_seconds": 0.5}])
    log.append([{"timesteps": 2, "wall_seconds": 1.0, "train/loss": 0.25}])
    log.append([{"timesteps": 3}])
    assert (tmp_path / "train.csv").read_text() == "timesteps,wall_seconds,train/loss\n1,0.5,\n2,1.0,0.25\n3,,\n"


def test_a_torn_last_line_is_dropped_on_reading_and_on_appending(tmp_path):
    run = make_run(tmp_path)
    log = run.eval_log()
    log.append([{"timesteps": 50, "mode": "deterministic", "episode": 0, "return": 1.5, "length": 9}])
    with (run.path / "eval.csv").open("a") as file:
        file.write("100,deterministic,0,12")
    assert run.read_eval()["return"].tolist() == [1.5]
    run.eval_log().append([{"timesteps": 100, "mode": "stochastic", "episode": 0, "return": 2.5, "length": 9}])
    frame = run.read_eval()
    assert frame["return"].tolist() == [1.5, 2.5]
    assert frame["mode"].tolist() == ["deterministic", "stochastic"]


def test_a_file_with_only_a_torn_header_starts_over(tmp_path):
    run = make_run(tmp_path)
    (run.path / "eval.csv").write_text("timesteps,mo")
    assert run.read_eval().empty
    run.eval_log().append([{"timesteps": 1, "mode": "stochastic", "episode": 0, "return": 1.0, "length": 1}])
    assert len(run.read_eval()) == 1


def test_truncate_drops_what_lies_beyond_the_checkpoint(tmp_path):
    log = CsvLog(tmp_path / "train.csv", ("timesteps", "wall_seconds"))
    log.append([{"timesteps": step, "wall_seconds": step / 10, "time/fps": 7} for step in (10, 20, 30)])
    reopened = CsvLog(tmp_path / "train.csv", ("timesteps", "wall_seconds"))
    reopened.truncate(20)
    reopened.append([{"timesteps": 25, "wall_seconds": 2.5, "time/fps": 8}])
    assert (tmp_path / "train.csv").read_text().splitlines()[1:] == ["10,1.0,7", "20,2.0,7", "25,2.5,8"]
    CsvLog(tmp_path / "none.csv", ("timesteps",)).truncate(5)
    assert not (tmp_path / "none.csv").exists()


def test_find_runs_sorts_and_ignores_other_folders(tmp_path):
    for label, seed in (("PPO", 1), ("PPO", 0), ("MaxEntPPO", 0)):
        make_run(tmp_path, label=label, seed=seed)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "scores.csv").write_text("a\n1\n")
    found, corrupt = find_runs(tmp_path)
    assert [(run.label, run.seed) for run in found] == [("MaxEntPPO", 0), ("PPO", 0), ("PPO", 1)]
    assert corrupt == []
    with pytest.raises(FileNotFoundError):
        find_runs(tmp_path / "missing")


def test_a_folder_has_a_name_that_every_file_system_takes():
    assert run_path(Path("r"), "A/B", "procgen:coinrun", 1) == Path("r/runs/A_B/procgen_coinrun/seed_1")
    assert run_path(Path("r"), "MaxEntPPO + RPO", "Hopper-v5", 0) == Path("r/runs/MaxEntPPO + RPO/Hopper-v5/seed_0")


def test_an_environment_id_with_a_slash_stays_one_folder(tmp_path):
    run = make_run(tmp_path, env_id="ALE/Pong-v5")
    assert run.path.relative_to(tmp_path).parts == ("runs", "PPO", "ALE_Pong-v5", "seed_0")
    assert find_runs(tmp_path)[0][0].env_id == "ALE/Pong-v5"


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", '{"suite": "s"', "config.json cannot be read"),
        ("config.json", "[1]", "holds a list"),
        ("config.json", '{"suite": "s"}', "lacks label, algorithm"),
        ("status.json", '{"state": "lost"}', "unknown state 'lost'"),
        ("status.json", b"\xff\xfe\x00", "status.json cannot be read"),
        ("provenance.json", None, "provenance.json is missing"),
        ("eval.csv", "a,b\n1,2\n", "lacks the column timesteps"),
        ("eval.csv", "timesteps,mode,episode,return,length\n1,stochastic,0,high,3\n", "text where numbers belong"),
        ("eval.csv", 'timesteps,mode,episode,return,length\n"1,2\n', "eval.csv"),
        ("train.csv", b"\x80\x81\n", "train.csv cannot be read"),
    ],
)
def test_a_corrupt_run_is_reported_and_the_others_are_found(tmp_path, file, text, reason):
    bad, good = make_run(tmp_path, seed=0), make_run(tmp_path, seed=1)
    if text is None:
        (bad.path / file).unlink()
    else:
        (bad.path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    found, corrupt = find_runs(tmp_path)
    assert [run.path for run in found] == [good.path]
    assert [run.path for run in corrupt] == [bad.path]
    assert reason in corrupt[0].reason


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunDirectory.create(tmp_path / "seed_0", {**CONFIG, "hyperparameters": {"target_kl": float("inf")}}, {})
