"""Tables of where runs began and where they ended."""

from math import isnan

import pandas as pd
import pytest
from synthetic_runs import write_tested_run

from maxent_onpolicy.evaluation.report import build_sections
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.tables import Bootstrap
from maxent_onpolicy.evaluation.training import ends_of, gain_table, training_table

FEW = Bootstrap(resamples=50)


def test_ends_are_a_tenth_of_the_rows_that_have_a_value():
    frame = pd.DataFrame({"train/entropy": [None, *range(20), float("inf")], "train/std": ["", *["x"] * 21]})
    assert ends_of(frame, "train/entropy") == (0.5, 18.5)
    assert ends_of(frame[1:4], "train/entropy") == (0.0, 2.0), "few rows: the first and the last"
    assert all(map(isnan, (*ends_of(frame, "train/std"), *ends_of(frame, "train/tau"))))


def test_entropy_is_shown_at_both_ends(two_by_two_read_only):
    results = load_results(two_by_two_read_only)
    table = training_table(results, FEW)
    assert list(table.text.columns) == [
        *("Environment", "Algorithm", "Seeds", "Entropy, first", "Entropy, last", "Explained variance, value"),
        *("Action std", "Clipped actions"),
    ]
    assert len(table.data) == 4
    run = results.used[0]
    same = [each for each in results.used if (each.label, each.env_id) == (run.label, run.env_id)]
    ends = [ends_of(each.read_train(), "train/entropy") for each in same]
    row = table.data[(table.data["algorithm"] == run.label) & (table.data["environment"] == run.env_id)].iloc[0]
    assert row["entropy_first"] == pytest.approx(sum(first for first, _ in ends) / 3)
    assert row["entropy_last"] == pytest.approx(sum(last for _, last in ends) / 3)
    assert row["std_last"] == pytest.approx(sum(ends_of(each.read_train(), "train/std")[1] for each in same) / 3)
    assert row["entropy_last_low"] <= row["entropy_last"] <= row["entropy_last_high"]


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_clipped_actions_are_left_out_where_none_can_be(make_run, share):
    folder = make_run()
    frame = pd.read_csv(folder / "train.csv").assign(**{"train/clipped_actions": share})
    frame.to_csv(folder / "train.csv", index=False)
    table = training_table(load_results(make_run.results), FEW)
    assert ("Clipped actions" in table.text) == ("Clipped actions" in table.caption) == (share > 0)


def test_runs_that_logged_nothing_have_no_table(make_run):
    make_run(train=False)
    assert training_table(load_results(make_run.results), FEW) is None


def test_gain_is_that_of_the_same_run_and_mode(make_run):
    for seed in range(3):
        make_run(seed=seed, final=1000.0 + 100 * seed, offset=100.0 * seed, noise=0.0)
    table = gain_table(load_results(make_run.results), FEW)
    found = table.data.set_index("mode")[["before", "gain", "gain_low", "gain_high"]]
    assert found.loc["deterministic"].tolist() == pytest.approx([100.0, 1000.0, 1000.0, 1000.0])
    assert found.loc["stochastic"].tolist() == pytest.approx([90.0, 900.0, 900.0, 900.0])
    assert table.text["Gain"].tolist() == ["1,000 [1,000, 1,000]", "900 [900, 900]"]


def test_gain_tells_training_from_test(tmp_path):
    for seed in range(2):
        write_tested_run(tmp_path, seed=seed, final=1000.0, test_final=400.0)
    table = gain_table(load_results(tmp_path), FEW)
    assert dict(zip(table.data["mode"], table.data["gain"], strict=True)) == pytest.approx(
        {"stochastic, test": 310.0, "stochastic, train": 810.0}
    )


def test_there_is_no_gain_where_nobody_was_judged_before(make_run):
    make_run(checkpoints=(5_000, 10_000))
    results = load_results(make_run.results)
    assert gain_table(results, FEW) is None
    names = [block.name for section in build_sections(results, FEW) for block in section.blocks]
    assert "gain" not in names
    assert "training" in names
