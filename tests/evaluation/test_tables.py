"""Tables hold the numbers of the runs, and their text says the same."""

import io

import numpy as np
import pandas as pd
import pytest
import rich.console

from maxent_onpolicy.cli.registry import ALGORITHMS
from maxent_onpolicy.evaluation import tables
from maxent_onpolicy.evaluation.counterparts import STOCK, counterpart_table, side
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.settings import flatten, provenance_table, range_table, settings_tables
from maxent_onpolicy.evaluation.statistics import Estimate, iqm, probability_of_improvement

BOOTSTRAP = tables.Bootstrap(resamples=500)


@pytest.fixture(scope="module")
def results(two_by_two_read_only):
    return load_results(two_by_two_read_only)


def test_environment_table_holds_the_runs_numbers(results):
    data = tables.environment_table(results, BOOTSTRAP).data
    assert len(data) == 2 * 2 * 2
    for row in data.itertuples():
        finals = results.final(row.algorithm, row.environment, row.mode)
        assert row.seeds == 3
        assert row.return_sd == pytest.approx(finals.std(ddof=1))
        assert (row.return_min, row.return_max) == (finals.min(), finals.max())
        assert finals.min() <= row.return_low < finals.mean() < row.return_high <= finals.max()
        assert row.length == 1000
    assert data["return"].tolist() == pytest.approx(
        [results.final(row.algorithm, row.environment, row.mode).mean() for row in data.itertuples()]
    )


def test_aggregates_and_improvement_are_those_of_the_statistics(results):
    found = tables.aggregate_table(results, BOOTSTRAP).data.set_index(["algorithm", "mode"])
    scores = {label: results.final_scores(label, results.env_ids, "stochastic") for label in results.labels}
    assert found.loc[("PPO", "stochastic"), "iqm"] == pytest.approx(iqm(scores["PPO"]))
    assert found.loc[("PPO", "stochastic"), "runs"] == 6
    row = tables.improvement_table(results, BOOTSTRAP).data.set_index("mode").loc["stochastic"]
    assert (row["x"], row["y"]) == ("MaxEntPPO", "PPO")
    assert row["probability"] == pytest.approx(probability_of_improvement(scores["MaxEntPPO"], scores["PPO"]))


def test_algorithms_are_compared_where_both_were_run(make_run):
    for seed in range(3):
        for label in ("A", "B"):
            make_run(label, "Hopper-v5", seed=seed, final=1000.0)
        make_run("A", "Walker2d-v5", seed=seed, final=10.0)
        make_run("C", "Walker2d-v5", seed=seed, final=500.0)
    data = tables.improvement_table(load_results(make_run.results), BOOTSTRAP).data
    data = data[data["mode"] == "deterministic"].set_index(["x", "y"])
    assert sorted(data.index) == [("A", "B"), ("A", "C")]
    assert data["environments"].tolist() == [1, 1]
    assert data.loc[("A", "C"), "probability"] == 0.0


def test_ours_are_held_against_stock_classes_of_their_kind(make_run):
    for seed in range(3):
        make_run("Ours", seed=seed, final=100.0 + seed, algorithm="MaxEntPPO", modes=("deterministic",), noise=0)
        make_run("SB3 PPO", seed=seed, final=200.0 + seed, algorithm="SB3 PPO", modes=("deterministic",), noise=0)
        make_run("SB3 TRPO", seed=seed, final=300.0, algorithm="SB3 TRPO", modes=("deterministic",))
    table = counterpart_table(load_results(make_run.results), BOOTSTRAP)
    (row,) = table.data.to_dict("records")
    assert (row["algorithm"], row["counterpart"], row["side"]) == ("Ours", "SB3 PPO", "below")
    assert (row["return"], row["counterpart_return"], row["probability"]) == (101.0, 201.0, 0.0)
    assert table.text["Ours"].tolist() == ["below"]


def test_there_is_no_table_of_counterparts_without_any(results):
    assert counterpart_table(results, BOOTSTRAP) is None


def test_every_algorithm_of_ours_has_a_counterpart():
    ours = {name for name, entry in ALGORITHMS.items() if entry.module.startswith("maxent_onpolicy.algorithms")}
    assert ours == set(STOCK)
    assert set(STOCK.values()) == set(ALGORITHMS) - ours - {"GRPO"}


@pytest.mark.parametrize(("value", "expected"), [(0.9, "below"), (1.0, "within"), (3.0, "within"), (3.1, "above")])
def test_side_of_an_interval(value, expected):
    assert side(value, Estimate(2.0, 1.0, 3.0)) == expected
    assert side(value, Estimate(2.0, np.nan, np.nan)) == "within"


def test_score_ranges_and_problems_are_listed(make_run):
    make_run()
    make_run(seed=1, state="failed", error="OSError: disk full")
    results = load_results(make_run.results)
    ranges = range_table(results)
    assert ranges.data["environment"].tolist() == ["HalfCheetah-v5"]
    assert ranges.text["Score 1"].tolist() == ["5,819"]
    (problem,) = tables.problem_table(results).text.values.tolist()
    assert problem[1:] == ["failed", "stopped at 10,000 of 10,000 steps: OSError: disk full"]


def test_improvement_needs_no_normalisation(make_run):
    for seed in range(2):
        make_run("A", "Custom-v0", seed, final=10.0)
        make_run("B", "Custom-v0", seed, final=1000.0)
    results = load_results(make_run.results)
    assert tables.aggregate_table(results, BOOTSTRAP) is None
    assert range_table(results) is None
    assert tables.improvement_table(results, BOOTSTRAP).data["probability"].tolist() == [0.0, 0.0]


def test_one_algorithm_has_nothing_to_improve_on(make_run):
    make_run()
    results = load_results(make_run.results)
    assert tables.improvement_table(results, BOOTSTRAP) is None
    assert tables.problem_table(results) is None
    assert [table.name for table in settings_tables(results)] == ["settings"]
    assert "learning_rate" in settings_tables(results)[0].data["setting"].tolist()


def test_another_algorithm_leaves_the_intervals_of_the_first_alone(make_run):
    for seed in range(3):
        make_run("PPO", seed=seed)
    before = tables.environment_table(load_results(make_run.results), BOOTSTRAP).data
    make_run("A2C", "Hopper-v5", 0)
    after = tables.environment_table(load_results(make_run.results), BOOTSTRAP).data
    pd.testing.assert_frame_equal(before, after[after["algorithm"] == "PPO"].reset_index(drop=True))


def test_the_seed_decides_the_intervals_and_nothing_else(results):
    first, other = (tables.environment_table(results, tables.Bootstrap(seed, resamples=50)).data for seed in (0, 1))
    ends = [f"{name}_{end}" for name in ("return", "return_iqm", "length") for end in ("low", "high")]
    assert not first[ends].equals(other[ends])
    pd.testing.assert_frame_equal(first.drop(columns=ends), other.drop(columns=ends))


def test_the_middle_half_of_the_seeds_stands_beside_their_mean(make_run):
    for seed, final in enumerate((0.0, 1000.0, 1100.0, 5000.0)):
        make_run("PPO", seed=seed, final=final, offset=0.0, noise=0.0, modes=("deterministic",))
    table = tables.environment_table(load_results(make_run.results), BOOTSTRAP)
    row = table.data.iloc[0]
    assert row[["return", "return_iqm"]].tolist() == [1775.0, 1050.0]
    assert row["return_iqm_low"] < 1050 < row["return_iqm_high"]
    assert table.text["IQM"][0].startswith("1,050 [")


def test_modes_are_never_mixed(make_run):
    make_run("PPO", seed=0, modes=("deterministic",))
    make_run("RPO", seed=0, modes=("stochastic",))
    results = load_results(make_run.results)
    data = tables.environment_table(results, BOOTSTRAP).data
    assert data[["algorithm", "mode"]].values.tolist() == [["PPO", "deterministic"], ["RPO", "stochastic"]]
    assert tables.aggregate_table(results, BOOTSTRAP) is None
    assert tables.summary_table(results, BOOTSTRAP)["Algorithm"].tolist() == ["PPO"]
    assert "–" in tables.run_table(results).text.values


def test_cost_counts_wall_time(results):
    row = tables.cost_table(results).data.iloc[0]
    assert row["wall_seconds"] == pytest.approx(11)  # 10, 11 and 12 seconds
    assert (row["wall_seconds_min"], row["wall_seconds_max"]) == (10, 12)
    assert row["steps_per_second"] == pytest.approx(np.mean([10_000 / seconds for seconds in (10, 11, 12)]))


def test_steps_of_text_environments_are_called_what_they_are(make_run):
    make_run("GRPO", "textworld", 0)
    results = load_results(make_run.results)
    assert "Episodes/s" in tables.summary_table(results)
    assert {"Episodes", "Episodes/s"} <= set(tables.cost_table(results).text)
    assert "Episodes" in tables.run_table(results).text
    make_run("PPO", "Hopper-v5", 0)
    assert "Steps/s" in tables.summary_table(load_results(make_run.results))


def test_settings_show_what_differs_and_what_depends_on_environment_or_seed(make_run):
    make_run("PPO", "Hopper-v5", 0, tuning_budget="20 trials")
    make_run("PPO", "Hopper-v5", 1, tuning_budget="20 trials")
    make_run("PPO", "Ant-v5", 0, tuning_budget="20 trials", hyperparameters={"learning_rate": 1e-3})
    make_run("MaxEntPPO", "Hopper-v5", 0, tuning_budget="20 trials")
    different, shared = (table.data for table in settings_tables(load_results(make_run.results)))
    found = different.set_index("setting")
    assert different["setting"].iloc[0] == "tuning_budget"
    assert found.loc["tuning_budget", "PPO"] == "20 trials"
    assert found.loc["learning_rate", "PPO"] == "0.001 (Ant-v5); 0.0003 (Hopper-v5)"
    assert found.loc["learning_rate", "MaxEntPPO"] == "0.0003"
    assert found.loc["tau"].tolist() == ["0.02", "–"]
    assert found.loc["evaluation.seed", "PPO"] == "10000 to 10001, depending on the seed"
    assert shared.set_index("setting").loc["environment.normalize_observation", "value"] == "true"


def test_an_unstated_tuning_budget_is_said_to_be_unstated(make_run):
    make_run("MaxEntPPO")
    make_run("PPO", tuning_budget=None)
    stated = settings_tables(load_results(make_run.results))[0].data.iloc[0].tolist()
    assert stated == ["tuning_budget", "not stated", "not stated"]


def test_provenance_counts_distinct_values(make_run):
    for seed in range(6):
        folder = make_run(seed=seed)
        (folder / "provenance.json").write_text(f'{{"cpu": {{"cores": {seed}}}, "git": null}}')
    data = provenance_table(load_results(make_run.results)).data
    assert data[data["entry"] == "git"].values.tolist() == [["git", "null", 6]]
    assert data[data["entry"] == "cpu.cores"]["value"].tolist()[-1] == "… and 2 other values"
    assert data[data["entry"] == "cpu.cores"]["runs"].sum() == 6


def test_flatten():
    assert flatten({"a": {"b": [1, 2], "c": {}}, "d": "text", "e": None}) == {
        "a.b": "[1, 2]",
        "a.c": "{}",
        "d": "text",
        "e": "null",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (-0.001, "-0.001"),
        (-0.4, "-0.40"),
        (99.96, "100.0"),
        (0.0, "0.00"),
        (-1e-9, "0.000"),
        (float("nan"), "–"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert tables.number(value) == text


def test_estimates_have_equal_decimals():
    assert tables.estimate_text(Estimate(0.5, -12.25, 13.0)) == "0.5 [-12.2, 13.0]"
    assert tables.estimate_text(Estimate(1443.2, 1397.0, 1489.0)) == "1,443 [1,397, 1,489]"
    assert tables.estimate_text(Estimate(1443.2, np.nan, np.nan)) == "1,443"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7_500, "2 h 05 min"), (None, "–"), (np.nan, "–")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


def test_markdown_survives_pipes_and_csv_keeps_full_precision(tmp_path):
    frame = pd.DataFrame({"name": ["a|b\nc"], "value": [1 / 3]})
    table = tables.Table("t", "Title", "Caption.", frame, frame.astype(str))
    table.write(tmp_path)
    assert (tmp_path / "t.md").read_text() == (
        "**Title.** Caption.\n\n| name | value |\n| --- | --: |\n| a\\|b c | 0.3333333333333333 |\n"
    )
    assert pd.read_csv(tmp_path / "t.csv")["value"][0] == pytest.approx(1 / 3, abs=1e-10)


@pytest.mark.parametrize("label", ["PPO reward-augmented", "[bold]x", "averylongnamewithoutaspace" * 3])
def test_the_summary_fits_a_terminal_of_80_columns(make_run, label):
    for seed in range(2):
        make_run(label, "HalfCheetah-v5", seed, final=5000.0)
        make_run("PPO", "HalfCheetah-v5", seed, final=5000.0)
    results = load_results(make_run.results)
    console = rich.console.Console(width=80, file=io.StringIO(), color_system=None)
    console.print(tables.summary_renderable(results, BOOTSTRAP))
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    assert label.split()[0][:14] in printed
    assert tables.summary_table(results, BOOTSTRAP)["Return"][0] in printed
    assert "Preliminary: 2 seeds" in " ".join(printed.split())


def test_seeds_are_stated(make_run):
    for seed in range(10):
        make_run("PPO", seed=seed, checkpoints=(10,), train=False)
    assert tables.seeds_statement(load_results(make_run.results)) == "10 seeds for each algorithm and environment."
    make_run("RPO")
    assert tables.seeds_statement(load_results(make_run.results)) == (
        "Preliminary: 1 to 10 seeds for each algorithm and environment, fewer than 10."
    )
