"""Figures show what they claim to, and come out the same every time."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

from maxent_onpolicy.evaluation import drawing, plots
from maxent_onpolicy.evaluation.matrix import improvement_matrix
from maxent_onpolicy.evaluation.report import build_sections
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.tables import Bootstrap, aggregate_table, improvement_table

BOOTSTRAP = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def results(two_by_two_read_only):
    return load_results(two_by_two_read_only)


def lines(axis):
    """Data of the lines of a panel, thick ones (means) and thin ones (runs)."""
    return (
        [line for line in axis.lines if line.get_linewidth() > 1],
        [line for line in axis.lines if line.get_linewidth() < 1],
    )


def test_learning_curves_draw_the_mean_and_every_run(results):
    plot = plots.learning_curves(results, "stochastic", BOOTSTRAP)
    axes = plot.figure.axes
    assert [axis.get_title() for axis in axes] == results.env_ids
    means, runs = lines(axes[1])
    expected = results.curves("PPO", "Hopper-v5", "stochastic")
    assert len(means) == 2
    assert len(runs) == 6
    assert means[1].get_xdata().tolist() == [0, 5_000, 10_000]
    assert means[1].get_ydata() == pytest.approx(expected.values.mean(axis=0))
    assert [run.get_ydata().tolist() for run in runs[3:]] == expected.values.tolist()
    band = axes[1].collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(expected.values.min(), rel=0.2)
    assert plot.name == "learning_curves_stochastic"


@pytest.mark.parametrize(
    "labels",
    [
        ("PPO", "RPO", "MaxEntPPO with a rather long name that says what its settings are, all of them"),
        # which do not fill all columns of a legend alike
        ("Clip-Cov", "EPO, differentiable", "GRPO", "GRPO, entropy bonus", "MaxEnt GRPO", "MaxEnt GRPO, no critic"),
    ],
)
def test_the_legend_covers_no_panel(make_run, labels):
    for label in labels:
        for seed in range(2):
            make_run(label, seed=seed)
    results = load_results(make_run.results)
    found = [
        plots.learning_curves(results, "deterministic", BOOTSTRAP),
        plots.diagnostics_plot(results, "HalfCheetah-v5"),
    ]
    found += [plots.profile_plot(results, "deterministic", BOOTSTRAP)]
    for plot in found:
        assert plot.svg
        legend = plot.figure.legends[0].get_window_extent()
        inside = plot.figure.bbox
        assert inside.x0 <= legend.x0 < legend.x1 <= inside.x1
        assert legend.y1 <= inside.y1 + 1
        for axis in plot.figure.axes:
            assert legend.y0 >= axis.get_tightbbox().y1 - 1


def test_intervals_are_drawn_from_end_to_end(results):
    table = aggregate_table(results, BOOTSTRAP).data
    plot = plots.aggregate_plot(table, results, BOOTSTRAP)
    bar, point, *_ = plot.figure.axes[0].lines
    row = table[(table["algorithm"] == "MaxEntPPO") & (table["mode"] == "deterministic")].iloc[0]
    assert bar.get_xdata().tolist() == [row["iqm_low"], row["iqm_high"]]
    assert bar.get_solid_capstyle() == "butt"
    assert point.get_xdata() == row["iqm"]
    table = improvement_table(results, BOOTSTRAP).data
    plot = plots.improvement_plot(table, BOOTSTRAP)
    axis = plot.figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["MaxEntPPO > PPO"]
    assert axis.lines[1].get_xdata().tolist() == table.iloc[0][["probability_low", "probability_high"]].tolist()


def test_many_algorithms_are_compared_in_a_matrix(make_run):
    for index, label in enumerate("ABCDEFG"):
        for seed in range(3):
            make_run(label, seed=seed, final=1000.0 * (index + 1), modes=("deterministic",), train=False)
    results = load_results(make_run.results)
    data = improvement_table(results, BOOTSTRAP).data
    (axis,) = improvement_matrix(data, BOOTSTRAP).figure.axes
    cells = {tuple(int(place) for place in text.get_position()): text for text in axis.texts}
    assert len(cells) == 7 * 6, "nobody is compared with itself"
    assert (cells[0, 6].get_text(), cells[6, 0].get_text()) == ("1.00", "0.00"), "column 0 is A, row 6 is G"
    assert cells[0, 6].get_weight() == "bold"
    assert [label.get_text() for label in axis.get_yticklabels()] == list("ABCDEFG")
    (section,) = [each for each in build_sections(results, BOOTSTRAP) if each.anchor == "improvement"]
    assert "of the row" in section.blocks[0].caption


def test_profile_and_efficiency_end_where_the_scores_do(results):
    axis = plots.profile_plot(results, "deterministic", BOOTSTRAP).figure.axes[0]
    for line in axis.lines:
        assert line.get_ydata()[-1] == 0
    scores = np.concatenate(results.final_scores("PPO", results.env_ids, "deterministic"))
    profile = axis.lines[1]
    assert profile.get_ydata() == pytest.approx([np.mean(scores > tau) for tau in profile.get_xdata()])
    axis = plots.efficiency_plots(results, "deterministic", BOOTSTRAP)[0].figure.axes[0]
    table = aggregate_table(results, BOOTSTRAP).data.set_index(["algorithm", "mode"])
    assert axis.lines[1].get_ydata()[-1] == pytest.approx(table.loc[("PPO", "deterministic"), "iqm"])


def test_minutes_are_those_that_runs_had_taken():
    slow = pd.DataFrame({"timesteps": [100, 200], "wall_seconds": [60, 180]})
    fast = pd.DataFrame({"timesteps": [100, 300], "wall_seconds": [30, 90]})
    assert plots.mean_minutes([slow], np.array([0, 50, 100, 150, 200, 400])).tolist() == [0, 0.5, 1, 2, 3, 6]
    assert plots.mean_minutes([slow, fast], np.array([100, 200])).tolist() == [0.75, 2.0]
    assert plots.mean_minutes([slow, slow[:0]], np.array([100])) is None


def times(results, seconds_per_step):
    """Write a train.csv for every run of the given algorithms."""
    for label, seconds in seconds_per_step.items():
        for path in (results / "runs" / label).glob("*/seed_*/train.csv"):
            steps = np.array([5_000, 10_000])
            pd.DataFrame({"timesteps": steps, "wall_seconds": steps * seconds}).to_csv(path, index=False)


def test_wall_clock_efficiency_ends_when_the_runs_do(two_by_two):
    times(two_by_two, {"PPO": 0.006, "MaxEntPPO": 0.012})
    found = load_results(two_by_two)
    by_steps, by_time = plots.efficiency_plots(found, "deterministic", BOOTSTRAP)
    axis = by_time.figure.axes[0]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[0, 1, 2], [0, 0.5, 1]]
    for line, same in zip(axis.lines, by_steps.figure.axes[0].lines, strict=True):
        assert line.get_ydata().tolist() == same.get_ydata().tolist()
    assert axis.get_xscale() == "linear"


def test_times_far_apart_are_drawn_on_a_logarithmic_scale(two_by_two):
    times(two_by_two, {"PPO": 0.006, "MaxEntPPO": 0.6})
    axis = plots.efficiency_plots(load_results(two_by_two), "deterministic", BOOTSTRAP)[1].figure.axes[0]
    assert axis.get_xscale() == "log"
    assert [line.get_xdata().tolist() for line in axis.lines] == [[50, 100], [0.5, 1]]


def test_figures_that_do_not_apply_are_none(make_run):
    make_run(env_id="Custom-v0", train=False)
    results = load_results(make_run.results)
    assert plots.profile_plot(results, "deterministic", BOOTSTRAP) is None
    assert plots.efficiency_plots(results, "deterministic", BOOTSTRAP) == []
    assert plots.diagnostics_plot(results, "Custom-v0") is None


def test_curves_that_do_not_overlap_are_left_out(make_run):
    make_run(seed=0, checkpoints=(0, 10))
    make_run(seed=1, checkpoints=(100, 200))
    results = load_results(make_run.results)
    assert not plots.learning_curves(results, "deterministic", BOOTSTRAP).figure.axes[0].lines
    assert plots.efficiency_plots(results, "deterministic", BOOTSTRAP) == []


def test_a_single_checkpoint_is_visible(make_run):
    make_run(checkpoints=(100,))
    (mean,), _ = lines(plots.learning_curves(load_results(make_run.results), "deterministic", BOOTSTRAP).figure.axes[0])
    assert mean.get_marker() not in ("", "None")


def test_diagnostics_show_what_was_logged(results):
    plot = plots.diagnostics_plot(results, "Hopper-v5")
    panels = {axis.get_title(): axis for axis in plot.figure.axes}
    assert {"Episode length", "Temperature τ", "Entropy share of advantage", "Action std"} <= set(panels)
    assert "Explained variance (entropy)" not in panels  # no run logged it
    means, runs = lines(panels["Temperature τ"])  # only MaxEntPPO has one
    assert (len(means), len(runs)) == (1, 3)
    assert means[0].get_ydata() == pytest.approx(0.02)
    assert plot.name == "diagnostics_Hopper-v5"


def test_labels_are_not_formulas(make_run):
    make_run(r"$\tau$ $\nonsense{", "Hopper-v5")
    assert plots.learning_curves(load_results(make_run.results), "deterministic", BOOTSTRAP).svg


def test_file_names_of_environments_with_a_slash(make_run):
    make_run(env_id="ALE/Pong-v5")
    assert plots.diagnostics_plot(load_results(make_run.results), "ALE/Pong-v5").name == "diagnostics_ALE_Pong-v5"


def test_thinning_averages_and_skips_what_is_missing():
    frame = pd.DataFrame({"timesteps": np.arange(600.0), "x": np.arange(600.0) * 2})
    grid, values = plots.thin([frame, frame.assign(x=1.0)], "x")
    assert values.shape == (2, len(grid)) == (2, 40)
    assert values[0] == pytest.approx(2 * grid)
    assert values[1] == pytest.approx(1)
    holes = pd.DataFrame({"timesteps": [1, 2, 3, 4], "x": [np.nan, 2, np.inf, "bad"]})
    grid, values = plots.thin([holes], "x")
    assert (grid.tolist(), values.tolist()) == ([2], [[2]])
    assert plots.thin([holes.assign(x=np.nan)], "x") is None
    assert plots.thin([frame, frame.assign(timesteps=frame["timesteps"] + 1000)], "x") is None


def test_many_algorithms_have_a_panel_for_each_family(make_run):
    for kind in ("PPO", "MaxEntPPO", "RPO", "SB3 PPO", "TRPO", "MaxEntTRPO", "SAC"):
        make_run(f"our {kind}", "Ant-v5", algorithm=kind)
        if kind != "SAC":
            make_run(f"our {kind}", "Hopper-v5", algorithm=kind)
    make_run("our TRPO", "Ant-v5", seed=1, algorithm="TRPO")
    figure = plots.learning_curves(load_results(make_run.results), "deterministic", BOOTSTRAP).figure
    panels = [(axis.get_ylabel(), axis.get_title(), *map(len, lines(axis))) for axis in figure.axes]
    assert panels == [  # means, and runs behind them
        ("Ant-v5", "PPO", 4, 4),
        ("", "TRPO", 2, 3),
        ("", "SAC", 1, 1),
        ("Hopper-v5", "PPO", 4, 4),
        ("", "TRPO", 2, 2),
    ]


def test_many_algorithms_of_one_family_hide_their_single_runs(make_run):
    for number in range(plots.MANY):
        make_run(f"PPO {number}")
    plot = plots.learning_curves(load_results(make_run.results), "deterministic", BOOTSTRAP)
    means, runs = lines(*plot.figure.axes)
    assert (len(means), len(runs)) == (plots.MANY, 0)
    assert "single run" not in plot.caption


def test_files_are_the_same_bytes_whatever_the_users_style(results, tmp_path):
    def files():
        plots.learning_curves(results, "deterministic", BOOTSTRAP).write(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    folder = tmp_path / "figures"
    folder.mkdir()
    first = files()
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "svg.hashsalt": None, "lines.linewidth": 9}):
        assert files() == first
    svg = first["learning_curves_deterministic.svg"].decode()
    assert "<dc:date>" not in svg
    assert "<text" not in svg  # text is paths: no font needed
    assert not re.search(r"20\d\d-\d\d-\d\dT", svg)


def test_paths_are_exact_to_a_hundredth_of_a_point():
    drawn = b'<path id="a1.23456" d="M 1.23456 -2.996 \nL 30 0.004 \nQ 1.5 2 3 4.10 \nz\n" style="line: 0.875"/>'
    assert drawing.rounded(drawn) == b'<path id="a1.23456" d="M 1.23 -3 L 30 0 Q 1.5 2 3 4.1 z" style="line: 0.875"/>'


def test_names_in_a_drawing_do_not_depend_on_how_a_processor_rounds():
    drawn = (
        b'<use xlink:href="#mfedcba9876"/><path clip-path="url(#p0123456789)" style="fill: #012345"/>'
        b'<path id="mfedcba9876"/><clipPath id="p0123456789"/><g id="patch_1"/>'
    )
    expected = (
        b'<use xlink:href="#m1"/><path clip-path="url(#p2)" style="fill: #012345"/>'
        b'<path id="m1"/><clipPath id="p2"/><g id="patch_1"/>'
    )
    assert drawing.numbered(drawn) == expected


def test_no_name_in_a_figure_comes_from_exact_coordinates(results):
    svg = plots.learning_curves(results, "deterministic", BOOTSTRAP).svg.decode()
    names = set(re.findall(r'id="([mp]\w+)"', svg))
    assert {"m1", "p2"} <= names or {"p1", "m2"} <= names
    assert set(re.findall(r"url\(#(\w+)\)", svg)) <= names
    assert not [name for name in names if re.fullmatch(r"[mp][0-9a-f]{10}", name)]


def test_algorithms_are_told_apart_without_colour(make_run):
    for number in range(24):
        make_run(f"algorithm {number:02}", train=False)
    looks = drawing.looks_of(load_results(make_run.results))
    assert len({(look.colour, str(look.line)) for look in looks.values()}) == 24
    assert len({look.colour for look in list(looks.values())[:10]}) == 10
    assert len({str(look.line) for look in list(looks.values())[:5]}) == 5
