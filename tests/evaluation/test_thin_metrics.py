"""The script that keeps fewer rows of training metrics."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = "timesteps,wall_seconds,train/loss\n"


def thin(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "thin_metrics.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write(results: Path, seed: int, rows: int) -> Path:
    folder = results / "runs" / "PPO" / "Hopper-v5" / f"seed_{seed}"
    folder.mkdir(parents=True)
    (folder / "eval.csv").write_text("returns stay\n")
    path = folder / "train.csv"
    path.write_text(HEADER + "".join(f"{row},0.{row},\n" for row in range(1, rows + 1)))
    return path


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (3, [1, 2, 3]),
        (6, [1, 2, 3, 4, 5, 6]),
        (7, [1, 3, 5, 7]),
        (12, [2, 4, 6, 8, 10, 12]),
        (13, [1, 4, 7, 10, 13]),
    ],
)
def test_rows_are_evenly_spaced_and_the_last_one_stays(rows, kept, tmp_path):
    path = write(tmp_path, 0, rows)
    assert thin(tmp_path, "--rows", 6).returncode == 0
    lines = path.read_text().splitlines(keepends=True)
    assert lines == [HEADER, *(f"{row},0.{row},\n" for row in kept)]


def test_again_it_changes_nothing_and_says_so(tmp_path):
    long, short = write(tmp_path, 0, 9), write(tmp_path, 1, 4)
    assert thin(tmp_path, "--rows", 5).stdout == f"{tmp_path}: 4 rows left out of 1 of 2 runs\n"
    first = long.read_bytes(), short.read_bytes()
    assert thin(tmp_path, "--rows", 5).stdout == f"{tmp_path}: 0 rows left out of 0 of 2 runs\n"
    assert (long.read_bytes(), short.read_bytes()) == first
    assert (long.parent / "eval.csv").read_text() == "returns stay\n"


def test_bad_arguments_are_refused(tmp_path):
    path = write(tmp_path, 0, 9)
    for arguments, words in (
        ((tmp_path, "--rows", 0), "--rows must be 1 or more, got 0"),
        ((path.parent, "--rows", 5), "is no results directory: it has no folder `runs`"),
    ):
        refused = thin(*arguments)
        assert refused.returncode == 2
        assert words in refused.stderr
    assert len(path.read_text().splitlines()) == 10
