"""Fixtures of the evaluation's tests: results directories of synthetic runs."""

from pathlib import Path

import pytest
from synthetic_runs import write_run

from maxent_onpolicy.evaluation.drawing import Plot


def write_two_by_two(results: Path) -> Path:
    """Write two algorithms on two environments with three seeds; returns ``results``."""
    for label, gain in (("PPO", 1.0), ("MaxEntPPO", 1.3)):
        for env_id, level in (("HalfCheetah-v5", 2000.0), ("Hopper-v5", 1000.0)):
            for seed in range(3):
                write_run(results, label, env_id, seed, final=level * gain + 100 * seed)
    return results


@pytest.fixture
def make_run(tmp_path):
    """Write a run into a fresh results directory; returns its folder."""
    results = tmp_path / "results"

    def make(*args, **kwargs):
        return write_run(results, *args, **kwargs)

    make.results = results
    return make


@pytest.fixture
def two_by_two(tmp_path):
    """Two algorithms on two environments, three seeds: the results directory."""
    return write_two_by_two(tmp_path / "results")


@pytest.fixture(scope="module")
def two_by_two_read_only(tmp_path_factory):
    """The same, once for all tests of a module."""
    return write_two_by_two(tmp_path_factory.mktemp("two_by_two") / "results")


@pytest.fixture
def blank_figures(monkeypatch):
    """Leaves the files of figures empty: drawing takes two thirds of a report's time."""
    monkeypatch.setattr(Plot, "_save", lambda self, kind, metadata: b"<svg></svg>")
