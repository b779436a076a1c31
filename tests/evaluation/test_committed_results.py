"""The committed tables come from the committed runs."""

from pathlib import Path

import pytest

from maxent_onpolicy.evaluation.report import write_report

RESULTS = Path(__file__).resolve().parents[2] / "results"
SUITES = sorted(
    folder.parent.relative_to(RESULTS).as_posix() for depth in ("*", "*/*") for folder in RESULTS.glob(f"{depth}/runs")
)


def test_there_are_results():
    assert "quick" in SUITES


def with_mark(suite):
    large = len(list((RESULTS / suite / "runs").glob("*/*/*"))) > 100
    return pytest.param(suite, marks=pytest.mark.slow) if large else suite


@pytest.mark.parametrize("suite", [*map(with_mark, SUITES)])
def test_tables_regenerate_byte_for_byte(suite, blank_figures, tmp_path):
    """Figures are left out: their bytes depend on the version of matplotlib."""
    write_report(RESULTS / suite, output_dir=tmp_path)
    committed = sorted((RESULTS / suite / "tables").iterdir())
    assert [path.name for path in committed] == sorted(path.name for path in (tmp_path / "tables").iterdir())
    for path in [*committed, RESULTS / suite / "report.md"]:
        assert (tmp_path / path.relative_to(RESULTS / suite)).read_bytes() == path.read_bytes(), path.name
