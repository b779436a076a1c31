"""The committed tables and figures come from the committed runs."""

import pytest

from maxent_onpolicy.evaluation.report import write_report
from tests.committed import RESULTS, contents, differing, needs_tested_matplotlib

SUITES = sorted(folder.parent.relative_to(RESULTS).as_posix() for folder in RESULTS.glob("*/runs"))


def test_there_are_results():
    assert "quick" in SUITES


def differences(suite, folder, *kinds):
    """Names of files of the committed report that the one in ``folder`` lacks, adds or has otherwise."""
    files = [
        {f"{kind}/{name}": content for kind in kinds for name, content in contents(root / kind).items()}
        | {"report.md": (root / "report.md").read_bytes()}
        for root in (RESULTS / suite, folder)
    ]
    return differing(*files)


def is_large(suite):
    return len(list((RESULTS / suite / "runs").glob("*/*/*"))) > 100


@pytest.mark.parametrize("suite", [suite for suite in SUITES if not is_large(suite)])
def test_tables_regenerate_byte_for_byte(suite, blank_figures, tmp_path):
    write_report(RESULTS / suite, output_dir=tmp_path)
    assert differences(suite, tmp_path, "tables") == []


@pytest.mark.slow(however_late=True)
@needs_tested_matplotlib
@pytest.mark.parametrize("suite", SUITES)
def test_tables_and_figures_regenerate_byte_for_byte(suite, tmp_path):
    write_report(RESULTS / suite, output_dir=tmp_path)
    assert differences(suite, tmp_path, "tables", "figures") == []
