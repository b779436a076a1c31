"""A cell that is run again is held against the results that are there."""

import json
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
            row = {"timesteps": config.total_timesteps, "mode": mode, "episode": 0, "length": 1}
            run.eval_log().append([{**row, "return": share * returns[config.seed]}])
        run.write_status("completed", timesteps=config.total_timesteps, wall_seconds=1.0)
    return folder


@pytest.fixture
def there(in_tmp) -> tuple[Path, Path]:
    suite = write_suite(in_tmp)
    return suite, make_results(in_tmp / "there", suite, {0: 90.0, 1: 100.0, 2: 110.0})


@pytest.mark.parametrize(("value", "inside"), [(101.0, True), (115.0, False), (85.0, False)])
def test_a_mean_is_inside_the_interval_or_it_is_not(there, in_tmp, capsys, value, inside):
    suite, folder = there
    again = make_results(in_tmp / "again", suite, {0: value})
    assert compare(make_console(), load_results(folder), load_results(again), "PPO", "CartPole-v1") is inside
    printed = capsys.readouterr().out
    assert f"{'inside' if inside else 'outside'} the interval" in printed
    assert printed.count("deterministic") == printed.count("stochastic") == 1
    assert ("one in six" in printed) is not inside


def test_a_single_run_must_come_out_the_same(in_tmp):
    suite = write_suite(in_tmp)
    results = [load_results(make_results(in_tmp / str(value), suite, {0: value})) for value in (5.0, 5.0001)]
    assert compare(make_console(), results[0], results[0], "PPO", "CartPole-v1")
    assert not compare(make_console(), results[0], results[1], "PPO", "CartPole-v1")


def test_what_cannot_be_compared_is_named(there, in_tmp):
    suite, folder = there
    cell = cell_of(load_suite(suite).runs, "PPO/CartPole-v1")
    assert published(folder, cell).fewest_seeds == 3
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


@pytest.mark.slow
def test_the_same_machine_gives_the_same_and_a_changed_result_is_found(in_tmp, capsys):
    suite = str(write_suite(in_tmp, seeds=[0, 1]))
    assert main([suite, "--no-report", "--no-tensorboard"]) == 0
    arguments = [suite, "--verify", "PPO/CartPole-v1", "--no-tensorboard"]
    assert main(arguments) == 0
    assert "PPO on CartPole-v1, 2 seeds there, 2 run again: inside the interval" in capsys.readouterr().out
    for path in Path("results/tiny").rglob("eval.csv"):
        other = Path("my_results/verify") / path.relative_to("results")
        assert other.read_bytes() == path.read_bytes()
        frame = pd.read_csv(path)
        frame.assign(**{"return": 10 * frame["return"]}).to_csv(path, index=False)
    assert main(arguments) == 1
    assert "outside the interval" in capsys.readouterr().out
