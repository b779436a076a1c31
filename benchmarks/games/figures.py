"""Figures of what was measured of games: exploitability against CPU time, and how iterates converge."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.games import convergence, curves
from benchmarks.games.contenders import CONTENDERS
from benchmarks.games.tables import title
from maxent_onpolicy.evaluation.drawing import COLOURS, LINES, WIDTH, Plot, style

_FLOOR = 1e-16  # what is 0 in double precision is drawn here
# ours in strong colours, peers paler; each kind of algorithm one line style
LOOKS: dict[str, tuple[str, Any, float]] = {
    "OMWU": (COLOURS[0], LINES[0], 2.0),
    "OMWU, Newton steps": (COLOURS[1], LINES[0], 2.0),
    "OMWU, tau 0.05": (COLOURS[0], LINES[3], 1.2),
    "our CFR+": (COLOURS[2], LINES[1], 1.5),
    "our PCFR+": (COLOURS[2], LINES[0], 1.5),
    "OpenSpiel CFR": (COLOURS[6], LINES[3], 1.2),
    "OpenSpiel CFR+": (COLOURS[6], LINES[1], 1.5),
    "OpenSpiel MMD, alpha 0.05": (COLOURS[3], LINES[3], 1.2),
    "LiteEFG CFR+": (COLOURS[4], LINES[1], 1.5),
    "LiteEFG PCFR+": (COLOURS[4], LINES[0], 1.5),
}


def curves_plot(points: list[curves.Point]) -> Plot:
    """Exploitability against seconds of CPU time, a panel a game."""
    games = list(dict.fromkeys(point.game for point in points))
    solvers = [solver for solver in CONTENDERS if any(point.solver == solver for point in points)]
    with style():
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        axes = figure.subplots(1, len(games), squeeze=False)[0]
        for axis, game in zip(axes, games, strict=True):
            for solver in solvers:
                own = [point for point in points if point[:2] == (game, solver)]
                colour, line, width = LOOKS[solver]
                x, y = _medians((point.seconds, point.exploitability) for point in own)
                axis.plot(x, y, color=colour, linestyle=line, linewidth=width)
            _logarithmic(axis, title(game))
        figure.supxlabel("seconds of CPU time", fontsize=8)
        figure.supylabel("exploitability", fontsize=8)
        _legend(figure, {solver: LOOKS[solver] for solver in solvers}, 4)
    caption = (
        "Exploitability against CPU time of one thread, medians over rounds; OMWU and MMD in the last iterate, "
        "the others on average. The lines of tau 0.05 and alpha 0.05 end at the equilibria of these temperatures."
    )
    return Plot("exploitability", "Exploitability against CPU time", caption, figure)


def _medians(pairs: Iterable[tuple[float, float]], per_decade: int = 8) -> tuple[list[float], list[float]]:
    """Return curves of several rounds as one: medians over bins of a logarithmic axis."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, y in pairs:
        bins.setdefault(round(per_decade * math.log10(x)), []).append((x, max(y, _FLOOR)))
    ordered = [bins[key] for key in sorted(bins)]
    return [median(x for x, _ in each) for each in ordered], [median(y for _, y in each) for each in ordered]


_CONVERGENCE = {
    ("OMWU", "last"): (COLOURS[0], LINES[0], 1.8),
    ("OMWU", "average"): (COLOURS[0], LINES[3], 1.4),
    ("MWU", "last"): (COLOURS[1], LINES[0], 1.8),
    ("MWU", "average"): (COLOURS[1], LINES[3], 1.4),
    ("OMWU, falling tau", "last"): (COLOURS[2], LINES[0], 1.8),
    ("OMWU, falling tau", "average"): (COLOURS[2], LINES[3], 1.4),
}


def convergence_plot(points: list[convergence.Point]) -> Plot:
    """QRE gap above, NashConv below, a column a game."""
    games = list(dict.fromkeys(point.game for point in points))
    with style():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.subplots(2, len(games), squeeze=False, sharex=True)
        for column, game in enumerate(games):
            for (solver, iterate), (colour, line, width) in _CONVERGENCE.items():
                own = [point for point in points if point[:3] == (game, solver, iterate)]
                steps = [point.iteration for point in own]
                for row, quantity in enumerate(("qre_gap", "nash_conv")):
                    if quantity == "qre_gap" and "falling" in solver:
                        continue  # of another temperature at every point
                    y = [max(getattr(point, quantity), _FLOOR) for point in own]
                    axes[row, column].plot(steps, y, color=colour, linestyle=line, linewidth=width)
            _logarithmic(axes[0, column], game.replace(", ", "\n"))
            _logarithmic(axes[1, column], "")
        axes[0, 0].set_ylabel("QRE gap")
        axes[1, 0].set_ylabel("NashConv")
        figure.supxlabel("iterations", fontsize=8)
        names = {f"{solver}, {iterate} iterate": look for (solver, iterate), look in _CONVERGENCE.items()}
        _legend(figure, names, 3)
    caption = (
        f"Temperature {convergence.TAU:g}: the last iterate goes to its QRE at a linear rate, the average as 1/t²; the "
        "distance to Nash's equilibrium ends where the temperature puts it, unless the temperature falls."
    )
    return Plot("convergence", "Last and average iterates", caption, figure)


def _logarithmic(axis: Axes, heading: str) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_locator(LogLocator(numticks=6))
        each.set_minor_locator(NullLocator())
        each.set_major_formatter(lambda value, _: f"1e{round(math.log10(value))}")
    axis.set_title(heading, loc="left")
    axis.margins(x=0.02)


def _legend(figure: Figure, looks: dict[str, tuple[str, Any, float]], columns: int) -> None:
    handles: Sequence[Line2D] = [
        Line2D([], [], color=colour, linestyle=line, linewidth=width) for colour, line, width in looks.values()
    ]
    figure.legend(
        handles,
        list(looks),
        loc="outside upper center",
        ncols=columns,
        handlelength=2.6,
        columnspacing=1.2,
        fontsize=7.5,
    )
