"""Cells of a suite that were not run are shown as empty."""

import pytest

from maxent_onpolicy.evaluation.cells import FILE, read_cells, write_cells
from maxent_onpolicy.evaluation.report import headline, write_report
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.settings import cell_table


def test_cells_that_were_not_run_are_empty(make_run, blank_figures):
    for seed in range(2):
        make_run("PPO", "HalfCheetah-v5", seed)
    make_run("MaxEntPPO", "HalfCheetah-v5", 0)
    make_run("MaxEntPPO", "Hopper-v5", 0, state="failed")
    make_run("Older", "Swimmer-v5", 0)
    cells = {"PPO": ["Hopper-v5", "HalfCheetah-v5"], "MaxEntPPO": ["Hopper-v5", "HalfCheetah-v5"], "SAC": ["Hopper-v5"]}
    write_cells(make_run.results, cells)
    results = load_results(make_run.results)
    table = cell_table(results)
    assert table.text.columns.tolist() == ["Algorithm", "Hopper-v5", "HalfCheetah-v5", "Swimmer-v5"]
    assert table.text.values.tolist() == [
        ["PPO", "", "2", "–"],
        ["MaxEntPPO", "", "1", "–"],
        ["SAC", "", "–", "–"],
        ["Older", "–", "–", "1"],
    ]
    assert table.data.values.tolist() == [
        ["PPO", "Hopper-v5", 0],
        ["PPO", "HalfCheetah-v5", 2],
        ["MaxEntPPO", "Hopper-v5", 0],
        ["MaxEntPPO", "HalfCheetah-v5", 1],
        ["SAC", "Hopper-v5", 0],
        ["Older", "Swimmer-v5", 1],
    ]
    assert "a dash are not part of the suite" in table.caption
    assert headline(results).endswith("2 of the suite's 5 cells have a completed run.")
    page = write_report(make_run.results, resamples=50)
    assert "<td>SAC</td>" in page.read_text().replace(' class="short"', "")
    assert (make_run.results / "tables" / "cells.csv").is_file()

    write_cells(make_run.results, {"PPO": ["HalfCheetah-v5"]})
    write_report(make_run.results, resamples=50)
    assert not (make_run.results / "tables" / "cells.csv").exists(), "all of the suite was run"


def test_without_a_list_of_cells_nothing_is_said(make_run):
    make_run("PPO", "Hopper-v5", 0)
    results = load_results(make_run.results)
    assert results.cells == {}
    assert cell_table(results) is None
    assert headline(results).endswith("completed and used.")


def test_a_list_that_says_the_same_is_left_alone(tmp_path):
    write_cells(tmp_path, {"a, b": ["Hopper-v5"]})
    assert read_cells(tmp_path) == {"a, b": ("Hopper-v5",)}
    before = (tmp_path / FILE).stat()
    write_cells(tmp_path, {"a, b": ["Hopper-v5"]})
    assert (tmp_path / FILE).stat().st_ino == before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("content", ["{", "[]", '{"PPO": "Hopper-v5"}', '{"PPO": [1]}'])
def test_a_broken_list_is_named(make_run, content):
    make_run("PPO", "Hopper-v5", 0)
    (make_run.results / FILE).write_text(content)
    with pytest.raises(ValueError, match=r"cells\.json"):
        load_results(make_run.results)
