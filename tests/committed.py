"""What tests of the committed results share."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
# PNGs are written too, for slides and papers, but not committed: of two pictures of the same, git keeps both whole.
COMMITTED = {".csv", ".md", ".svg"}
_MATPLOTLIB = re.findall(r"(?m)^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text())[0]

needs_tested_matplotlib = pytest.mark.skipif(
    version("matplotlib") != _MATPLOTLIB, reason="the bytes of figures depend on the version of matplotlib"
)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a report's folder that are committed, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in COMMITTED}


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Names of what only one has, or both have otherwise."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
