"""Provenance says with what a run was made, and not by whom or where."""

import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from maxent_onpolicy.evaluation.provenance import collect_provenance, command_line, git_revision

REPOSITORY = Path(__file__).parents[2]


def test_provenance_names_revision_versions_and_machine():
    found = collect_provenance(command=["maxent-onpolicy", "bench", "quick"], threads=1)
    assert found["packages"]["torch"]
    assert found["packages"]["gymnasium"]
    assert found["python"].endswith(platform.python_version())
    assert found["cpu"]["cores"] >= 1
    assert found["cpu"]["model"]
    assert found["threads"] == 1
    assert found["command"] == "maxent-onpolicy bench quick"
    assert json.loads(json.dumps(found)) == found


def test_provenance_names_no_host_user_or_absolute_path():
    text = json.dumps(collect_provenance(command=[f"{Path.cwd()}/maxent-onpolicy", "bench", "/srv/home/me/own.yaml"]))
    assert platform.node() not in text
    assert str(Path.cwd()) not in text
    assert str(Path.home()) + "/" not in text
    assert "/srv" not in text
    assert "own.yaml" in text
    assert f'"{getpass.getuser()}"' not in text


def test_command_line_keeps_what_repeats_the_run():
    assert command_line(["/x/site/maxent_onpolicy/__main__.py", "train", "PPO", "--set", "tau=0.1"]) == (
        "maxent-onpolicy train PPO --set tau=0.1"
    )
    assert command_line(["maxent-onpolicy", "bench", "quick", "--results=/data/me/out"]) == (
        "maxent-onpolicy bench quick --results=out"
    )


def test_threads_default_to_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert collect_provenance()["threads"] == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert collect_provenance()["threads"] is None


def _git(directory: Path, *command: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(directory), *identity, *command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_git_revision_tells_code_changes_from_new_results(tmp_path):
    package = tmp_path / "maxent_onpolicy" / "evaluation"
    package.mkdir(parents=True)
    (package / "code.py").write_text("a = 1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "scores.csv").write_text("1\n")
    assert git_revision(package) is None
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    os.utime(package / "code.py", (1, 1))  # git would note in its index that it has looked, and lock it for that
    index = (tmp_path / ".git" / "index").read_bytes()
    assert git_revision(package) == {"revision": _git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert (tmp_path / ".git" / "index").read_bytes() == index
    (tmp_path / "results" / "scores.csv").write_text("2\n")
    assert git_revision(package)["dirty"] is False
    (package / "code.py").write_text("a = 2\n")
    assert git_revision(package)["dirty"] is True


def test_another_projects_repository_is_not_our_revision(tmp_path):
    _git(tmp_path, "init", "-q")
    assert git_revision(tmp_path) is None


def test_a_machine_without_git_or_gpu_still_has_provenance(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = collect_provenance()
    assert found["git"] is None
    assert found["gpu"] == []


def test_gpu_names_come_from_nvidia_smi(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100'\necho 'NVIDIA H100'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert collect_provenance()["gpu"] == ["NVIDIA H100", "NVIDIA H100"]


def test_reading_results_loads_no_torch():
    code = (
        "import sys\nimport maxent_onpolicy.evaluation.runs\nimport maxent_onpolicy.evaluation.provenance\n"
        "maxent_onpolicy.evaluation.provenance.collect_provenance()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
