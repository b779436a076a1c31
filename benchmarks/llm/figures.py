"""Figure of what entropy control adds to GRPO's step."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.llm.contenders import CONTENDERS
from benchmarks.llm.measure import Step
from benchmarks.llm.tables import interval, measured, own_parts
from maxent_onpolicy.evaluation.drawing import COLOURS, INK, WIDTH, Plot, style

_LEAST = 1e-3  # per cent


def cost_plot(steps: Sequence[Step]) -> Plot:
    """What each contender's own work is as a part of GRPO's, in per cent, and what is aimed at."""
    names = [name for name in measured(steps) if CONTENDERS[name].settings is not None][::-1]
    with style():
        figure = Figure(figsize=(WIDTH, 1.2 + 0.2 * len(names)), layout="constrained")
        axis = figure.subplots()
        for place, name in enumerate(names):
            value, low, high = (max(_LEAST, 100 * each) for each in interval(own_parts(steps, name), "own", name))
            axis.plot([low, high], [place, place], color=COLOURS[0], linewidth=4, solid_capstyle="butt")
            axis.plot(value, place, marker="|", markersize=9, markeredgewidth=2, color=INK)
            target = CONTENDERS[name].target
            if target is not None:
                axis.plot(100 * target, place, marker="D", markersize=4, color=COLOURS[1])
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.set_xlabel("own work as a part of GRPO's step, %")
        marks = [
            Line2D([], [], marker="|", markersize=9, markeredgewidth=2, color=INK, linestyle="none"),
            Line2D([], [], color=COLOURS[0], linewidth=4),
            Line2D([], [], marker="D", markersize=4, color=COLOURS[1], linestyle="none"),
        ]
        figure.legend(marks, ["median", "95 % interval", "at most, aimed at"], loc="outside upper center", ncols=3)
    caption = (
        "Time that a trainer spends on what GRPO does not do, as a part of the rest of its steps without generation: "
        "medians over steps with 95 % intervals."
    )
    return Plot("cost", "Time beside GRPO", caption, figure)
