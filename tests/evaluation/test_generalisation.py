"""Train and test returns, the gap between them, and published returns beside both."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run, write_tested_run

from maxent_onpolicy.evaluation import modes
from maxent_onpolicy.evaluation import statistics as stats
from maxent_onpolicy.evaluation.generalisation import (
    generalisation_curves,
    generalisation_scores,
    generalisation_table,
)
from maxent_onpolicy.evaluation.ranges import KeywordRanges, load_score_ranges, resolve_ranges
from maxent_onpolicy.evaluation.references import find_references, load_references
from maxent_onpolicy.evaluation.report import build_sections, write_report
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.tables import Bootstrap, environment_table, run_table, summary_caption, summary_table

BOOTSTRAP = Bootstrap(resamples=400)
EASY = {"distribution_mode": "easy", "num_levels": 200, "start_level": 0}
GAMES = ("procgen:coinrun", "procgen:fruitbot")


@pytest.fixture(scope="module")
def results_dir(tmp_path_factory):
    """Two algorithms on two games, two seeds: train and test returns 8 and 6 with PPO, 9 and 8.5 with MaxEntPPO."""
    folder = tmp_path_factory.mktemp("tested") / "results"
    for label, train, test in (("PPO", 8.0, 6.0), ("MaxEntPPO", 9.0, 8.5)):
        for game in GAMES:
            for seed in range(2):
                more = {"offset": 5.0, "kwargs": EASY}
                # the mode's factor of a stochastic run
                write_tested_run(folder, label, game, seed, final=(train + seed) / 0.9, test_final=test + seed, **more)
    return folder


@pytest.fixture(scope="module")
def results(results_dir):
    return load_results(results_dir)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_the_paired_difference_of_two_runs_is_that_of_their_three_resamples():
    found = stats.paired_difference([[1.0, 3.0]], [[0.0, 1.0]], rng=np.random.default_rng(0), statistics=["mean"])
    # 1 - 0, (1 + 3 - 0 - 1) / 2 and 3 - 1; X and Y drawn by themselves would reach from 0 to 3
    assert found["mean"] == (1.5, 1.0, 2.0)


def test_a_gap_that_all_runs_share_is_certain_however_much_the_runs_differ():
    train = np.random.default_rng(1).normal(size=(5, 3)) * 100
    found = stats.paired_difference(train, train - 2.0, rng=np.random.default_rng(0))
    for estimate in found.values():
        assert estimate == pytest.approx((2.0, 2.0, 2.0))
    assert list(found) == ["iqm", "mean"]


def test_the_difference_is_that_of_the_statistics_not_of_the_runs():
    x, y = [[0.0, 2.0, 4.0, 100.0]], [[3.0, 2.0, 1.0, 0.0]]
    found = stats.paired_difference(x, y, rng=np.random.default_rng(0))
    assert found["iqm"].value == 3.0 - 1.5
    assert found["mean"].value == 26.5 - 1.5


def test_resamples_are_stratified_by_task():
    x = [np.array([0.0, 0.0]), np.array([10.0, 10.0, 10.0])]
    y = [np.array([0.0, 0.0]), np.array([4.0, 4.0, 4.0])]
    assert stats.paired_difference(x, y, rng=np.random.default_rng(0))["mean"] == (3.0, 3.0, 3.0)


def test_one_run_has_no_interval_and_runs_must_pair_up():
    value, low, high = stats.paired_difference([[3.0]], [[1.0]], rng=np.random.default_rng(0))["mean"]
    assert value == 2.0
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match=r"the same runs of the same tasks, got \[2\] and \[1\] runs a task"):
        stats.paired_difference([[3.0, 1.0]], [[1.0]], rng=np.random.default_rng(0))


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_of_evaluations():
    name = modes.family("stochastic", "test")
    assert modes.FAMILIES[:2] == ("deterministic, test", "stochastic, test"), "the test distribution leads"
    assert (modes.slug(name), modes.split_of(name), modes.split_of("stochastic")) == ("stochastic_test", "test", "")
    assert modes.policy_words(name) == "stochastic policy on the test distribution"
    assert modes.policy_words("stochastic") == "stochastic policy"
    assert modes.adjective(name) == "stochastic test"


# --- results ---------------------------------------------------------------------------------------------------------


def test_the_test_distribution_leads_and_both_are_apart(results):
    assert results.modes == ["stochastic, test", "stochastic, train"]
    assert results.tested == [("stochastic", "stochastic, test", "stochastic, train")]
    assert results.final("PPO", GAMES[0], "stochastic, train").tolist() == pytest.approx([8.0, 9.0])
    assert results.final("PPO", GAMES[0], "stochastic, test").tolist() == pytest.approx([6.0, 7.0])
    assert summary_table(results, BOOTSTRAP)["Return"].tolist() == ["9.00", "6.50", "9.00", "6.50"]
    assert summary_caption(results).startswith("Final stochastic test return in raw reward")
    shown = environment_table(results, BOOTSTRAP).data
    assert set(shown["mode"]) == {"stochastic, test", "stochastic, train"}
    assert {"stochastic_test_return", "stochastic_train_return"} <= set(run_table(results).data)


def test_without_a_test_distribution_nothing_is_said_of_one(two_by_two_read_only):
    results = load_results(two_by_two_read_only)
    assert (results.modes, results.tested) == (["deterministic", "stochastic"], [])
    for make in (generalisation_table, generalisation_scores, generalisation_curves):
        assert make(results, BOOTSTRAP) is None
    assert "generalisation" not in [section.anchor for section in build_sections(results, Bootstrap(resamples=50))]


def test_runs_without_a_test_evaluation_are_judged_on_training_only(tmp_path):
    write_tested_run(tmp_path / "r", "A", "Custom-v0")
    write_run(tmp_path / "r", "B", "Custom-v0", modes=("stochastic",))
    results = load_results(tmp_path / "r")
    assert len(results.final("B", "Custom-v0", "stochastic, train")) == 1
    assert not len(results.final("B", "Custom-v0", "stochastic, test"))
    assert any("Not every algorithm has a stochastic test evaluation on Custom-v0" in note for note in results.notes)
    assert generalisation_table(results, BOOTSTRAP).data["algorithm"].tolist() == ["A"]


def test_the_gap_is_over_the_runs_that_have_both_returns(tmp_path):
    for seed in (3, 0):
        write_tested_run(tmp_path / "r", "A", GAMES[0], seed, kwargs=EASY)
    write_run(tmp_path / "r", "A", GAMES[0], 1, modes=("stochastic",), environment={"kwargs": EASY})
    results = load_results(tmp_path / "r")
    assert "Only 2 of 3 runs of A on procgen:coinrun have a stochastic test evaluation." in results.notes
    table = generalisation_table(results, BOOTSTRAP).data.iloc[0]
    assert table["seeds"] == 2
    train = results.final("A", GAMES[0], "stochastic, train")
    assert len(train) == 3
    assert table["train"] == pytest.approx(train[[0, 3]].mean())
    assert table["gap"] == pytest.approx(table["train"] - table["test"])
    assert generalisation_scores(results, BOOTSTRAP).data["runs"].iloc[0] == 2


def test_an_unknown_split_is_a_problem(tmp_path):
    write_tested_run(tmp_path / "r", seed=0)
    folder = write_tested_run(tmp_path / "r", seed=1)
    frame = pd.read_csv(folder / "eval.csv")
    frame.assign(split=None).to_csv(folder / "eval.csv", index=False)
    (problem,) = load_results(tmp_path / "r").problems
    assert problem.reason == "eval.csv holds the unknown split 'nan'"


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_table_holds_both_returns_the_gap_and_what_was_published(results):
    table = generalisation_table(results, BOOTSTRAP)
    rows = table.data[table.data["environment"] == GAMES[0]].set_index("algorithm")
    assert rows.index.tolist() == ["MaxEntPPO", "PPO", "published PPO, 25M steps, other settings"]
    ours, published = rows.loc["PPO"], rows.iloc[2]
    assert (ours["train"], ours["test"], ours["gap"]) == pytest.approx((8.5, 6.5, 2.0))
    assert (ours["gap_low"], ours["gap_high"]) == pytest.approx((2.0, 2.0)), "all runs share the gap"
    assert ours["train_low"] == pytest.approx(8.0)
    assert (published["train"], published["test"], published["gap"]) == pytest.approx((9.6, 8.7, 0.9))
    assert (published["seeds"], np.isnan(published["train_low"])) == (3, True)
    assert "(num_levels=0)" in table.caption
    assert "train-procgen" in table.caption
    assert table.text["Gap"].tolist()[:2] == ["0.50 [0.50, 0.50]", "2.00 [2.00, 2.00]"]


def test_intervals_of_returns_are_those_of_the_other_tables(results):
    both = generalisation_table(results, BOOTSTRAP).data.set_index(["environment", "algorithm"])
    for row in environment_table(results, BOOTSTRAP).data.itertuples():
        split = modes.split_of(row.mode)
        here = both.loc[(row.environment, row.algorithm)]
        assert (here[f"{split}_low"], here[f"{split}_high"]) == (row.return_low, row.return_high)


def test_scores_over_environments_are_normalised_and_paired(results):
    table = generalisation_scores(results, BOOTSTRAP)
    rows = table.data.set_index(["statistic", "algorithm"])
    coinrun, fruitbot = (8.5 - 5) / 5, (8.5 + 1.5) / 33.9
    assert rows.loc[("Mean", "PPO"), "train"] == pytest.approx((coinrun + fruitbot) / 2)
    assert rows.loc[("Mean", "PPO"), "gap"] == pytest.approx((2 / 5 + 2 / 33.9) / 2)
    assert rows.loc[("Mean", "PPO"), "gap_low"] == pytest.approx(rows.loc[("Mean", "PPO"), "gap_high"])
    iqm = rows.loc[("IQM", "PPO")]
    assert iqm["gap"] == pytest.approx(iqm["train"] - iqm["test"])
    published = rows.loc[("Mean", "published PPO, 25M steps, other settings")]
    assert published["train"] == pytest.approx(((9.6 - 5) / 5 + (29.7 + 1.5) / 33.9) / 2)
    assert ("IQM", "published PPO, 25M steps, other settings") not in rows.index


def test_published_means_need_a_return_for_every_environment(tmp_path):
    ranges = {"environments": {"Custom-v0": {"low": 0, "high": 10}}}
    for game in (*GAMES[:1], "Custom-v0"):
        write_tested_run(tmp_path / "r", env_id=game, final=8.0, test_final=6.0, offset=5.0, kwargs=EASY)
    (tmp_path / "r" / "score_ranges.json").write_text(json.dumps(ranges))
    results = load_results(tmp_path / "r")
    assert set(generalisation_scores(results, BOOTSTRAP).data["algorithm"]) == {"PPO"}
    assert len(generalisation_table(results, BOOTSTRAP).data) == 3


# --- figure ----------------------------------------------------------------------------------------------------------


def test_the_figure_draws_train_solid_and_test_dashed_in_one_colour(results):
    plot = generalisation_curves(results, BOOTSTRAP)
    assert plot.name == "generalisation_curves"
    axis = plot.figure.axes[0]
    curves, levels = axis.lines[:0], []
    for line in axis.lines:
        (levels if len(line.get_xdata()) == 2 else curves).append(line)
    assert [line.get_linestyle() for line in curves] == ["-", "--", "-", "--"]
    assert curves[0].get_color() == curves[1].get_color() != curves[2].get_color()
    assert curves[2].get_ydata()[-1] == pytest.approx(8.5)
    assert curves[3].get_ydata()[-1] == pytest.approx(6.5)
    assert [line.get_ydata()[0] for line in levels] == [9.6, 8.7]
    names = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    assert [name for name in names if name][:4] == ["MaxEntPPO", "PPO", "training distribution", "test distribution"]
    assert names[-1] == "published PPO at 25M steps (other settings), test"


def test_marks_tell_algorithms_of_one_colour_apart(tmp_path):
    for number in range(12):
        name = f"A{number:02}"
        write_tested_run(tmp_path / "r", name, GAMES[0], final=8.0, test_final=6.0, offset=5.0, kwargs=EASY)
    figure = generalisation_curves(load_results(tmp_path / "r"), BOOTSTRAP).figure
    curves = [line for line in figure.axes[0].lines if line.get_linestyle() in ("-", "--")]
    pairs = [{(line.get_color(), line.get_marker()) for line in curves[i : i + 2]} for i in range(0, 24, 2)]
    assert all(len(pair) == 1 for pair in pairs), "both curves of an algorithm alike"
    assert len(set.union(*pairs)) == 12
    handles = figure.legends[0].get_lines()[:12]
    assert [{(line.get_color(), line.get_marker() or "None")} for line in handles] == [
        {(colour, marker or "None")} for ((colour, marker),) in pairs
    ]


def test_published_returns_far_from_all_curves_are_written_and_squash_nothing(results):
    near, far = generalisation_curves(results, BOOTSTRAP).figure.axes
    assert [text.get_text() for text in near.texts] == []
    (note,) = far.texts
    assert note.get_text() == ("published PPO at 25M steps (other settings):\ntrain 29.7, test 26.5, beyond this panel")
    assert all(len(line.get_xdata()) > 2 for line in far.lines)
    assert far.get_ylim()[1] < 20
    lowest = note.get_window_extent().y0
    highest = max(far.transData.transform((0, line.get_ydata().max()))[1] for line in far.lines)
    assert lowest > highest


@pytest.mark.parametrize("labels", [1, 3, 9])
def test_its_legend_covers_no_panel(tmp_path, labels):
    for number in range(labels):
        name = (
            f"algorithm {number} with settings that take many words, and more than fit" if number == 2 else f"A{number}"
        )
        write_tested_run(tmp_path / "r", name, GAMES[0], final=8.0, test_final=6.0, offset=5.0, kwargs=EASY)
    plot = generalisation_curves(load_results(tmp_path / "r"), BOOTSTRAP)
    assert plot.svg
    legend = plot.figure.legends[0].get_window_extent()
    assert plot.figure.bbox.x0 <= legend.x0 < legend.x1 <= plot.figure.bbox.x1
    assert all(legend.y0 >= axis.get_tightbbox().y1 - 1 for axis in plot.figure.axes)


# --- report ----------------------------------------------------------------------------------------------------------


def test_the_report_has_a_section_with_files_of_its_own(results_dir, blank_figures, tmp_path):
    page = write_report(results_dir, resamples=100, output_dir=tmp_path)
    written = {path.name for folder in ("tables", "figures") for path in (tmp_path / folder).iterdir()}
    assert {"generalisation.csv", "generalisation_scores.md", "generalisation_curves.svg"} <= written
    assert {"learning_curves_stochastic_test.svg", "learning_curves_stochastic_train.svg"} <= written
    text = page.read_text()
    assert 'id="generalisation"' in text
    assert "Checkpoints were judged twice" in text
    assert "0 and 1 are the two returns in the table of score ranges" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_what_is_left_of_a_report_with_a_test_distribution_is_removed(
    results_dir, two_by_two_read_only, blank_figures, tmp_path
):
    write_report(results_dir, resamples=50, output_dir=tmp_path)
    write_report(two_by_two_read_only, resamples=50, output_dir=tmp_path)
    assert not list(tmp_path.glob("*/generalisation*"))
    assert not list(tmp_path.glob("*/learning_curves_stochastic_test*"))


# --- constants and references ----------------------------------------------------------------------------------------


def test_ranges_of_procgen_depend_on_the_distribution_mode():
    entries = load_score_ranges()
    games = [env_id for env_id, entry in entries.items() if isinstance(entry, KeywordRanges) and "procgen" in env_id]
    assert len(games) == 16
    used = {"procgen:starpilot": [EASY, {**EASY, "num_levels": 0}], "procgen:miner": [{"num_levels": 200}]}
    ranges, notes = resolve_ranges(entries, used)
    assert ranges["procgen:starpilot"][:2] == (2.5, 64)
    assert ranges["procgen:miner"][:2] == (1.5, 20), "hard is Procgen's default"
    assert ranges["procgen:starpilot"].high_source.endswith("(distribution_mode easy)")
    assert "procgen:coinrun" not in ranges, "none of the runs is on it"
    assert notes == []
    assert "procgen:miner" not in resolve_ranges(entries, {"procgen:miner": [{"distribution_mode": "memory"}]})[0]


def test_turns_that_advance_have_a_range_of_their_own():
    task = "MiniGrid-Empty-8x8-v0"
    entries = load_score_ranges()
    own, easier = (resolve_ranges(entries, {task: [kwargs]})[0][task] for kwargs in ({}, {"advancing_turns": True}))
    assert own.low < 0.1 < 0.4 < easier.low
    assert own.high == easier.high == 1
    assert easier.low_source.endswith("(advancing_turns True)")


def test_runs_of_different_distribution_modes_have_no_range_and_say_so(tmp_path):
    write_tested_run(tmp_path / "r", "A", GAMES[0], kwargs=EASY)
    write_tested_run(tmp_path / "r", "B", GAMES[0], kwargs={"num_levels": 200})
    results = load_results(tmp_path / "r")
    assert GAMES[0] not in results.ranges
    assert any("distribution_mode easy and hard" in note for note in results.notes)
    assert generalisation_scores(results, BOOTSTRAP) is None


def test_a_range_of_your_own_replaces_one_by_keyword(tmp_path):
    write_tested_run(tmp_path / "r", "A", GAMES[0], kwargs=EASY)
    own = {"environments": {GAMES[0]: {"low": 0, "high": 1}}}
    (tmp_path / "r" / "score_ranges.json").write_text(json.dumps(own))
    assert load_results(tmp_path / "r").ranges[GAMES[0]][:2] == (0, 1)


def test_published_returns_agree_with_the_mean_scores_of_the_curves_behind_them():
    """These were computed from unrounded returns, with train-procgen's own ranges of Jumper and Leaper."""
    (entry,) = load_references()
    ranges, _ = resolve_ranges(load_score_ranges(), {key: [EASY] for key in entry["returns"]})
    ranges["procgen:jumper"] = ranges["procgen:jumper"]._replace(low=1)
    ranges["procgen:leaper"] = ranges["procgen:leaper"]._replace(low=1.5)
    assert len(entry["returns"]) == 16
    for split, stated in (("train", 0.596), ("test", 0.354)):
        scores = [(r[split] - ranges[e].low) / (ranges[e].high - ranges[e].low) for e, r in entry["returns"].items()]
        assert np.mean(scores) == pytest.approx(stated, abs=0.003)


@pytest.mark.parametrize(
    ("train", "test", "fits"),
    [
        (EASY, {**EASY, "num_levels": 0}, True),
        ({"distribution_mode": "easy", "num_levels": 200}, {"distribution_mode": "easy"}, True),  # defaults
        ({**EASY, "num_levels": 500}, {**EASY, "num_levels": 0}, False),
        ({**EASY, "distribution_mode": "hard"}, {**EASY, "num_levels": 0}, False),
        (EASY, {**EASY, "num_levels": 200}, False),
    ],
)
def test_references_are_shown_where_everything_matches(train, test, fits):
    found = find_references(load_references(), GAMES[0], [(train, test)])
    assert bool(found) is fits
    assert find_references(load_references(), "CartPole-v1", [(train, test)]) == []
    assert not find_references(load_references(), GAMES[0], [(train, test), ({}, {})]), "every run must fit"
