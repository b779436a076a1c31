"""Where entropy helps: for each environment and over all, against the algorithm that it is added to."""

import pytest

from maxent_onpolicy.evaluation.maximum_entropy import (
    ALL,
    maximum_entropy_plot,
    maximum_entropy_table,
    while_learning_table,
)
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.statistics import improvement_interval
from maxent_onpolicy.evaluation.tables import Bootstrap

FEW = Bootstrap(resamples=200)
ONE_MODE = {"modes": ("deterministic",), "noise": 0.0, "train": False}


def make_runs(make_run, seeds=5):
    """MaxEntPPO is better in HalfCheetah, worse in Hopper, the same in Walker2d; MaxEntTRPO has no counterpart."""
    for seed in range(seeds):
        for env_id, gain in (("HalfCheetah-v5", 1000), ("Hopper-v5", -1000), ("Walker2d-v5", 0)):
            make_run("PPO", env_id, seed, final=2000.0 + seed, **ONE_MODE)
            make_run("MaxEntPPO", env_id, seed, final=2000.0 + gain + seed, **ONE_MODE)
        make_run("MaxEntTRPO", "Hopper-v5", seed, algorithm="MaxEntTRPO", **ONE_MODE)
        make_run("SAC", "Hopper-v5", seed, algorithm="SAC", **ONE_MODE)
    return load_results(make_run.results)


def test_each_environment_has_a_verdict(make_run):
    table = maximum_entropy_table(make_runs(make_run), FEW)
    assert set(zip(table.data["x"], table.data["y"], strict=True)) == {("MaxEntPPO", "PPO")}
    found = table.data.set_index("environment")
    assert found["entropy"].to_dict() == {
        "HalfCheetah-v5": "helps",
        "Hopper-v5": "hurts",
        "Walker2d-v5": "open",
        ALL: "open",
    }
    assert found["probability"].tolist() == [1.0, 0.0, 0.5, 0.5]
    assert found.loc[ALL, ["x_runs", "y_runs"]].tolist() == [15, 15]
    assert list(table.data.columns)[-1] == "entropy"


def test_the_text_has_a_row_for_each_environment_and_a_column_for_each_mode(make_run):
    for seed in range(5):
        for label, gain in (("PPO", 0), ("MaxEntPPO", 1000)):
            make_run(label, "HalfCheetah-v5", seed, final=2000.0 + gain, noise=0.0)
            make_run(label, "Hopper-v5", seed, final=2000.0 + seed, **ONE_MODE)
    text = maximum_entropy_table(load_results(make_run.results), FEW).text
    assert list(text.columns) == ["X", "Y", "Environment", "Deterministic", "Stochastic"]
    cheetah, hopper, both = text.values.tolist()
    assert cheetah == ["MaxEntPPO", "PPO", "HalfCheetah-v5", *["1.00 [1.00, 1.00] helps"] * 2]
    assert hopper[:3] == ["MaxEntPPO", "PPO", "Hopper-v5"]
    assert hopper[3].startswith("0.50 [")
    assert hopper[3].endswith("]")
    assert hopper[4] == ""
    assert both[2] == ALL


def test_all_says_of_how_many_environments_where_others_have_more(make_run):
    for seed in range(5):
        for env_id in ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"):
            for label in ("PPO", "MaxEntPPO"):
                make_run(label, env_id, seed, **ONE_MODE)
            if env_id != "Hopper-v5":
                make_run("PPO, bonus", env_id, seed, algorithm="MaxEntPPO", **ONE_MODE)
    table = maximum_entropy_table(load_results(make_run.results), FEW)
    names = table.text.groupby("X")["Environment"].agg("last").to_dict()
    assert names == {"MaxEntPPO": ALL, "PPO, bonus": f"{ALL} 2"}
    assert ALL in table.data[table.data["x"] == "PPO, bonus"]["environment"].tolist()


def test_a_counterpart_has_the_policy_that_differs_least(make_run):
    kinds = {"of the state": {"net_arch": [64], "state_dependent_std": True}, "": {"net_arch": [64]}}
    for name, kwargs in kinds.items():
        for algorithm, more in (("TRPO", {}), ("MaxEntTRPO", {"entropy_net_arch": [64]})):
            hyperparameters = {"policy_kwargs": {**kwargs, **more}}
            make_run(f"{algorithm} {name}", algorithm=algorithm, hyperparameters=hyperparameters, **ONE_MODE)
    bounded = {"policy_kwargs": {"net_arch": [64], "log_std_bounds": [-5, 0]}}
    make_run("MaxEntTRPO bounded", algorithm="MaxEntTRPO", hyperparameters=bounded, **ONE_MODE)
    other = {"policy_kwargs": {"net_arch": [8], "state_dependent_std": False}}
    make_run("MaxEntTRPO other", algorithm="MaxEntTRPO", hyperparameters=other, **ONE_MODE)
    table = maximum_entropy_table(load_results(make_run.results), FEW).data
    assert sorted(set(zip(table["x"], table["y"], strict=True))) == [
        ("MaxEntTRPO ", "TRPO "),
        ("MaxEntTRPO bounded", "TRPO "),
        ("MaxEntTRPO of the state", "TRPO of the state"),
        ("MaxEntTRPO other", "TRPO "),
        ("MaxEntTRPO other", "TRPO of the state"),
    ]


def test_an_entropy_bonus_is_another_addition_to_what_has_none(make_run):
    for label, more in (("PPO", {}), ("PPO, entropy bonus", {"ent_coef": 0.001}), ("MaxEntPPO", {"tau": 0.1})):
        algorithm = "MaxEntPPO" if label == "MaxEntPPO" else "PPO"
        make_run(label, algorithm=algorithm, hyperparameters={"n_steps": 128, **more}, **ONE_MODE)
    table = maximum_entropy_table(load_results(make_run.results), FEW).data
    assert set(zip(table["x"], table["y"], strict=True)) == {("MaxEntPPO", "PPO")}


def test_few_runs_leave_everything_open(make_run):
    found = maximum_entropy_table(make_runs(make_run, seeds=4), FEW).data
    assert found["probability"].tolist() == [1.0, 0.0, 0.5, 0.5]
    assert set(found["entropy"]) == {"open"}


def test_over_all_environments_it_is_the_probability_of_improvement(make_run):
    results = make_runs(make_run)
    returns = [
        [results.final(label, env_id, "deterministic").to_numpy() for env_id in results.env_ids]
        for label in ("MaxEntPPO", "PPO")
    ]
    expected = improvement_interval(*returns, rng=FEW.rng("any"), resamples=2_000)
    row = maximum_entropy_table(results, Bootstrap(resamples=2_000)).data.set_index("environment").loc[ALL]
    assert row["probability"] == expected.value
    assert row["probability_low"] == pytest.approx(expected.low, abs=0.02)


def test_the_figure_has_a_bar_for_each_environment(make_run):
    table = maximum_entropy_table(make_runs(make_run), FEW).data
    (axis,) = maximum_entropy_plot(table, FEW).figure.axes
    assert axis.get_title() == "MaxEntPPO > PPO"
    assert [text.get_text() for text in axis.get_yticklabels()] == ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", ALL]
    bars, points = axis.lines[1::2], axis.lines[2::2]
    assert [bar.get_ydata().tolist() for bar in bars] == [[place, place] for place in range(4)]
    assert [point.get_xdata().tolist() for point in points] == [[1.0], [0.0], [0.5], [0.5]]
    assert len({bar.get_color() for bar in bars}) == 3


def test_without_a_counterpart_there_is_nothing_to_say(make_run):
    make_run("PPO")
    make_run("MaxEntTRPO", algorithm="MaxEntTRPO")
    assert maximum_entropy_table(load_results(make_run.results), FEW) is None


def while_learning(make_run, ppo, maxent):
    """Verdicts of PPO's and MaxEntPPO's runs, each with its options, at the end and while learning."""
    for seed in range(5):
        for label, options in (("PPO", ppo), ("MaxEntPPO", maxent)):
            for env_id in ("HalfCheetah-v5", "Hopper-v5"):
                make_run(label, env_id, seed, **ONE_MODE, **options)
    results = load_results(make_run.results)
    return maximum_entropy_table(results, FEW), while_learning_table(results, FEW)


def test_while_learning_the_area_under_the_curve_counts_and_not_its_end(make_run):
    end, mean = while_learning(make_run, {"offset": 0, "final": 2100}, {"offset": 500, "final": 2000})
    assert set(end.data["entropy"]) == {"hurts"}
    assert mean.name == "while_learning"
    assert mean.data["environment"].tolist() == ["HalfCheetah-v5", "Hopper-v5", ALL]
    assert set(mean.data["probability"]) == {1.0}
    assert set(mean.data["entropy"]) == {"helps"}


def test_the_area_weighs_evaluations_by_the_steps_between_them(make_run):
    early, late = (0, 1_000, 2_000, 10_000), (0, 8_000, 10_000)  # lines whose plain means are the other way round
    ppo, maxent = ({"checkpoints": steps, "offset": 0} for steps in (early, late))
    _, mean = while_learning(make_run, ppo | {"final": 2000}, maxent | {"final": 1900})
    assert set(mean.data["entropy"]) == {"hurts"}


def test_runs_evaluated_once_have_no_curve(make_run):
    once = {"checkpoints": (10_000,)}
    end, mean = while_learning(make_run, once, once)
    assert end is not None
    assert mean is None
