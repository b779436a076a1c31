"""What figures have in common: colours, line styles, panels, bands, legends, and files of the same bytes.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart, with
two of Paul Tol's (https://personal.sron.nl/~pault/) for the last of ten, and every algorithm also has a line style of
its own, so that figures survive a grey print. Text is drawn as paths in the
font that matplotlib ships, so figures do not depend on the fonts of the machine.
"""

import re
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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

from maxent_onpolicy.evaluation.files import replacing
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.statistics import BAND_RESAMPLES, Band, sample_efficiency
from maxent_onpolicy.evaluation.tables import Bootstrap

INK, GRID, PAPER = "#1f2328", "#d8dee4", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000", "#882255", "#999933")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1.2, 1.5)), (0, (1.5, 1.2)), (0, (8, 2, 2, 2, 2, 2)))
WIDTH = 6.75  # inches: two columns of a paper, so that a figure put into one column is still readable
_CHARACTERS = 80  # of a legend as wide as a whole figure
_PATH = re.compile(rb'(?<= d=")[^"]+')
_DECIMALS = re.compile(rb"\d+\.\d+")
# Matplotlib names markers and clipping paths after a hash of their exact coordinates.
_HASHED = re.compile(rb'(?<=[#"])([mp])[0-9a-f]{10}(?=[")])')
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
        return numbered(rounded(self._save("svg", {"Date": None, "Creator": None})))

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


def rounded(svg: bytes) -> bytes:
    """Return a drawing whose paths are exact to a hundredth of a point, on one line each.

    Nobody sees finer, it is a fifth fewer bytes, and they depend less on how a processor rounds.
    """
    return _PATH.sub(lambda path: b" ".join(_DECIMALS.sub(_hundredths, path[0]).split()), svg)


def numbered(svg: bytes) -> bytes:
    """Return a drawing whose markers and clipping paths have numbers for names, the same however a processor rounds."""
    names: dict[bytes, bytes] = {}
    return _HASHED.sub(lambda name: names.setdefault(name[0], b"%b%d" % (name[1], len(names) + 1)), svg)


def _hundredths(number: re.Match[bytes]) -> bytes:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".").encode()


class Look(NamedTuple):
    """How an algorithm is drawn, in every figure alike.

    Attributes:
        colour: of its lines; the same as another's where there are more algorithms than colours.
        line: style that tells it from others where colour does not.
        marker: of its points.
        mark: the marker of its lines where their styles mean something else: none for the first of a colour.
    """

    colour: str
    line: Any
    marker: str
    mark: str


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and our style, whatever the user's configuration says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def looks_of(results: Results) -> dict[str, Look]:
    """Return how each algorithm is drawn."""
    markers = "osD^vP*"
    looks = {}
    for i, label in enumerate(results.labels):
        again, place = divmod(i, len(COLOURS))
        marker = markers[i % len(markers)]
        looks[label] = Look(COLOURS[place], LINES[(i + again) % len(LINES)], marker, marker if again else "")
    return looks


def make_panels(count: int, height: float = 2.1) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels in rows of two or three."""
    columns = count if count < 4 else 2 if count == 4 else 3
    rows = ceil(count / columns)
    width = WIDTH if columns > 1 else 0.75 * WIDTH
    figure = Figure(figsize=(width, 0.5 + rows * (height if columns > 1 else 1.3 * height)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, list(axes[:count])


def make_grid(rows: int, columns: int, height: float = 1.7) -> tuple[Figure, list[Axes]]:
    """A figure with ``rows`` times ``columns`` panels, row by row; those of a row have one scale."""
    figure = Figure(figsize=(WIDTH, 0.5 + rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row")
    return figure, list(axes.ravel())


def name_rows(axes: Sequence[Axes], names: Sequence[str]) -> list[Axes]:
    """Name the rows of a grid at their left, and remove and leave out the panels in which nothing is drawn."""
    columns = len(axes) // len(names)
    kept = []
    for row, name in enumerate(names):
        drawn = [axis for axis in axes[row * columns : (row + 1) * columns] if axis.lines]
        for axis in drawn[:1]:
            axis.set_ylabel(wrapped(name, 26))
            axis.tick_params(axis="y", labelleft=True)
        kept += drawn
    for axis in axes:
        if axis not in kept:
            axis.remove()
    return kept


def band_of(values: Any, timesteps: np.ndarray, bootstrap: Bootstrap, key: tuple[str, ...], statistic: str) -> Band:
    """Return a statistic of ``values`` with its band; ``key`` names the band for its random draws."""
    return sample_efficiency(
        values,
        timesteps,
        rng=bootstrap.rng(*key),
        statistic=statistic,
        resamples=min(bootstrap.resamples, BAND_RESAMPLES),
        confidence=bootstrap.confidence,
    )


def draw_band(axis: Axes, band: Band, look: Look, singles: Iterable[np.ndarray] = (), *, mark: str = "") -> None:
    """Draw a curve with its band, and every single run as a thin line; ``mark`` is put onto points of the curve."""
    marker = look.marker if len(band.x) == 1 else ""  # a line through one point cannot be seen
    runs = list(singles)
    for run in runs:
        alpha = min(0.45, 0.8 / len(runs) ** 0.5)  # many runs must not hide the means
        axis.plot(band.x, run, color=look.colour, linewidth=0.6, alpha=alpha, marker=marker, markersize=2)
    axis.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.18, linewidth=0)
    axis.plot(band.x, band.value, color=look.colour, linestyle=look.line, marker=marker or mark, markersize=4)


def label_axes(figure: Figure, axes: Sequence[Axes], x: str, y: str) -> None:
    """Put few, round numbers at the axes, and one label at each side of the figure."""
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axis.margins(x=0.02)
    figure.supxlabel(x, fontsize=8)
    if y:
        figure.supylabel(y, fontsize=8)


def add_legend(
    figure: Figure,
    results: Results,
    characters: int | None = None,
    more: Sequence[tuple[Line2D, str]] = (),
    *,
    styled: bool = True,
    labels: Sequence[str] | None = None,
) -> None:
    """Put the legend above the panels, where it covers nothing, in as many columns as fit, and make room for it.

    Args:
        figure: which.
        results: whose algorithms are named.
        characters: that fit beside each other; by default as the figure's width has it.
        more: entries for a column of their own beside the algorithms, or below them if there is no room.
        styled: whether algorithms have their line styles; otherwise colour tells them apart, and marks.
        labels: algorithms that are drawn; default all.
    """
    width, height = figure.get_size_inches()
    characters = characters or int(_CHARACTERS * width / WIDTH)
    looks = {name: look for name, look in looks_of(results).items() if labels is None or name in labels}
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.line)
        if styled
        else Line2D([], [], color=look.colour, marker=look.mark, markersize=4)
        for look in looks.values()
    ]
    entries = [(handle, wrapped(name, characters - 8)) for handle, name in zip(handles, looks, strict=True)]
    columns = _most_columns([name for _, name in entries], characters)
    if more:
        blanks = [(Line2D([], [], linestyle="none"), "")] * (-len(entries) % len(more))
        beside = [*entries, *blanks, *more]
        columns = len(beside) // len(more)
        if _legend_width([name for _, name in beside], columns) > characters:
            beside, columns = [*entries, *more], 1
        entries = beside
    names = [name for _, name in entries]
    lines = ceil(len(names) / columns) + sum(name.count("\n") for name in names)
    figure.set_size_inches(width, height + 0.17 * (lines - 1))
    shown = [handle for handle, _ in entries]
    figure.legend(shown, names, loc="outside upper center", ncols=columns, handlelength=3.2, columnspacing=1.6)


def _most_columns(names: Sequence[str], characters: int) -> int:
    return next(n for n in range(len(names), 0, -1) if n == 1 or _legend_width(names, n) <= characters)


def _legend_width(names: Sequence[str], columns: int) -> int:
    """Width in characters of a legend that is filled column by column, as matplotlib does."""
    longest = [max(len(line) for line in name.split("\n")) for name in names]
    return sum(int(column.max()) + 8 for column in np.array_split(longest, columns))


def wrapped(text: str, width: int) -> str:
    """Return ``text`` in lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(text, width)) or text
