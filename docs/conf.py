"""Sphinx configuration; build with ``bash scripts/docs.sh``, or ``sphinx-build -W docs OUT`` without full reports."""

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
# Tables sort at a click as they do in reports.
_TEMPLATES = "../maxent_onpolicy/evaluation/templates"
html_static_path = ["_static", f"{_TEMPLATES}/sorting.js", f"{_TEMPLATES}/sorting.css"]
html_js_files = ["sorting.js"]
html_css_files = ["pages.css", "sorting.css"]
html_title = f"maxent_onpolicy {release}"

napoleon_use_ivar = True  # autodoc describes the attributes itself
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Type-only names and classes of other projects, whose inventories would have to be fetched to link them.
nitpick_ignore = [("py:class", "maxent_onpolicy.algorithms.train_seeds.Algorithm")]
nitpick_ignore_regex = [("py:.*", r"(?!maxent_onpolicy).*")]

_RESULTS = Path(__file__).parents[1] / "results"


def _write_reports(app: Any, error: Exception | None) -> None:
    """With ``-t reports``: the full report of every suite with committed runs, which the pages then link."""
    from maxent_onpolicy.evaluation.report import write_report

    if error is None and app.tags.has("reports"):
        for runs in sorted(_RESULTS.glob("**/runs")):
            suite = runs.parent.relative_to(_RESULTS)
            write_report(runs.parent, output_dir=Path(app.outdir) / "reports" / suite)


def setup(app: Any) -> None:
    """Connect what Sphinx does not do by itself."""
    app.connect("build-finished", _write_reports)
