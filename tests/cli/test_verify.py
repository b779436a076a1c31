"""A cell that is run again is held against the results that are there."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import write_suite

from maxent_onpolicy.cli.bench import main
from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.suite import load_suite
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.cli.verify import cell_of, compare, published
from maxent_onpolicy.evaluation.runs import RunDirectory, run_path
from maxent_onpolicy.evaluation.scores import load_results


def make_results(folder: Path, suite: Path, returns: dict[int, float]) -> Path:
    """Completed runs of the suite with these final returns by seed, sampled actions half of them."""
    for config in load_suite(suite, seeds=tuple(returns)).runs:
        path = run_path(folder, config.label, config.env_id, config.seed)
        run = RunDirectory.create(path, config.to_json(), {})
        for mode, share in (("deterministic", 1.0), ("stochastic", 0.5)):
            row = {"timesteps": config.total_timesteps, "mode": mode, "length": 1}
            final = share * returns[config.seed]
            run.eval_log().append([{**row, "episode": episode, "return": final} for episode in range(2)])
        run.write_status("completed", timesteps=config.total_timesteps, wall_seconds=1.0)
    return folder


@pytest.fixture
def there(in_tmp) -> tuple[Path, Path]:
    suite = write_suite(in_tmp)
    return suite, make_results(in_tmp / "there", suite, {0: 90.0, 1: 100.0, 2: 110.0})


CELL = "PPO/CartPole-v1"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({0: 90.0, 1: 100.0, 2: 110.0}, "the same"),
        ({0: 90.0}, "the same"),  # one of them, whose return is no mean of three
        ({0: 90.1, 1: 120.0, 2: 115.0}, "inside"),  # outside the interval of the mean, [90, 110]
        ({3: 130.0}, "inside"),
        ({0: 160.0, 1: 170.0, 2: 150.0}, "outside"),
        ({3: 300.0}, "outside"),
        ({3: -90.0}, "outside"),
    ],
)
def test_new_means_are_the_same_inside_or_outside(there, in_tmp, capsys, values, verdict):
    suite, folder = there
    again = load_results(make_results(in_tmp / "again", suite, values))
    cell = cell_of(load_suite(suite, seeds=tuple(values)).runs, CELL)
    assert compare(make_console(), load_results(folder), again, cell) is (verdict != "outside")
    printed = capsys.readouterr().out
    assert f"3 runs there, {len(values)} again: {verdict}" in printed
    assert printed.count("deterministic") == printed.count("stochastic") == 1
    assert ("one cell in twenty" in printed) is (verdict == "outside")
    assert all(len(line.rstrip()) <= 80 for line in printed.splitlines())


def test_only_the_cells_seeds_are_compared(there, in_tmp):
    suite, folder = there
    again = load_results(make_results(in_tmp / "again", suite, {0: 90.0, 1: 100.0, 7: -1e6}))
    cell = cell_of(load_suite(suite, seeds=(0, 1)).runs, CELL)
    assert compare(make_console(), load_results(folder), again, cell)
    with pytest.raises(UsageError, match="1 of 3 new runs have no deterministic evaluation"):
        compare(make_console(), load_results(folder), again, cell_of(load_suite(suite, seeds=(0, 1, 2)).runs, CELL))


def test_a_single_run_must_come_out_the_same(in_tmp, capsys):
    suite = write_suite(in_tmp)
    results = [load_results(make_results(in_tmp / str(value), suite, {0: value})) for value in (5.0, 5.0001)]
    cell = cell_of(load_suite(suite, seeds=(0,)).runs, CELL)
    assert compare(make_console(), results[0], results[0], cell)
    assert not compare(make_console(), results[0], results[1], cell)
    assert "One run says nothing of chance" in capsys.readouterr().out


def test_what_cannot_be_compared_is_named(there, in_tmp):
    suite, folder = there
    cell = cell_of(load_suite(suite, seeds=(7,)).runs, CELL)
    results, seeds = published(folder, cell)
    assert (results.fewest_seeds, seeds) == (3, (0, 1, 2))
    with pytest.raises(UsageError, match="'PPO/Cart'; there are: PPO/CartPole-v1"):
        cell_of(load_suite(suite).runs, "PPO/Cart")
    with pytest.raises(UsageError, match="nothing to compare with"):
        published(in_tmp / "nowhere", cell)
    config = run_path(folder, "PPO", "CartPole-v1", 0) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "n_envs": 64}))
    with pytest.raises(UsageError, match="made with other settings: n_envs"):
        published(folder, cell)


def test_a_cell_is_run_as_a_whole(there):
    suite, folder = there
    with pytest.raises(UsageError, match="--verify takes neither"):
        main([str(suite), "--results", str(folder.parent), "--verify", "PPO/CartPole-v1", "--only", "PPO"])

    with pytest.raises(UsageError, match="got ''; there are"):
        main([str(suite), "--results", str(folder.parent), "--verify", ""])


def test_a_shorter_run_of_another_seed_is_no_comparison(there, in_tmp):
    suite, folder = there
    shutil.copytree(folder, in_tmp / "results" / "tiny")
    with pytest.raises(UsageError, match=r"other settings: .*total_timesteps: 768 → 256"):
        main([str(suite), "--verify", CELL, "--seeds", "7", "--timesteps", "256"])


@pytest.mark.slow
def test_the_same_machine_gives_the_same_and_a_changed_result_is_found(in_tmp, capsys):
    suite = str(write_suite(in_tmp, seeds=[0, 1]))
    assert main([suite, "--no-report", "--no-tensorboard"]) == 0
    arguments = [suite, "--verify", "PPO/CartPole-v1", "--no-tensorboard"]
    assert main(arguments) == 0
    assert "PPO on CartPole-v1: 2 runs there, 2 again: the same" in capsys.readouterr().out
    for path in Path("results/tiny").rglob("eval.csv"):
        other = Path("my_results/verify") / path.relative_to("results")
        assert other.read_bytes() == path.read_bytes()
        frame = pd.read_csv(path)
        frame.assign(**{"return": frame["return"] + 1e6}).to_csv(path, index=False)
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "2 again: outside" in printed
    assert "From an earlier comparison: seeds 0, 1; remove my_results/verify/tiny" in printed
