"""Run directories become score arrays, and what cannot be used is named."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from maxent_onpolicy.evaluation.scores import (
    ScoreRange,
    align,
    load_results,
    load_score_ranges,
    normalise,
)

CONFIG_WITH_A_TEXT_SEED = json.dumps(
    {"suite": "s", "label": "PPO", "algorithm": "PPO", "env_id": "A-v0", "seed": "one", "total_timesteps": 1}
    | {"hyperparameters": {}, "evaluation": {}}
)


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        ("10000,stochastic", "ends at 5,000 of 10,000 steps in the stochastic mode (train): its last evaluation is"),
        ("10000,deterministic,2", "holds 2 of 3 episodes of the last evaluation in the deterministic mode (train)"),
    ],
)
def test_a_run_without_its_last_evaluation_has_no_final_return(make_run, dropped, reason):
    make_run(seed=0)
    log = make_run(seed=1) / "eval.csv"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if not line.startswith(dropped)))
    results = load_results(make_run.results)
    assert [run.seed for run in results.used] == [0]
    (problem,) = results.problems
    assert reason in problem.reason


def test_final_return_is_the_mean_of_the_last_checkpoint(make_run):
    folder = make_run(checkpoints=(100,), episodes=2)
    (folder / "eval.csv").write_text(
        "timesteps,mode,episode,return,length\n"
        "100,deterministic,0,90,5\n"
        "100,deterministic,1,70,7\n"
        "50,deterministic,0,1000,9\n"
        "100,stochastic,0,10,3\n"
        "100,stochastic,1,12,3\n"
    )
    results = load_results(make_run.results)
    assert results.modes == ["deterministic", "stochastic"]
    assert results.final("PPO", "HalfCheetah-v5", "deterministic").to_dict() == {0: 80.0}
    assert results.final("PPO", "HalfCheetah-v5", "deterministic", "length").to_dict() == {0: 6.0}
    assert results.final("PPO", "HalfCheetah-v5", "stochastic").to_dict() == {0: 11.0}
    assert results.final("PPO", "Hopper-v5", "stochastic").empty
    curves = results.curves("PPO", "HalfCheetah-v5", "deterministic")
    assert curves.timesteps.tolist() == [50, 100]
    assert curves.values.tolist() == [[1000, 80]]
    with pytest.raises(ValueError, match="did you mean 'stochastic'"):
        results.final("PPO", "HalfCheetah-v5", "stochastik")
    with pytest.raises(ValueError, match="`column`"):
        results.final("PPO", "HalfCheetah-v5", "stochastic", "reward")


def test_scores_are_one_array_a_task(two_by_two):
    results = load_results(two_by_two)
    assert results.labels == ["MaxEntPPO", "PPO"]
    assert results.env_ids == ["HalfCheetah-v5", "Hopper-v5"]
    assert results.notes == []
    assert results.problems == []
    assert results.preliminary
    assert results.fewest_seeds == 3
    scores = results.final_scores("PPO", results.env_ids, "deterministic")
    low, high, *_ = results.ranges["Hopper-v5"]
    expected = (results.final("PPO", "Hopper-v5", "deterministic").to_numpy() - low) / (high - low)
    assert [len(task) for task in scores] == [3, 3]
    assert scores[1] == pytest.approx(expected)
    timesteps, curves = results.score_curves("PPO", results.env_ids, "deterministic")
    assert timesteps.tolist() == [0, 5_000, 10_000]
    assert curves[1][:, -1] == pytest.approx(expected)


def test_ten_seeds_are_not_preliminary(make_run):
    for seed in range(10):
        make_run(seed=seed, train=False, checkpoints=(10,), episodes=1)
    assert not load_results(make_run.results).preliminary


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_unfinished_runs_are_left_out_and_named(make_run, state):
    make_run(seed=0)
    make_run(seed=1, state=state, error="OSError: no space left")
    results = load_results(make_run.results)
    assert [run.seed for run in results.used] == [0]
    (problem,) = results.problems
    assert problem.run == "PPO, HalfCheetah-v5, seed 1"
    assert problem.state == state
    assert problem.reason == "stopped at 10,000 of 10,000 steps: OSError: no space left"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", CONFIG_WITH_A_TEXT_SEED, "seed that is no integer: 'one'"),
        ("eval.csv", "timesteps,mode,episode,return,length\n", "eval.csv holds no evaluation"),
        ("eval.csv", "timesteps,mode,episode,return,length\n1,deterministic,0,inf,1\n", "missing or not finite"),
        (
            "eval.csv",
            "timesteps,mode,episode,return,length\n1,deterministic,0,2,1\n1,deterministic,1,,1\n",
            "missing or not finite",
        ),
        ("eval.csv", "timesteps,mode,episode,return,length\n1,determined,0,2,1\n", "unknown mode 'determined'"),
        ("status.json", '{"state": "completed", "timesteps": "many"}', "text where a number belongs"),
    ],
)
def test_corrupt_runs_are_left_out_and_named(make_run, file, content, reason):
    make_run(seed=0)
    folder = make_run(seed=1)
    (folder / file).write_text(content)
    results = load_results(make_run.results)
    assert [run.seed for run in results.used] == [0]
    (problem,) = results.problems
    assert reason in problem.reason
    assert str(make_run.results.parent) not in problem.run + problem.reason


def test_a_copied_run_is_not_counted_twice(make_run):
    folder = make_run(seed=0)
    shutil.copytree(folder, folder.parent / "seed_0_copy")
    results = load_results(make_run.results)
    assert len(results.used) == 1
    assert "same label, environment and seed" in results.problems[0].reason


def test_what_makes_runs_less_comparable_is_noted(make_run):
    make_run("PPO", "Hopper-v5", 0)
    make_run("PPO", "Hopper-v5", 1, checkpoints=(0, 6_000, 10_000))
    make_run("PPO", "Custom-v0", 0)
    make_run("PPO", "Ant-v5", 0)
    make_run("MaxEntPPO", "Hopper-v5", 0, checkpoints=(0, 2_500, 5_000))
    results = load_results(make_run.results)
    notes = "\n".join(results.notes)
    fewer = "MaxEntPPO on Hopper-v5: 1, PPO on Ant-v5: 1, PPO on Custom-v0: 1"
    assert f"The numbers of seeds differ: 2 at most, but {fewer}." in notes
    assert "Not every algorithm has a deterministic and a stochastic evaluation on Ant-v5, Custom-v0." in notes
    assert "Left out of aggregates of deterministic and stochastic returns: Ant-v5." in notes
    assert "No normalisation constants for Custom-v0" in notes
    assert "Runs on Hopper-v5 ended at different steps: final checkpoints lie between 5,000 and 10,000" in notes
    assert "checkpoints of PPO on Hopper-v5 differ between seeds" in notes
    assert results.shared_env_ids("deterministic") == ["Hopper-v5"]


@pytest.mark.parametrize(
    ("runs", "labels", "env_ids"),
    [
        ({"A": "123", "B": "123"}, "AB", "123"),
        ({"A": "123", "B": "123", "C": "1"}, "AB", "123"),  # six runs rather than three
        ({"A": "1234", "B": "1234", "C": "123"}, "ABC", "123"),
        ({"A": "12", "B": "23"}, "AB", "2"),
        ({"A": "12", "B": "12", "C": "4"}, "AB", "12"),
        ({"A": "1"}, "A", "1"),
        ({"A": "1", "B": "2"}, "", ""),
        ({"A": "5"}, "", ""),  # without a score range
    ],
)
def test_aggregates_are_over_as_many_runs_as_can_be_compared(make_run, runs, labels, env_ids):
    names = dict(zip("12345", ("Ant-v5", "Hopper-v5", "Pusher-v5", "Swimmer-v5", "Custom-v0"), strict=True))
    for label, chosen in runs.items():
        for number in chosen:
            make_run(label, names[number])
    found = load_results(make_run.results).comparable("deterministic")
    assert found == (list(labels), sorted(names[number] for number in env_ids))


def test_checkpoints_that_never_overlap_have_no_curve(make_run):
    make_run(seed=0, checkpoints=(0, 10))
    make_run(seed=1, checkpoints=(100, 200))
    results = load_results(make_run.results)
    assert results.curves("PPO", "HalfCheetah-v5", "deterministic") is None
    assert results.score_curves("PPO", ["HalfCheetah-v5"], "deterministic") is None
    assert any("do not overlap" in note for note in results.notes)


def test_alignment_interpolates_inside_and_never_extrapolates():
    first, second = pd.Series({0: 0.0, 10: 10.0, 20: 0.0}), pd.Series({5: 1.0, 20: 4.0, 30: 9.0})
    timesteps, (values,), interpolated = align([first, second])
    assert timesteps.tolist() == [5, 10, 20]
    assert values == pytest.approx(np.array([[5, 10, 0], [1, 2, 4]]))
    assert interpolated
    assert not align([first, first])[2]


def test_nothing_to_report_is_a_clear_error(tmp_path, make_run):
    with pytest.raises(FileNotFoundError, match="no such results directory"):
        load_results(tmp_path / "missing")
    with pytest.raises(ValueError, match="must contain a folder `runs`"):
        load_results(tmp_path)
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    with pytest.raises(ValueError, match="no completed run with evaluations"):
        load_results(tmp_path / "empty")
    make_run(state="failed", error="ValueError: NaN in the reward")
    with pytest.raises(ValueError, match=r"1 other run directories .*NaN in the reward"):
        load_results(make_run.results)
    with pytest.raises(ValueError, match="it holds results in empty, results"):
        load_results(tmp_path)


def test_packaged_ranges_are_complete_and_say_where_they_come_from():
    entries = load_score_ranges()
    ranges = {env_id: entry for env_id, entry in entries.items() if isinstance(entry, ScoreRange)}
    assert {"HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "CartPole-v1"} <= set(ranges)
    for env_id, found in ranges.items():
        assert found.low < found.high, env_id
        measured = "maxent_onpolicy.games" if env_id.startswith("openspiel:") else "measure_random_returns.py"
        assert ("the least that a policy can earn" if env_id == "textworld" else measured) in found.low_source
        assert len(found.high_source) > 20
    assert ranges["HalfCheetah-v5"].high == pytest.approx(5819, abs=1)


def test_ranges_of_your_own(make_run):
    make_run(env_id="Custom-v0", final=50.0, noise=0.0)
    own = {"environments": {"Custom-v0": {"low": 0, "high": 100, "high_source": "my paper"}}}
    (make_run.results / "score_ranges.json").write_text(json.dumps(own))
    results = load_results(make_run.results)
    assert results.ranges["Custom-v0"] == ScoreRange(0, 100, "not stated", "my paper")
    assert results.final_scores("PPO", ["Custom-v0"], "deterministic")[0] == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSONDecodeError"),
        ("{}", "KeyError: 'environments'"),
        ('{"environments": {"A-v0": {"low": 1}}}', "KeyError: 'high'"),
        ('{"environments": {"A-v0": {"low": 1, "high": 1}}}', "`A-v0.high` must be in"),
        ('{"environments": {"A-v0": {"low": "x", "high": 1}}}', "`A-v0.low` must be a number"),
        ("[]", "AttributeError"),
    ],
)
def test_bad_ranges_are_named(make_run, content, message):
    make_run()
    (make_run.results / "score_ranges.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_results(make_run.results)


def test_normalise():
    ranges = {"A-v0": ScoreRange(-10.0, 30.0, "", "")}
    assert normalise(np.array([[-10.0, 10.0, 30.0, 70.0]]), "A-v0", ranges).tolist() == [[0.0, 0.5, 1.0, 2.0]]
    with pytest.raises(ValueError, match="did you mean 'A-v0'"):
        normalise(np.zeros(1), "A-v1", ranges)
