"""Figures of results: PNG and SVG, the same bytes for the same runs.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart, and
every algorithm also has a line style of its own, so that figures survive a grey print. Text is drawn as paths in the
font that matplotlib ships, so figures do not depend on the fonts of the machine.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

from maxent_onpolicy.evaluation.files import replacing
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.statistics import BAND_RESAMPLES, Band, performance_profile, sample_efficiency
from maxent_onpolicy.evaluation.tables import AGGREGATE_NAMES, Bootstrap

INK, GRID, PAPER = "#1f2328", "#d8dee4", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1.2, 1.5)), (0, (1.5, 1.2)), (0, (8, 2, 2, 2, 2, 2)))
WIDTH = 6.75  # inches: two columns of a paper, so that a figure put into one column is still readable
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "figure.facecolor": PAPER,
    "figure.dpi": 100,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "butt",  # a cap would make intervals look wider than they are
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "maxent_onpolicy",
    "text.color": INK,
    "text.parse_math": False,  # a "$" in somebody's label is a "$"
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}

#: What the diagnostic figure shows: column of train.csv and title.
DIAGNOSTICS = (
    ("rollout/ep_rew_mean", "Return while training"),
    ("rollout/ep_len_mean", "Episode length"),
    ("train/explained_variance", "Explained variance (value)"),
    ("train/entropy", "Policy entropy"),
    ("train/entropy_explained_variance", "Explained variance (entropy)"),
    ("train/entropy_advantage_share", "Entropy share of advantage"),
    ("train/tau", "Temperature τ"),
    ("train/std", "Action std"),
    ("train/clipped_actions", "Clipped actions (share)"),
)
_POINTS = 60  # of a diagnostic curve; more cannot be seen in a panel this small


@dataclass(frozen=True)
class Plot:
    """A figure with its words.

    Attributes:
        name: stem of its files.
        title: heading.
        caption: what is drawn, for readers and screen readers.
        figure: the drawing.
    """

    name: str
    title: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, without date or version."""
        return self._save("svg", {"Date": None, "Creator": None})

    @cached_property
    def png(self) -> bytes:
        """The figure as PNG, without version."""
        return self._save("png", {"Software": None})

    def write(self, folder: Path) -> None:
        """Write ``<name>.png`` and ``<name>.svg`` into ``folder``."""
        for suffix, content in ((".png", self.png), (".svg", self.svg)):
            with replacing(folder / f"{self.name}{suffix}") as path:
                path.write_bytes(content)

    def _save(self, kind: str, metadata: dict[str, None]) -> bytes:
        buffer = BytesIO()
        with style():
            self.figure.savefig(buffer, format=kind, metadata=metadata)
        return buffer.getvalue()


class _Look(NamedTuple):
    colour: str
    line: Any
    marker: str


def learning_curves(results: Results, mode: str, bootstrap: Bootstrap) -> Plot:
    """Return against environment steps: a panel an environment, mean with band, every run as a thin line.

    ``mode`` is "deterministic" or "stochastic"; ``bootstrap`` says how the bands are computed.
    """
    panels = [env_id for env_id in results.env_ids if any(len(results.final(x, env_id, mode)) for x in results.labels)]
    with style():
        figure, axes = _panels(len(panels))
        for axis, env_id in zip(axes, panels, strict=True):
            axis.set_title(env_id)
            for label, look in _looks(results).items():
                curves = results.curves(label, env_id, mode) if len(results.final(label, env_id, mode)) else None
                if curves is None:
                    continue
                key = ("curve", label, env_id, mode)
                band = _band(curves.values[:, None, :], curves.timesteps, bootstrap, key, "mean")
                _draw(axis, band, look, singles=curves.values)
        _label(figure, axes, "Environment steps", "Return")
        _legend(figure, results)
    caption = (
        f"Return of {mode} evaluation episodes (raw reward) while training: mean over seeds, pointwise bootstrap "
        f"{bootstrap.interval_name} as a band, and every single run as a thin line."
    )
    return Plot(f"learning_curves_{mode}", f"Learning curves, {mode} policy", caption, figure)


def aggregate_plot(table: pd.DataFrame, results: Results, bootstrap: Bootstrap) -> Plot:
    """Interval plot of the aggregates of the leading mode; ``table`` is the data of ``tables.aggregate_table``."""
    mode = str(table["mode"].iloc[0])
    rows = table[table["mode"] == mode].set_index("algorithm")
    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots(1, len(AGGREGATE_NAMES), sharey=True)
        for axis, (name, title) in zip(axes, AGGREGATE_NAMES.items(), strict=True):
            axis.set_title(title)
            _intervals(axis, rows, name, results)
        axes[0].set_yticks(range(len(rows)), [_wrapped(label, 24) for label in rows.index])
        figure.supxlabel("Normalised score", fontsize=8)
    caption = (
        f"Aggregate scores of the {mode} policy over all environments with stratified-bootstrap "
        f"{bootstrap.interval_name}s. Higher is better, but for the optimality gap, where lower is."
    )
    return Plot("aggregates", "Aggregate scores", caption, figure)


def improvement_plot(table: pd.DataFrame, bootstrap: Bootstrap) -> Plot:
    """Interval plot of the leading mode's probabilities; ``table`` is the data of ``tables.improvement_table``."""
    mode = str(table["mode"].iloc[0])
    rows = table[table["mode"] == mode].reset_index(drop=True)
    names = [_wrapped(f"{row.x} > {row.y}", 44) for row in rows.itertuples()]
    lines = sum(name.count("\n") + 1 for name in names)
    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.25 * lines), layout="constrained")
        axis = figure.subplots()
        axis.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        numbers = rows[["probability", "probability_low", "probability_high"]].to_numpy(dtype=np.float64)
        for place, (value, low, high) in enumerate(numbers):
            axis.plot([low, high], [place, place], color=COLOURS[0], linewidth=5)
            axis.plot(value, place, marker="|", markersize=11, markeredgewidth=2, color=INK)
        axis.set(xlim=(-0.02, 1.02), xlabel="Probability that a run of the first ends above a run of the second")
        axis.set_yticks(range(len(rows)), names)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
    caption = (
        f"Probability of improvement of the {mode} policy with {bootstrap.interval_name}s. An interval that "
        "contains 0.5 (dashed) leaves open which of the two is better."
    )
    return Plot("improvement", "Probability of improvement", caption, figure)


def profile_plot(results: Results, mode: str, bootstrap: Bootstrap) -> Plot | None:
    """Performance profile of normalised final scores; ``None`` where no environment can be aggregated."""
    env_ids = results.shared_env_ids(mode, normalised=True)
    if not env_ids:
        return None
    scores = {label: results.final_scores(label, env_ids, mode) for label in results.labels}
    every = np.concatenate([task for tasks in scores.values() for task in tasks])
    thresholds = np.linspace(min(0.0, every.min()), max(1.0, every.max()) * 1.02, 201)
    with style():
        figure = Figure(figsize=(0.75 * WIDTH, 3.0), layout="constrained")
        axis = figure.subplots()
        for label, look in _looks(results).items():
            rng = bootstrap.rng("profile", label, mode)
            size = min(bootstrap.resamples, BAND_RESAMPLES)
            held = bootstrap.confidence
            _draw(axis, performance_profile(scores[label], thresholds, rng=rng, resamples=size, confidence=held), look)
        axis.set(xlabel="Normalised score τ", ylabel="Share of runs with score > τ", ylim=(-0.02, 1.02))
        axis.margins(x=0.01)
        _legend(figure, results, characters=60)
    caption = (
        f"Share of runs of the {mode} policy that end above a score, over all environments, with pointwise bootstrap "
        f"{bootstrap.interval_name}. Further up and right is better; where curves cross, neither is better throughout."
    )
    return Plot("performance_profile", "Performance profile", caption, figure)


def efficiency_plot(results: Results, mode: str, bootstrap: Bootstrap) -> Plot | None:
    """IQM of normalised scores against environment steps; ``None`` where no environment can be aggregated."""
    env_ids = results.shared_env_ids(mode, normalised=True)
    curves = {label: results.score_curves(label, env_ids, mode) if env_ids else None for label in results.labels}
    if not any(curves.values()):
        return None
    with style():
        figure = Figure(figsize=(0.75 * WIDTH, 3.0), layout="constrained")
        axis = figure.subplots()
        for label, look in _looks(results).items():
            found = curves[label]
            if found is not None:
                timesteps, values = found
                _draw(axis, _band(values, timesteps, bootstrap, ("efficiency", label, mode), "iqm"), look)
        _label(figure, [axis], "Environment steps", "IQM of normalised scores")
        _legend(figure, results, characters=60)
    caption = (
        f"Interquartile mean of the {mode} policy's normalised scores while training, over all environments, with "
        f"pointwise {bootstrap.interval_name} from resampling whole runs."
    )
    return Plot("sample_efficiency", "Sample efficiency", caption, figure)


def diagnostics_plot(results: Results, env_id: str) -> Plot | None:
    """Quantities logged while training on one environment; ``None`` if the runs logged none of them."""
    frames = {
        label: [run.read_train() for run in results.used if (run.label, run.env_id) == (label, env_id)]
        for label in results.labels
    }
    logged = {column for each in frames.values() for frame in each for column in frame.columns[frame.notna().any()]}
    shown = [(column, title) for column, title in DIAGNOSTICS if column in logged]
    if not shown:
        return None
    with style():
        figure, axes = _panels(len(shown), height=1.6)
        for axis, (column, title) in zip(axes, shown, strict=True):
            axis.set_title(title)
            for label, look in _looks(results).items():
                thinned = thin([frame for frame in frames[label] if column in frame], column)
                if thinned is not None:
                    grid, values = thinned
                    _draw(axis, Band(grid, values.mean(axis=0), *(np.full((2, len(grid)), np.nan))), look, values)
        _label(figure, axes, "Environment steps", "")
        _legend(figure, results)
    caption = f"What the runs on {env_id} logged while training: mean over seeds, and every single run as a thin line."
    return Plot(f"diagnostics_{_file_name(env_id)}", f"Training on {env_id}", caption, figure)


def thin(frames: Sequence[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Reduce one logged quantity of several runs to curves of few points on common timesteps.

    Rows are averaged in consecutive groups, and the averages interpolated.

    Args:
        frames: contents of ``train.csv``; rows in which the quantity is missing or not finite are skipped.
        column: the quantity.

    Returns:
        Timesteps ``[points]`` and values ``[runs, points]``; ``None`` if no run has the quantity or the runs do not
        overlap.
    """
    traces = []
    for frame in frames:
        rows = frame[["timesteps", column]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows):
            traces.append(np.stack([group.mean(axis=0) for group in np.array_split(rows, min(len(rows), _POINTS))]))
    if not traces:
        return None
    first, last = max(trace[0, 0] for trace in traces), min(trace[-1, 0] for trace in traces)
    if first > last:
        return None
    grid = np.linspace(first, last, max(len(trace) for trace in traces))
    return grid, np.stack([np.interp(grid, trace[:, 0], trace[:, 1]) for trace in traces])


# --- drawing ---------------------------------------------------------------------------------------------------------


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and our style, whatever the user's configuration says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def _looks(results: Results) -> dict[str, _Look]:
    markers = "osD^vP*"
    return {
        label: _Look(COLOURS[i % len(COLOURS)], LINES[i % len(LINES)], markers[i % len(markers)])
        for i, label in enumerate(results.labels)
    }


def _panels(count: int, height: float = 2.1) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels in rows of two or three."""
    columns = count if count < 4 else 2 if count == 4 else 3
    rows = ceil(count / columns)
    width = WIDTH if columns > 1 else 0.75 * WIDTH
    figure = Figure(figsize=(width, 0.5 + rows * (height if columns > 1 else 1.3 * height)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, list(axes[:count])


def _band(values: Any, timesteps: np.ndarray, bootstrap: Bootstrap, key: tuple[str, ...], statistic: str) -> Band:
    return sample_efficiency(
        values,
        timesteps,
        rng=bootstrap.rng(*key),
        statistic=statistic,
        resamples=min(bootstrap.resamples, BAND_RESAMPLES),
        confidence=bootstrap.confidence,
    )


def _draw(axis: Axes, band: Band, look: _Look, singles: Iterable[np.ndarray] = ()) -> None:
    marker = look.marker if len(band.x) == 1 else ""  # a line through one point cannot be seen
    runs = list(singles)
    for run in runs:
        alpha = min(0.45, 0.8 / len(runs) ** 0.5)  # many runs must not hide the means
        axis.plot(band.x, run, color=look.colour, linewidth=0.6, alpha=alpha, marker=marker, markersize=2)
    axis.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.18, linewidth=0)
    axis.plot(band.x, band.value, color=look.colour, linestyle=look.line, marker=marker, markersize=4)


def _intervals(axis: Axes, rows: pd.DataFrame, name: str, results: Results) -> None:
    for place, (label, look) in enumerate(_looks(results).items()):
        row = rows.loc[label]
        axis.plot([row[f"{name}_low"], row[f"{name}_high"]], [place, place], color=look.colour, linewidth=6)
        axis.plot(row[name], place, marker="|", markersize=12, markeredgewidth=2, color=INK)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.12)


def _label(figure: Figure, axes: Sequence[Axes], x: str, y: str) -> None:
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axis.margins(x=0.02)
    figure.supxlabel(x, fontsize=8)
    if y:
        figure.supylabel(y, fontsize=8)


def _legend(figure: Figure, results: Results, characters: int = 84) -> None:
    """Put the legend above the panels, where it covers nothing, in as many columns as fit, and make room for it."""
    looks = _looks(results)
    names = [_wrapped(label, characters - 8) for label in looks]
    handles = [Line2D([], [], color=look.colour, linestyle=look.line) for look in looks.values()]
    columns = next(n for n in range(len(names), 0, -1) if n == 1 or _legend_width(names, n) <= characters)
    lines = ceil(len(names) / columns) + sum(name.count("\n") for name in names)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.17 * (lines - 1))
    figure.legend(handles, names, loc="outside upper center", ncols=columns, handlelength=3.2, columnspacing=1.6)


def _legend_width(names: Sequence[str], columns: int) -> int:
    """Width in characters of a legend that is filled column by column, as matplotlib does."""
    rows = ceil(len(names) / columns)
    longest = [max(len(line) for line in name.split("\n")) for name in names]
    return sum(max(longest[start : start + rows]) + 8 for start in range(0, len(names), rows))


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text


def _file_name(env_id: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in env_id)
