"""The comparison of many seeds one by one and together measures the same trainings."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import seeds
from maxent_onpolicy.engine.packed import stacked


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
    for name in seeds.PARTS:
        one_by_one, together, ratio, low, high = (
            float(row[f"{name}_{part}"]) for part in ("one_by_one", "together", "ratio", "ratio_min", "ratio_max")
        )
        assert min(one_by_one, together) > 0
        assert ratio == pytest.approx(one_by_one / together, rel=0.2)  # of rounded seconds
        assert low <= high
    for way in seeds.WAYS:
        parts = float(row[f"rollout_{way}"]) + float(row[f"update_{way}"])
        assert parts <= float(row[f"seconds_{way}"]) + 0.002  # each the least of its rounds


def test_common_rollouts_count_as_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--backend torch --seeds 3 --n-envs 4 --n-steps 64 --batch-size 256 --iterations 1 --rounds 1"
    path = tmp_path / "seeds.csv"
    arguments = ["seeds", "--environments", "Pendulum-v1", *options.split(), "--output", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    common: list[float] = []
    collect_all = stacked.collect_all

    def timed(requests: Any) -> Any:
        start = time.perf_counter()
        errors = collect_all(requests)
        common.append(time.perf_counter() - start)
        return errors

    monkeypatch.setattr(stacked, "collect_all", timed)
    seeds.main()

    with path.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert min(common) < float(row["rollout_together"]) + 0.001
