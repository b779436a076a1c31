"""The benchmark of games: what is run, what is kept, and what is made of it. No timing is asserted."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from benchmarks.games import __main__ as command
from benchmarks.games import convergence, curves, report, speed, tables, tuning, values
from benchmarks.games.contenders import CONTENDERS
from benchmarks.games.figures import LOOKS
from maxent_onpolicy.evaluation.drawing import Plot

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "zero-sum"


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures are left out: their bytes depend on the version of matplotlib."""
    monkeypatch.setattr(Plot, "write", lambda plot, folder: None)


def points(game, solver, *pairs, number=0):
    return [curves.Point(game, solver, number, seconds, 10, value) for seconds, value in pairs]


def test_what_a_solver_had_reached_by_then():
    found = points("g", "s", (0.1, 1e-1), (0.9, 1e-2), (1.04, 1e-3), (1.2, 1e-4)) + points(
        "g", "s", (0.2, 5.0), number=1
    )
    # A twentieth later counts as then; a round that ended before does not count.
    assert tables.at(found, "g", "s", 1.0) == {0: 1e-3}
    assert tables.at(found, "g", "s", 0.2) == {0: 1e-1, 1: 5.0}
    assert tables.at(found, "g", "s", 0.05) == {}
    assert tables.at(found, "g", "other", 1.0) == {}
    assert math.isnan(tables.middle({}))


@pytest.mark.parametrize("solver", [name for name in CONTENDERS if "LiteEFG" not in name])
def test_every_contender_gets_less_exploitable(solver):
    contender = CONTENDERS[solver]("kuhn_poker")
    before = contender.exploitability()
    contender.advance(20 * contender.block)
    assert 0 <= contender.exploitability() < before <= 0.5


def test_a_curve_is_measured_once(tmp_path, capsys):
    path = tmp_path / "curves.csv"
    for _ in range(2):
        curves.measure(["kuhn_poker"], ["our CFR+"], 1, 0.05, path)
    assert capsys.readouterr().out.count("our CFR+") == 1
    found = curves.read(path)
    assert {point[:3] for point in found} == {("kuhn_poker", "our CFR+", 0)}
    assert [point.seconds for point in found] == sorted(point.seconds for point in found)
    assert found[-1].exploitability < found[0].exploitability < 0.5


def test_every_contender_has_a_line():
    assert list(LOOKS) == list(CONTENDERS)
    assert len(set(LOOKS.values())) == len(LOOKS)


def test_iterations_are_recorded_at_equal_distances():
    assert convergence.marks(10) == [1, 2, 3, 4, 6, 7, 10]
    assert convergence.marks(12)[-1] == 12


def test_all_algorithms_have_as_many_trials():
    for game in tuning.SHARED:
        found = [algorithm for algorithm, _ in tuning.trials(game)]
        assert list(tuning.OWN[game]) == list(tuning.ALGORITHMS)
        assert len({found.count(algorithm) for algorithm in tuning.ALGORITHMS}) == 1
        assert len({json.dumps(trial) for trial in tuning.trials(game)}) == len(found)


def test_a_trial_trains_and_is_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "TIMESTEPS", {"kuhn_poker": 2048})
    chosen = list(tuning.trials("kuhn_poker"))
    trials = [tuning.train("kuhn_poker", *chosen[position]) for position in (35, 4)]
    assert all(0.1 < trial.exploitability < 0.6 for trial in trials)
    tuning.write(tmp_path / "tuning.csv", trials)
    again = tuning.read(tmp_path / "tuning.csv")
    assert [trial.algorithm for trial in again] == ["PPO", "MaxEntPPO"]  # in the order they are defined in
    assert tuning.best(again, "kuhn_poker", "PPO").exploitability == round(trials[1].exploitability, 6)


def test_another_machines_measurements_are_not_mixed(tmp_path):
    (tmp_path / "machine.json").write_text(json.dumps({"cpu": {"model": "Z80", "cores": 1}}))
    with pytest.raises(SystemExit, match="another machine's measurements; give another --output"):
        command.note_machine(tmp_path)


def test_the_report_of_little_is_short(tmp_path, no_pictures):
    folder = tmp_path / "solvers"
    folder.mkdir()
    (folder / "speed.json").write_text(json.dumps({name: [1.0, 2.0] for name in speed.WORKLOADS}))
    report.write(folder, tmp_path)
    text = (folder / "report.md").read_text()
    assert "## Updates of OMWU" in text
    assert "## Targets" not in text
    assert "## Self-play" not in text


@pytest.mark.skipif(not RESULTS.is_dir(), reason="an installed package without results")
def test_the_committed_report_regenerates_byte_for_byte(tmp_path, no_pictures):
    report.write(RESULTS / "solvers", RESULTS, tmp_path)
    committed = sorted((RESULTS / "solvers" / "tables").iterdir())
    assert [path.name for path in committed] == sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert len(committed) == 14
    for path in [*committed, RESULTS / "solvers" / "report.md"]:
        assert (tmp_path / path.relative_to(RESULTS / "solvers")).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("game", list(tuning.SHARED))
@pytest.mark.parametrize("algorithm", list(tuning.ALGORITHMS))
def test_the_suite_trains_with_the_best_trial(game, algorithm):
    trials = tuning.read(RESULTS / "solvers" / "tuning.csv")
    suite = yaml.safe_load((ROOT / "benchmarks" / "suites" / "zero-sum.yaml").read_text())
    environment = suite["environments"][f"openspiel:{game}"]
    merged = suite["defaults"]["hyperparameters"] | environment.get("hyperparameters", {})
    merged |= environment["algorithms"][algorithm]["hyperparameters"]
    chosen = tuning.SHARED[game] | json.loads(tuning.best(trials, game, algorithm).settings)
    merged.pop("device")
    assert merged == chosen
    assert (suite["algorithms"][algorithm] or {}).get("hyperparameters", {}) == tuning.FIXED.get(algorithm, {})
    assert tuning.SEED not in suite["seeds"]
    assert not {0, 1} & set(suite["seeds"])


def test_the_values_agree_with_the_linear_programmes():
    for value in values.read(RESULTS / "solvers" / "values.csv"):
        assert abs(value.ours - value.programme) <= 2 * value.exploitability + 1e-9, value
        if not math.isnan(value.known):
            assert value.programme == pytest.approx(value.known, abs=1e-9)


def test_the_file_of_trials_names_every_trial_once():
    with (RESULTS / "solvers" / "tuning.csv").open(newline="") as stream:
        rows = [tuple(row[:3]) for row in csv.reader(stream)][1:]
    defined = [(game, name, json.dumps(chosen)) for game in tuning.SHARED for name, chosen in tuning.trials(game)]
    assert rows == defined
