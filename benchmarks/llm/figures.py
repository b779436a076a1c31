"""Figure of what entropy control adds to the training part of a step."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.llm.contenders import CONTENDERS
from benchmarks.llm.measure import Step
from benchmarks.llm.tables import interval, layers_of, ratio_at_depth, ratios
from maxent_onpolicy.evaluation.drawing import COLOURS, INK, WIDTH, Plot, style

_MARKERS = "os^v"


def cost_plot(runs: Sequence[Step], depth: int) -> Plot:
    """What each contender adds, in per cent, for every number of layers and extrapolated."""
    layers = layers_of(runs)
    names = [name for name in CONTENDERS if CONTENDERS[name].settings is not None]
    names = [name for name in names if any(ratios(runs, name, each) for each in layers)][::-1]
    with style():
        figure = Figure(figsize=(WIDTH, 1.2 + 0.2 * len(names)), layout="constrained")
        axis = figure.subplots()
        for number, each in enumerate(layers):
            shift = 0.22 * (len(layers) / 2 - number)
            found = {name: ratios(runs, name, each) for name in names}
            drawn = {name: interval(values, name, str(each)) for name, values in found.items() if values}
            places = [names.index(name) + shift for name in drawn]
            middles = [100 * (value - 1) for value, _, _ in drawn.values()]
            bars = [
                [100 * (value - low) for value, low, _ in drawn.values()],
                [100 * (high - value) for value, _, high in drawn.values()],
            ]
            colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
            look = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 4, "elinewidth": 1.2}
            axis.errorbar(middles, places, xerr=bars, label=f"{each} layers", **look)
        if len(layers) > 1:
            deep = [100 * (ratio_at_depth(runs, name, depth) - 1) for name in names]
            places = [place - 0.22 * len(layers) / 2 for place in range(len(names))]
            look = {"color": INK, "marker": "D", "linestyle": "none", "markersize": 3.5, "markerfacecolor": "none"}
            axis.plot(deep, places, label=f"{depth}, extrapolated", **look)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.set_xlabel("added to the time of the training part of GRPO's step, %")
        figure.legend(loc="outside upper center", ncols=len(layers) + 1)
    caption = (
        "What is added to the time from the generated batch to the optimiser's step: medians over pairs of steps with "
        f"95 % intervals, for models with few layers; the parts are smaller with {depth} layers, here extrapolated."
    )
    return Plot("cost", "Time beside GRPO", caption, figure)
