"""The table of the suite mujoco beside mujoco-reference."""

from pathlib import Path

import pytest
from synthetic_runs import write_run

from benchmarks import reference
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.tables import Bootstrap

RESULTS = Path(__file__).resolve().parents[2] / "results"
BOOTSTRAP = Bootstrap(resamples=50)


@pytest.fixture
def ours(tmp_path):
    for seed in range(3):
        for label, final in (("PPO", 100.0), ("TRPO", 400.0), ("MaxEntPPO", 900.0)):
            options = {"algorithm": label, "modes": ("deterministic",), "noise": 0}
            write_run(tmp_path / "ours", label, seed=seed, final=final + seed, **options)
    return load_results(tmp_path / "ours")


def stock(folder, label="SB3 PPO"):
    for seed in range(2):
        options = {"algorithm": label, "suite": "stock", "modes": ("deterministic",), "noise": 0}
        write_run(folder, label, seed=seed, final=200.0 + seed, **options)
    return load_results(folder)


def test_runs_of_two_suites_stand_in_one_row(ours, tmp_path):
    table = reference.reference_table(ours, stock(tmp_path / "stock"), BOOTSTRAP)
    (row,) = table.data.to_dict("records")  # not TRPO, whose class has no runs, nor what differs by its method
    assert (row["algorithm"], row["counterpart"], row["side"]) == ("PPO", "SB3 PPO", "below")
    assert (row["return"], row["counterpart_return"]) == (101.0, 200.5)
    assert table.caption.endswith("Seeds: SB3 PPO in HalfCheetah-v5 2 (ours 3).")


def test_suites_that_share_nothing_are_refused(ours, tmp_path):
    with pytest.raises(SystemExit, match="no algorithm of synthetic and its counterpart of stock share an environment"):
        reference.reference_table(ours, stock(tmp_path / "stock", "SB3 SAC"), BOOTSTRAP)


def test_the_committed_table_regenerates_byte_for_byte(tmp_path):
    reference.main([f"--ours={RESULTS / 'mujoco'}", f"--stock={RESULTS / 'mujoco-reference'}", f"--output={tmp_path}"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"counterparts.md", "counterparts.csv"}
    for name in names:
        assert (tmp_path / name).read_bytes() == (RESULTS / "mujoco-reference" / name).read_bytes(), name
