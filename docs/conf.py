"""Sphinx configuration; build with ``bash scripts/docs.sh``, or ``sphinx-build -W docs OUT`` without full reports."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import maxent_onpolicy

project = "maxent_onpolicy"
author = "The maxent_onpolicy developers"
copyright = f"2026, {author}"
release = version = maxent_onpolicy.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx_design"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"maxent_onpolicy {release}"

napoleon_use_ivar = True  # autodoc describes the attributes itself
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Type-only names and classes of other projects, whose inventories would have to be fetched to link them.
nitpick_ignore = [("py:class", "maxent_onpolicy.algorithms.train_seeds.Algorithm")]
nitpick_ignore_regex = [("py:.*", r"(?!maxent_onpolicy).*")]

_RESULTS = Path(__file__).parents[1] / "results"


def _sort_tables(app: Any) -> None:
    """Tables sort at a click as they do in reports."""
    templates = files("maxent_onpolicy.evaluation") / "templates"
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    for name in ("sorting.js", "sorting.css"):
        (static / name).write_text((templates / name).read_text(encoding="utf-8"), encoding="utf-8")


def _write_reports(app: Any, error: Exception | None) -> None:
    """With ``-t reports``: the full report of every suite with committed runs, which the pages then link."""
    from maxent_onpolicy.evaluation.report import write_report

    if error is None and app.tags.has("reports"):
        for runs in sorted(_RESULTS.glob("**/runs")):
            suite = runs.parent.relative_to(_RESULTS)
            write_report(runs.parent, output_dir=Path(app.outdir) / "reports" / suite)


def setup(app: Any) -> None:
    """Connect what Sphinx does not do by itself."""
    app.add_js_file("sorting.js")
    app.add_css_file("sorting.css")
    app.connect("builder-inited", _sort_tables)
    app.connect("build-finished", _write_reports)
