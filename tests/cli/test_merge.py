"""Runs of several machines: shared out, and brought together without losing any."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from command_line import TINY, write_suite

from maxent_onpolicy.cli.lock import locked
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.plan import shard
from maxent_onpolicy.cli.suite import load_suite
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.cells import read_cells, write_cells
from maxent_onpolicy.evaluation.runs import RunDirectory, find_runs, run_path

QUIET = ("--no-report",)


def make_run(
    results: Path,
    seed: int = 0,
    *,
    state: str = "completed",
    timesteps: int = 100,
    value: float = 1.0,
    checkpoint: bool = False,
    suite: str = "tiny",
) -> Path:
    config = {
        "suite": suite,
        "label": "PPO",
        "algorithm": "PPO",
        "env_id": "CartPole-v1",
        "seed": seed,
        "total_timesteps": 100,
        "hyperparameters": {},
        "evaluation": {"every": 50},
    }
    run = RunDirectory.create(run_path(results, "PPO", "CartPole-v1", seed), config, {"machine": results.name})
    run.eval_log().append([{"timesteps": timesteps, "mode": "stochastic", "episode": 0, "return": value, "length": 1}])
    run.write_status(state, timesteps=timesteps)
    run.model.write_bytes(b"model")
    if checkpoint:
        run.checkpoint.write_bytes(f"checkpoint at {timesteps}".encode())
    return run.path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("by_cell", [False, True])
def test_shards_are_all_runs_once_and_alike_in_size(tmp_path, count, by_cell):
    algorithms = {"PPO": {}, "Slow": {"algorithm": "SAC"}, "TRPO": {}}
    environments = {"Pendulum-v1": {}, "MountainCarContinuous-v0": {}}
    defaults = {"total_timesteps": 768}
    suite = write_suite(
        tmp_path, seeds=[3, 1, 2, 0], algorithms=algorithms, environments=environments, defaults=defaults
    )
    runs = list(load_suite(suite).runs)
    parts = [shard(runs, f"{number + 1}/{count}", by_cell) for number in range(count)]
    assert Counter(run.name for part in parts for run in part) == Counter(run.name for run in runs)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= (4 if by_cell else 1)
    slow = [sum(run.label == "Slow" for run in part) for part in parts]
    assert max(slow) - min(slow) <= (4 if by_cell else 1), "what takes long is shared out too"
    if by_cell:
        cells = [{(run.label, run.env_id) for run in part} for part in parts]
        assert sum(map(len, cells)) == 6


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(UsageError, match=f"--shard must be i/n with i from 1 to n, got '{part}'"):
        shard([], part, False)


def test_runs_of_two_machines_come_together(tmp_path, capsys):
    here, there, store = tmp_path / "here", tmp_path / "there", tmp_path / "store"
    make_run(here, 0)
    make_run(there, 1)
    make_run(there, 2, state="interrupted", timesteps=50)
    assert main(["merge", str(here), str(there), "--into", str(store), *QUIET]) == 0
    assert "3 runs taken into" in capsys.readouterr().out
    assert contents(store) == contents(here) | contents(there)
    assert main(["merge", str(here), str(there), "--into", str(store), *QUIET]) == 0
    assert "0 runs taken into" in capsys.readouterr().out
    assert contents(store) == contents(here) | contents(there)


def test_a_run_that_is_further_takes_the_place_and_no_other_does(tmp_path):
    behind, ahead, store = tmp_path / "behind", tmp_path / "ahead", tmp_path / "store"
    make_run(behind, state="interrupted", timesteps=40)
    make_run(ahead, state="interrupted", timesteps=60)
    for source in (behind, ahead, behind):
        assert main(["merge", str(source), "--into", str(store), *QUIET]) == 0
    assert contents(store) == contents(ahead)


def test_a_checkpoint_gives_way_to_a_further_one_alone(tmp_path):
    behind, ahead, bare, store = (tmp_path / name for name in ("behind", "ahead", "bare", "store"))
    make_run(behind, state="interrupted", timesteps=40, checkpoint=True)
    make_run(ahead, state="interrupted", timesteps=60, checkpoint=True)
    make_run(bare, state="interrupted", timesteps=80)
    for source, options, left in (
        (behind, (), behind),
        (bare, (), behind),  # it would begin anew
        (ahead, ("--lean",), behind),
        (ahead, (), ahead),
    ):
        assert main(["merge", str(source), "--into", str(store), *options, *QUIET]) == 0
        assert contents(store) == contents(left)
    lean = tmp_path / "lean"
    for options in (("--lean",), ()):
        assert main(["merge", str(ahead), "--into", str(lean), *options, *QUIET]) == 0
    assert contents(lean) == contents(ahead), "the checkpoint comes later"


def test_what_the_suite_consists_of_comes_along(tmp_path):
    here, there, store = tmp_path / "here", tmp_path / "there", tmp_path / "store"
    make_run(here, 0)
    make_run(there, 1)
    write_cells(here, {"PPO": ["CartPole-v1"], "TRPO": ["CartPole-v1"]})
    assert main(["merge", str(here), str(there), "--into", str(store), *QUIET]) == 0
    assert read_cells(store) == {"PPO": ("CartPole-v1",), "TRPO": ("CartPole-v1",)}
    write_cells(there, {"PPO": ["CartPole-v1"]})
    assert main(["merge", str(there), "--into", str(store), *QUIET]) == 0
    assert read_cells(store) == {"PPO": ("CartPole-v1",)}, "the suite has become smaller since"


def test_a_list_of_cells_that_cannot_be_read_is_an_error_before_anything_is_taken(tmp_path, capsys):
    make_run(tmp_path / "here")
    (tmp_path / "here" / "cells.json").write_bytes(b"\xff")
    assert main(["merge", str(tmp_path / "here"), "--into", str(tmp_path / "store"), *QUIET]) == 2
    assert "here: cells.json is no JSON" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "store").exists()


def test_runs_of_two_suites_are_not_mixed(tmp_path, capsys):
    make_run(tmp_path / "here")
    make_run(tmp_path / "there", 1, suite="other")
    assert main(["merge", str(tmp_path / "here"), "--into", str(tmp_path / "store"), *QUIET]) == 0
    (tmp_path / "empty").mkdir()
    assert main(["merge", str(tmp_path / "here"), "--into", str(tmp_path / "empty"), *QUIET]) == 0
    before = contents(tmp_path / "store")
    assert main(["merge", str(tmp_path / "there"), "--into", str(tmp_path / "store"), *QUIET]) == 2
    assert "all runs must be of one suite, got other" in " ".join(capsys.readouterr().err.split())
    assert contents(tmp_path / "store") == before


def test_a_report_that_cannot_be_written_is_a_failure(tmp_path, capsys):
    make_run(tmp_path / "here", state="interrupted")
    arguments = ["merge", str(tmp_path / "here"), "--into", str(tmp_path / "store")]
    assert main(arguments) == 0, "nothing is completed yet"
    make_run(tmp_path / "more", 1)
    (tmp_path / "store" / "score_ranges.json").write_text("{")
    assert main(["merge", str(tmp_path / "more"), "--into", str(tmp_path / "store")]) == 1
    assert capsys.readouterr().out.count("no report:") == 2


def test_completed_runs_with_other_returns_are_named_and_the_first_is_kept(tmp_path, capsys):
    first, second, store = tmp_path / "first", tmp_path / "second", tmp_path / "store"
    make_run(first, value=1.0)
    make_run(second, value=2.0)
    assert main(["merge", str(first), str(second), "--into", str(store), *QUIET]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "both are completed, with other returns; the latter is kept" in printed
    assert str(second) in printed
    assert contents(store) == contents(first)


def test_the_same_run_completed_twice_is_no_conflict(tmp_path):
    first, second, store = tmp_path / "first", tmp_path / "second", tmp_path / "store"
    for source in (first, second):
        make_run(source)
    assert main(["merge", str(first), str(second), "--into", str(store), *QUIET]) == 0
    assert contents(store) == contents(first)


def test_other_settings_are_a_conflict(tmp_path, capsys):
    first, second, store = tmp_path / "first", tmp_path / "second", tmp_path / "store"
    make_run(first, state="interrupted", timesteps=10)
    config = make_run(second) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hyperparameters": {"gamma": 0.9}}))
    assert main(["merge", str(first), str(second), "--into", str(store), *QUIET]) == 1
    assert "made with other settings: hyperparameters.gamma" in " ".join(capsys.readouterr().out.split())
    assert contents(store) == contents(first)


def test_only_numbers_can_be_taken(tmp_path):
    source, store = tmp_path / "source", tmp_path / "store"
    path = make_run(source)
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "events").write_bytes(b"x")
    arguments = ["merge", str(source), "--into", str(store), "--lean", *QUIET]
    assert main(arguments) == 0
    kept = {Path(name).name for name in contents(store)}
    assert kept == {"config.json", "provenance.json", "status.json", "eval.csv"}


def test_a_run_that_goes_on_is_left_out(tmp_path, capsys):
    source, store = tmp_path / "source", tmp_path / "store"
    with locked(make_run(source, state="running", timesteps=10)):
        assert main(["merge", str(source), "--into", str(store), *QUIET]) == 0
    assert "1 running" in capsys.readouterr().out
    assert not store.exists()


def test_what_cannot_be_read_is_named(tmp_path, capsys):
    source, store = tmp_path / "source", tmp_path / "store"
    make_run(source, 0)
    (make_run(source, 1) / "status.json").write_text("{")
    assert main(["merge", str(source), "--into", str(store), *QUIET]) == 1
    assert "1 unreadable" in capsys.readouterr().out
    assert [run.seed for run in find_runs(store)[0]] == [0]


def test_a_copy_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    behind, ahead, store = tmp_path / "behind", tmp_path / "ahead", tmp_path / "store"
    make_run(behind, state="interrupted", timesteps=40)
    make_run(ahead)
    assert main(["merge", str(behind), "--into", str(store), *QUIET]) == 0

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        main(["merge", str(ahead), "--into", str(store), *QUIET])
    assert contents(store) == contents(behind)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "--into", "store"], "missing is no results directory"),
        (["source", "--into", "source"], "--into must be another directory"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "source")
    assert main(["merge", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_two_shards_make_the_benchmark_of_one_machine(in_tmp, capsys):
    suite = str(
        write_suite(in_tmp, seeds=[0, 1, 2], algorithms={"PPO": {}, "MaxEntPPO": {}}, defaults=TINY["defaults"])
    )
    common = ["bench", suite, "--no-report", "--no-tensorboard", "--no-model"]
    assert main([*common, "--results", "whole"]) == 0
    for number in (1, 2):
        assert main([*common, "--results", f"part{number}", "--shard", f"{number}/2"]) == 0
        assert len(find_runs(f"part{number}/tiny")[0]) == 3
    assert main(["merge", "part1/tiny", "part2/tiny", "--into", "store/tiny"]) == 0
    assert "MaxEntPPO" in capsys.readouterr().out
    names = [run.path.relative_to("store/tiny") for run in find_runs("store/tiny")[0]]
    assert len(names) == 6
    for name in names:
        assert (Path("store/tiny") / name / "eval.csv").read_bytes() == (
            Path("whole/tiny") / name / "eval.csv"
        ).read_bytes()
