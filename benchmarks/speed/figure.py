"""One figure of the measurements: the peers, the parts of an iteration, the number of environments."""

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from benchmarks.speed.summary import Measurements
from benchmarks.speed.tables import HEADLINE, contender_label
from maxent_onpolicy.evaluation.plots import COLOURS, INK, WIDTH, Plot

OURS, THEIRS = COLOURS[0], COLOURS[6]
PARTS = {
    "env": "environment",
    "policy": "policy, loop",
    "buffer": "buffer, GAE",
    "update": "update",
    "logging": "logging",
}
PART_COLOURS = dict(zip(PARTS, (COLOURS[2], COLOURS[5], COLOURS[4], COLOURS[1], COLOURS[3]), strict=True))
STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 7.5, "axes.axisbelow": True}


def speed_plot(measured: Measurements) -> Plot:
    """Draw the figure; a panel without measurements says so."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        peers, parts, scaling = figure.subplots(1, 3, width_ratios=(1.2, 1.05, 1.05))
        _peers(peers, measured)
        _parts(parts, measured)
        _scaling(scaling, measured)
    caption = (
        "PPO on HalfCheetah-v5, minibatch 64. Left: steps a second with 8 environments, medians and range over rounds. "
        "Middle: milliseconds of an iteration of 2,048 steps. Right: steps a second by number of environments."
    )
    return Plot("speed", "Training speed", caption, figure)


def _peers(axis: Axes, measured: Measurements) -> None:
    axis.set_title("Steps/s, 8 environments", loc="left")
    names = [name for name in HEADLINE if measured.summary("envs-8", name)]
    if not names:
        return _empty(axis)
    for position, name in enumerate(names):
        summary = measured.summary("envs-8", name)
        assert summary is not None
        axis.barh(position, summary.median, color=OURS if name == "ours" else THEIRS, height=0.65)
        axis.plot([summary.low, summary.high], [position, position], color=INK, linewidth=1)
        axis.annotate(
            f"{summary.median:,.0f}",
            (summary.high, position),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    axis.set_yticks(range(len(names)), [contender_label("envs-8", name) for name in names])
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    return None


def _parts(axis: Axes, measured: Measurements) -> None:
    axis.set_title("Iteration, ms", loc="left")
    names = [name for name in ("sb3", "ours") if measured.summary("breakdown", name)]
    if not names:
        return _empty(axis)
    for position, name in enumerate(names):
        bottom = 0.0
        for part, colour in PART_COLOURS.items():
            summary = measured.summary("breakdown", name, f"{part}_ms")
            if summary and summary.median >= 1:
                label = PARTS[part] if position == 0 else None
                axis.bar(position, summary.median, 0.6, bottom=bottom, color=colour, label=label)
                bottom += summary.median
        axis.annotate(
            f"{bottom:,.0f}", (position, bottom), (0, 2), textcoords="offset points", ha="center", fontsize=7.5
        )
    axis.set_xticks(range(len(names)), [contender_label("breakdown", name) for name in names])
    axis.set_xlim(-0.5, len(names) + 0.6)  # room for the legend beside the higher bar
    axis.margins(y=0.1)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="upper right", handlelength=0.8, borderaxespad=0)
    return None


def _scaling(axis: Axes, measured: Measurements) -> None:
    axis.set_title("Steps/s by environments", loc="left")
    sizes = (1, 2, 4, 8, 16, 32, 64)
    drawn = False
    for name, colour, line in (("ours", OURS, "o-"), ("sb3", THEIRS, "s--")):
        points = [(n, found) for n in sizes if (found := measured.summary(f"envs-{n}", name))]
        if points:
            axis.plot([n for n, _ in points], [found.median for _, found in points], line, color=colour, markersize=3.5)
            last, found = points[-1]
            label = contender_label("envs-8", name)
            axis.annotate(label, (last, found.median), (0, 6), textcoords="offset points", ha="right", color=colour)
            drawn = True
    if not drawn:
        return _empty(axis)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_ylim(bottom=0)
    axis.margins(y=0.12)
    axis.grid(axis="y", linewidth=0.5, alpha=0.5)
    return None


def _empty(axis: Axes) -> None:
    axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes)
    axis.set_axis_off()
