"""The committed figures of measurements come from the committed measurements."""

import shutil
from pathlib import Path

import pytest

from benchmarks.games import report as games_report
from benchmarks.llm import report as llm_report
from benchmarks.speed import report as speed_report
from benchmarks.speed.store import Store
from tests.committed import RESULTS, contents, differing, needs_tested_matplotlib

pytestmark = [pytest.mark.slow(however_late=True), needs_tested_matplotlib]


def write_speed(committed: Path, folder: Path) -> None:
    for path in committed.glob("*.*"):
        shutil.copy(path, folder)
    speed_report.write(Store(folder))


WRITERS = {
    "zero-sum/solvers": lambda committed, folder: games_report.write(committed, committed.parent, folder),
    "llm_cost": llm_report.write,
    **{path.parent.name: write_speed for path in RESULTS.glob("speed*/figures")},
}


def test_every_committed_figure_is_covered():
    suites = {path.parent.name for path in RESULTS.glob("*/runs")}
    folders = {path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.glob("**/figures")}
    assert folders - suites == set(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_figures_regenerate_byte_for_byte(name, tmp_path):
    committed = RESULTS / name
    WRITERS[name](committed, tmp_path)
    assert differing(contents(tmp_path / "figures"), contents(committed / "figures")) == []
