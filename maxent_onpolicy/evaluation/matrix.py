"""Probabilities of improvement of many algorithms, where a bar for each pair would fill pages."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from maxent_onpolicy.evaluation.drawing import COLOURS, GRID, INK, PAPER, WIDTH, Plot, style
from maxent_onpolicy.evaluation.modes import policy_words
from maxent_onpolicy.evaluation.tables import Bootstrap

#: From so many algorithms on, pairs are shown as a matrix.
MANY = 7
_COLOURS = LinearSegmentedColormap.from_list("improvement", [COLOURS[1], PAPER, COLOURS[0]])


def improvement_matrix(table: pd.DataFrame, bootstrap: Bootstrap) -> Plot:
    """Matrix of the leading mode's probabilities; ``table`` is the data of ``tables.improvement_table``."""
    mode = str(table["mode"].iloc[0])
    rows = table[table["mode"] == mode]
    labels = sorted({*rows["x"], *rows["y"]})
    values = np.full((len(labels), len(labels)), np.nan)
    certain = np.zeros_like(values, dtype=bool)
    for row in rows.to_dict("records"):
        x, y = labels.index(row["x"]), labels.index(row["y"])
        values[x, y], values[y, x] = row["probability"], 1 - row["probability"]
        certain[x, y] = certain[y, x] = row["probability_low"] > 0.5 or row["probability_high"] < 0.5
    with style():
        figure = Figure(figsize=(WIDTH, 1.2 + 0.33 * len(labels)), layout="constrained")
        axis = figure.subplots()
        shown = np.where(certain, values, 0.5)
        axis.pcolormesh(shown, cmap=_COLOURS, vmin=0, vmax=1, edgecolors=GRID, linewidth=0.5)
        for x, y in zip(*np.nonzero(~np.isnan(values)), strict=True):
            weight = "bold" if certain[x, y] else "normal"
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "size": 6.5, "weight": weight}
            axis.text(y + 0.5, x + 0.5, f"{values[x, y]:.2f}", **look)
        places = np.arange(len(labels)) + 0.5
        axis.set_yticks(places, labels)
        axis.set_xticks(places, labels, rotation=40, ha="left")
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.set_ylim(len(labels), 0)
        axis.grid(visible=False)
        for side in axis.spines.values():
            side.set_visible(False)
    caption = (
        f"Probability that a run of the row ends above a run of the column, {policy_words(mode)}. Coloured and "
        f"bold where the {bootstrap.interval_name} does not contain 0.5; elsewhere it is open which of the two is "
        "better."
    )
    return Plot("improvement", "Probability of improvement", caption, figure)
