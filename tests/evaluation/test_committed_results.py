"""The committed tables and figures come from the committed runs."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from maxent_onpolicy.evaluation.report import write_report

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
SUITES = sorted(folder.parent.relative_to(RESULTS).as_posix() for folder in RESULTS.glob("*/runs"))
TESTED_MATPLOTLIB = re.findall(r"(?m)^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text())[0]


def test_there_are_results():
    assert "quick" in SUITES


def differences(suite, folder, *kinds):
    """Names of files of the committed report that the one in ``folder`` lacks, adds or has otherwise."""
    files = [
        {path.relative_to(root): path.read_bytes() for kind in kinds for path in (root / kind).iterdir()}
        | {Path("report.md"): (root / "report.md").read_bytes()}
        for root in (RESULTS / suite, folder)
    ]
    return sorted(str(path) for path in files[0].keys() | files[1].keys() if files[0].get(path) != files[1].get(path))


def is_large(suite):
    return len(list((RESULTS / suite / "runs").glob("*/*/*"))) > 100


@pytest.mark.parametrize("suite", [suite for suite in SUITES if not is_large(suite)])
def test_tables_regenerate_byte_for_byte(suite, blank_figures, tmp_path):
    write_report(RESULTS / suite, output_dir=tmp_path)
    assert differences(suite, tmp_path, "tables") == []


@pytest.mark.slow
@pytest.mark.skipif(
    version("matplotlib") != TESTED_MATPLOTLIB, reason="the bytes of figures depend on the version of matplotlib"
)
@pytest.mark.parametrize("suite", SUITES)
def test_tables_and_figures_regenerate_byte_for_byte(suite, tmp_path):
    write_report(RESULTS / suite, output_dir=tmp_path)
    assert differences(suite, tmp_path, "tables", "figures") == []
