"""The report: tables, figures, a Markdown file and one self-contained HTML page from a results directory.

The same runs give the same bytes, wherever the directory lies and whenever the report is written.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from maxent_onpolicy.evaluation.counterparts import counterpart_table
from maxent_onpolicy.evaluation.drawing import GRID, INK, PAPER, Plot
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.generalisation import generalisation_curves, generalisation_scores, generalisation_table
from maxent_onpolicy.evaluation.matrix import MANY, improvement_matrix
from maxent_onpolicy.evaluation.maximum_entropy import (
    maximum_entropy_plot,
    maximum_entropy_table,
    while_learning_table,
)
from maxent_onpolicy.evaluation.plots import (
    aggregate_plot,
    diagnostics_plot,
    efficiency_plots,
    improvement_plot,
    learning_curves,
    profile_plot,
)
from maxent_onpolicy.evaluation.published import published_table
from maxent_onpolicy.evaluation.scores import Results, load_results
from maxent_onpolicy.evaluation.settings import cell_table, provenance_table, range_table, settings_tables
from maxent_onpolicy.evaluation.statistics import RESAMPLES
from maxent_onpolicy.evaluation.tables import (
    Bootstrap,
    Table,
    aggregate_table,
    cost_table,
    environment_table,
    improvement_table,
    problem_table,
    run_table,
    seeds_statement,
    summary_caption,
    summary_table,
)
from maxent_onpolicy.evaluation.training import gain_table, training_table
from maxent_onpolicy.validation import check_range

# What the figures are drawn in, as a page with a dark background needs it. Browsers apply this to embedded SVG images.
_DARK = f"""<style>
[style*="fill: {PAPER}"] {{ fill: none !important }}
@media (prefers-color-scheme: dark) {{
[style*="fill: {INK}"] {{ fill: #e6edf3 !important }}
[style*="stroke: {INK}"] {{ stroke: #e6edf3 !important }}
[style*="stroke: {GRID}"] {{ stroke: #3d444d !important }}
}}
</style>
"""


_PIXELS_PER_INCH = 140  # of figures on the page, at most
SPLIT_NOTE = (
    "Checkpoints were judged twice: in the environments the run was trained in, and on a test distribution, the same "
    "environments with other keywords, in which nothing was trained and no normalisation statistic was gathered. "
    "Both have seeds of their own, the same for all algorithms. Summary, aggregates, profile and probabilities are "
    "those of the test distribution."
)
_SHORT = 28  # characters of a table cell that is not worth a line break


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: its address on the page.
        title: heading.
        blocks: tables and figures in reading order.
        folded: whether the page shows it only when asked to.
    """

    anchor: str
    title: str
    blocks: tuple[Table | Plot, ...]
    folded: bool = False


def write_report(
    results_dir: Path | str, *, seed: int = 0, resamples: int = RESAMPLES, output_dir: Path | str | None = None
) -> Path:
    """Write ``tables/``, ``figures/``, ``report.md`` and ``report.html`` from the runs in ``results_dir/runs``.

    Files of an earlier report are replaced; those of environments that are no longer among the runs are removed.

    Args:
        results_dir: a suite's results.
        seed: seed of the bootstrap.
        resamples: bootstrap resamples an interval (bands take at most 2,000).
        output_dir: where to write; default is ``results_dir``.

    Returns:
        The path of ``report.html``.

    Raises:
        FileNotFoundError: if ``results_dir`` is no directory.
        ValueError: if it holds no completed run with evaluations, or an argument is out of range.
    """
    check_range("seed", seed, 0)
    check_range("resamples", resamples, 1)
    results = load_results(results_dir)
    sections = build_sections(results, Bootstrap(seed, resamples))
    target = Path(results_dir if output_dir is None else output_dir)
    for name, kind, suffixes in (("tables", Table, (".md", ".csv")), ("figures", Plot, (".png", ".svg"))):
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        blocks = [block for section in sections for block in section.blocks if isinstance(block, kind)]
        for block in blocks:
            block.write(folder)
        _remove_stale(folder, {f"{block.name}{suffix}" for block in blocks for suffix in suffixes})
    write_atomic(target / "report.md", to_markdown(results, sections))
    page = target / "report.html"
    write_atomic(page, to_html(results, sections, Bootstrap(seed, resamples)))
    return page


def build_sections(results: Results, bootstrap: Bootstrap) -> list[Section]:
    """Compute every table and draw every figure, in the order of the report; what does not apply is left out."""
    mode = results.modes[0]
    aggregates = aggregate_table(results, bootstrap)
    improvement = improvement_table(results, bootstrap)
    entropy = maximum_entropy_table(results, bootstrap)
    pairs_plot = improvement_plot if len(results.labels) < MANY else improvement_matrix
    curves = [learning_curves(results, each, bootstrap) for each in results.modes]
    candidates: list[tuple[str, str, Sequence[Table | Plot | None], bool]] = [
        ("summary", "Summary", [_summary(results, bootstrap)], False),
        (
            "maximum-entropy",
            "What entropy does",
            [
                maximum_entropy_plot(entropy.data, bootstrap) if entropy else None,
                entropy,
                while_learning_table(results, bootstrap),
            ],
            False,
        ),
        (curves[0].name, curves[0].title, curves[:1], False),
        (
            "generalisation",
            "Generalisation",
            [
                generalisation_curves(results, bootstrap),
                generalisation_table(results, bootstrap),
                generalisation_scores(results, bootstrap),
            ],
            False,
        ),
        (
            "environments",
            "Final performance by environment",
            [
                environment_table(results, bootstrap),
                published_table(results, bootstrap),
                gain_table(results, bootstrap),
            ],
            False,
        ),
        ("counterparts", "Stable-Baselines3's own classes", [counterpart_table(results, bootstrap)], False),
        (
            "aggregates",
            "Over all environments",
            [
                aggregate_plot(aggregates.data, results, bootstrap) if aggregates else None,
                aggregates,
                profile_plot(results, mode, bootstrap),
                *efficiency_plots(results, mode, bootstrap),
            ],
            False,
        ),
        (
            "improvement",
            "Probability of improvement",
            [pairs_plot(improvement.data, bootstrap) if improvement else None, improvement],
            False,
        ),
        (
            "training",
            "Training",
            [*(diagnostics_plot(results, env_id) for env_id in results.env_ids), training_table(results, bootstrap)],
            True,
        ),
        *((curve.name, curve.title, [curve], True) for curve in curves[1:]),
        ("settings", "Settings", settings_tables(results), False),
        ("cost", "Wall time", [cost_table(results)], False),
        ("cells", "What was run", [cell_table(results)], False),
        ("left-out", "Runs left out", [problem_table(results)], False),
        ("runs", "Single runs", [run_table(results)], True),
        ("provenance", "Provenance", [provenance_table(results), range_table(results)], True),
    ]
    sections = []
    for anchor, title, blocks, folded in candidates:
        present = tuple(block for block in blocks if block is not None)
        if present:
            sections.append(Section(anchor, title, present, folded))
    return sections


def headline(results: Results) -> str:
    """What was compared, in one line."""
    counts = (
        (len(results.labels), "algorithm"),
        (len(results.env_ids), "environment"),
    )
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
    found = len(results.used) + len(results.problems)
    text = f"{', '.join(parts)}; {len(results.used)} of {found} runs completed and used."
    missing, cells = len(results.missing_cells), sum(map(len, results.cells.values()))
    return f"{text} {cells - missing} of the suite's {cells} cells have a completed run." if missing else text


def preliminary_notice(results: Results) -> str | None:
    """How far to trust results of few seeds; ``None`` with at least ten."""
    if not results.preliminary:
        return None
    return (
        f"{seeds_statement(results)} Bootstrap intervals of so few runs are too narrow (with three seeds, "
        "a nominal 95% interval of one environment contains the truth about 75% of the time); a single run has none."
    )


def method_notes(results: Results, bootstrap: Bootstrap) -> list[str]:
    """How the numbers were obtained, a paragraph each."""
    episodes = results.checkpoints["episodes"]
    few, many = int(episodes.min()), int(episodes.max())
    notes = [
        f"Every checkpoint is the mean over {few if few == many else f'{few} to {many}'} evaluation episodes in raw "
        "reward, in separate environments. The final return is that of the last checkpoint; there is no smoothing and "
        "no maximum over training. Deterministic and stochastic evaluations are never mixed.",
        f"Intervals are {bootstrap.interval_name}s from {bootstrap.resamples:,} bootstrap resamples, stratified by "
        "environment, in which whole runs are drawn with replacement. The seed of the resampling is "
        f"{bootstrap.seed}. Bands hold pointwise, not for a whole curve.",
        "IQM is the mean of the middle half of all scores, the optimality gap the mean shortfall below a score of 1. "
        "See Agarwal et al. (2021), arXiv 2108.13264, and Patterson et al. (2024), JMLR 25(318).",
    ]
    if results.tested:
        notes.insert(1, SPLIT_NOTE)
    return notes


def to_markdown(results: Results, sections: Iterable[Section]) -> str:
    """Render the report as Markdown that refers to ``figures/``."""
    lines = [f"# Results: {_plain(results.suite)}", "", headline(results), ""]
    for notice in [preliminary_notice(results), *results.notes]:
        lines += [f"> {_plain(notice)}", ""] if notice else []
    for section in sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            if isinstance(block, Plot):
                lines += [f"![{_plain(block.title)}](figures/{block.name}.svg)", ""]
            else:
                lines += [block.markdown(), ""]
            lines += [f"*{_plain(block.caption)}*", ""]
    return "\n".join(lines)


def to_html(results: Results, sections: Iterable[Section], bootstrap: Bootstrap) -> str:
    """Render the report as one page that needs nothing but itself."""
    folder = files("maxent_onpolicy.evaluation") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        suite=results.suite,
        headline=headline(results),
        preliminary=preliminary_notice(results),
        notes=results.notes,
        problems=len(results.problems),
        sections=[
            {
                "anchor": section.anchor,
                "title": section.title,
                "folded": section.folded,
                "blocks": [
                    _block(block, above.title)
                    for above, block in zip((section, *section.blocks), section.blocks, strict=False)
                ],
            }
            for section in sections
        ],
        methods=method_notes(results, bootstrap),
        sorting=Markup((folder / "sorting.js").read_text(encoding="utf-8")),
        sorting_style=Markup((folder / "sorting.css").read_text(encoding="utf-8")),
    )


def _summary(results: Results, bootstrap: Bootstrap) -> Table:
    frame = summary_table(results, bootstrap)
    return Table("summary", "Summary", summary_caption(results), frame, frame)


def _block(block: Table | Plot, heading: str) -> dict[str, Any]:
    """What the template needs of a table or a figure; ``heading`` is the one above, not to be repeated."""
    title = "" if block.title == heading else block.title
    common = {"name": block.name, "title": title, "caption": block.caption}
    if isinstance(block, Plot):
        inches = float(block.figure.get_size_inches()[0])
        return common | {"image": _data_uri(block.svg), "width": round(inches * _PIXELS_PER_INCH)}
    kinds = dict.fromkeys(block.numeric_columns, "number")
    for column in block.text.columns:
        if column not in kinds and block.text[column].astype(str).str.len().max() <= _SHORT:
            kinds[column] = "short"
    return common | {
        "columns": [(str(column), kinds.get(column, "")) for column in block.text.columns],
        "rows": block.text.values.tolist(),
    }


def _data_uri(svg: bytes) -> str:
    text = svg.decode("utf-8")
    start = text.index(">", text.index("<svg")) + 1
    themed = f"{text[:start]}\n{_DARK}{text[start:]}"
    return f"data:image/svg+xml;base64,{base64.b64encode(themed.encode('utf-8')).decode('ascii')}"


def _remove_stale(folder: Path, written: set[str]) -> None:
    """Remove figures and tables of an earlier report that this one lacks; nothing that we would not have written."""
    known = ("diagnostics_", "learning_curves_", "generalisation")
    names = {"aggregates", "improvement", "performance_profile", "problems", "sample_efficiency", "score_ranges"}
    names |= {"settings_shared", "training", "gain", "published", "wall_clock_efficiency", "maximum_entropy"}
    names |= {"counterparts", "cells", "while_learning"}
    for path in folder.iterdir():
        ours = path.stem in names or path.stem.startswith(known)
        if ours and path.suffix in {".png", ".svg", ".md", ".csv"} and path.name not in written:
            path.unlink()


def _plain(text: str) -> str:
    """Keep Markdown from reading names such as ``a_b_c`` or ``x|y`` as markup."""
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
