"""Exact equilibria by linear programming."""

import sys

import numpy as np
import pytest
import torch
from game_helpers import random_game

from maxent_onpolicy.games import generators
from maxent_onpolicy.games.linear_program import solve_matrix, solve_sequence_form
from maxent_onpolicy.games.matrix import MatrixGame


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("matching_pennies", [1 / 2, 1 / 2]),
        ("rock_paper_scissors", [1 / 3, 1 / 3, 1 / 3]),
        ("biased_rock_paper_scissors", [1 / 16, 10 / 16, 5 / 16]),
        ("perturbed_rock_paper_scissors", [3 / 7, 3 / 7, 1 / 7]),
    ],
)
def test_known_solutions_of_matrix_games(name, expected):
    value, strategies = solve_matrix(getattr(generators, name)())
    assert value == pytest.approx(0.0, abs=1e-14)
    for strategy in strategies:
        assert strategy.tolist() == pytest.approx(expected, abs=1e-14)


def test_a_solution_by_hand_where_the_players_differ():
    # Each makes the other indifferent: 3x + (1 − x) = 2(1 − x), and 3y = y + 2(1 − y).
    value, (first, second) = solve_matrix(MatrixGame([[3, 0], [1, 2]]))
    assert value == pytest.approx(3 / 2)
    assert (first.tolist(), second.tolist()) == (pytest.approx([1 / 4, 3 / 4]), pytest.approx([1 / 2, 1 / 2]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (20, 30)])
def test_random_matrix_games_are_solved(shape):
    game = generators.random_matrix_game(*shape)
    value, strategies = solve_matrix(game)
    found = game.evaluate(strategies)
    assert found.nash_conv == pytest.approx(0.0, abs=1e-12)
    assert found.value == pytest.approx(value)


def test_strategies_have_the_type_of_the_game():
    game = MatrixGame(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert solve_matrix(game).strategies[0].dtype == torch.float32


@pytest.mark.parametrize(("name", "value"), [("kuhn", -1 / 18), ("leduc", -0.085606424078)])
def test_known_values_of_poker(name, value, request):
    game = request.getfixturevalue(name)
    found = solve_sequence_form(game)
    assert found.value == pytest.approx(value, abs=1e-12)
    measured = game.evaluate(found.strategies)
    assert measured.value == pytest.approx(value, abs=1e-12)
    assert measured.nash_conv == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_random_games_in_sequence_form_are_solved(seed):
    game = random_game(seed, (8, 9), 100)
    found = solve_sequence_form(game)
    measured = game.evaluate(found.strategies)
    assert measured.nash_conv == pytest.approx(0.0, abs=1e-12)
    assert measured.value == pytest.approx(found.value)


def test_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"one matrix game at a time, got a batch \(3,\)"):
        solve_matrix(generators.random_matrix_game(2, 2, batch=3))


def test_without_scipy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[games\]'"):
        solve_matrix(MatrixGame(np.eye(2)))
