"""Sphinx configuration; build with ``sphinx-build -W docs docs/_build``."""

import maxent_onpolicy

project = "maxent_onpolicy"
author = "The maxent_onpolicy developers"
copyright = f"2026, {author}"
release = version = maxent_onpolicy.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"maxent_onpolicy {release}"

napoleon_use_ivar = True  # autodoc describes the attributes itself
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Type-only names and classes of other projects, whose inventories would have to be fetched to link them.
nitpick_ignore = [("py:class", "maxent_onpolicy.algorithms.train_seeds.Algorithm")]
nitpick_ignore_regex = [("py:.*", r"(?!maxent_onpolicy).*")]
