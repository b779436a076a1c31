"""``maxent-onpolicy solve``."""

import csv

import pytest

from maxent_onpolicy.cli.main import main
from maxent_onpolicy.games import OMWU, make_game


def test_kuhn_poker_is_solved_and_shown(in_tmp, capsys):
    assert main(["solve", "kuhn_poker", "--tau", "0.05", "--show-policy"]) == 0
    shown = capsys.readouterr().out
    assert "OMWU on" in shown
    assert "0.0462" in shown  # exploitability of the equilibrium of this temperature
    assert shown.count("\n") > 12  # a line for each information state


def test_annealing_finds_the_value_of_the_game(in_tmp, capsys):
    assert main(["solve", "kuhn_poker", "--acceleration", "newton", "--tol", "1e-8"]) == 0
    assert "-0.055556" in capsys.readouterr().out


@pytest.mark.parametrize("solver", ["mmd", "cfr+", "pcfr+", "extragradient"])
def test_every_solver_runs(solver, in_tmp, capsys):
    assert (
        main(["solve", "perturbed_rock_paper_scissors", "--solver", solver, "--tau", "0.2", "--iterations", "200"]) == 0
    )
    assert "exploitability" in capsys.readouterr().out


def test_a_saved_solver_and_its_history_can_be_read(in_tmp, capsys):
    arguments = [
        "--set",
        "m=3",
        "--set",
        "n=4",
        "--tau",
        "0.2",
        "--iterations",
        "50",
        "--check-every",
        "10",
        "--tol",
        "0",
    ]
    assert main(["solve", "random_matrix", *arguments, "--save", "it.npz", "--history", "it.csv"]) == 0
    assert OMWU.load("it.npz", make_game("random_matrix", m=3, n=4)).iterations == 50
    with open("it.csv", encoding="utf-8") as stream:
        assert [row["iterations"] for row in csv.DictReader(stream)] == ["10", "20", "30", "40", "50"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kuhn_pokre"], "kuhn_poker"),
        (["kuhn_poker", "--tau", "-1"], "tau"),
        (["kuhn_poker", "--tau", "warm"], "--tau"),
        (["kuhn_poker", "--solver", "simplex"], "--solver"),
        (["kuhn_poker", "--eta", "theory"], "no step size is proved"),
        (["matching_pennies", "--acceleration", "newton", "--iterations", "1"], "sequence form"),
    ],
)
def test_mistakes_are_explained(arguments, words, in_tmp, capsys):
    assert main(["solve", *arguments]) == 2
    assert words in capsys.readouterr().err
