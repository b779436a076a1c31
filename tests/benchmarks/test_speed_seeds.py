"""The comparison of many seeds one by one and together measures the same trainings."""

import csv
import sys
from pathlib import Path

import pytest

from benchmarks.speed import seeds


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    path = tmp_path / "new" / "seeds.csv"
    small = "--seeds 2 --n-envs 2 --n-steps 32 --batch-size 32 --iterations 1 --rounds 2 --environments CartPole-v1"
    monkeypatch.setattr(sys, "argv", ["seeds", *small.split(), "--output", str(path)])
    seeds.main()
    seeds.main()
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_call_adds_a_row_that_says_what_was_measured(table: list[dict[str, str]]) -> None:
    assert len(table) == 2
    row = table[0]
    assert tuple(row) == seeds.COLUMNS
    assert [row[name] for name in ("algorithm", "environment", "seeds", "n_envs", "rounds")] == [
        *("PPO", "CartPole-v1", "2", "2", "2")
    ]
    for name in ("seconds", "update"):
        one_by_one, together, ratio, low, high = (
            float(row[f"{name}_{part}"]) for part in ("one_by_one", "together", "ratio", "ratio_min", "ratio_max")
        )
        assert min(one_by_one, together) > 0
        assert ratio == pytest.approx(one_by_one / together, rel=0.2)  # of rounded seconds
        assert low <= high
    assert float(row["update_together"]) < float(row["seconds_together"])
