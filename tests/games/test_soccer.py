"""Littman's soccer: the same game as OpenSpiel's, its rules by hand, and its values by policy iteration."""

import pytest
import torch

from maxent_onpolicy.games.explore import explore
from maxent_onpolicy.games.linear_program import solve_matrix
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.soccer import MOVES, Position, soccer, soccer_positions
from maxent_onpolicy.games.solvers.omwu import OMWU

ACTIONS = {name: number for number, name in enumerate(MOVES)}


@pytest.fixture(scope="module")
def game():
    return soccer()


def reached(game, number, first, second):
    """Return the probabilities of the states that a pair of actions leads to, by their numbers."""
    row = (number * 5 + first) * 5 + second
    start, end = game.transition.crow_indices()[row : row + 2].tolist()
    columns, values = game.transition.col_indices()[start:end], game.transition.values()[start:end]
    return dict(zip(columns.tolist(), values.tolist(), strict=True))


@pytest.fixture(scope="module")
def openspiel():
    pytest.importorskip("pyspiel")
    from maxent_onpolicy.games.openspiel import read_markov_game

    return read_markov_game("markov_soccer", 0.9)


def test_it_is_openspiels_game(game, openspiel):
    theirs, labels = openspiel
    numbers = {f"{position}\n": number for number, position in enumerate(soccer_positions())}
    order = torch.tensor([*(numbers[label] for label in labels), game.states - 1])
    assert sorted(order.tolist()) == list(range(game.states))
    torch.testing.assert_close(theirs.reward, game.reward[order], rtol=0, atol=0)
    torch.testing.assert_close(theirs.start, game.start[order], rtol=0, atol=0)
    row, column = theirs.transition.to_sparse_coo().indices()
    where = torch.stack([order[row // 25] * 25 + row % 25, order[column]])
    values, mine = theirs.transition.values(), game.transition.to_sparse_coo()
    moved = torch.sparse_coo_tensor(where, values, mine.shape, check_invariants=True).coalesce()
    assert torch.equal(moved.indices(), mine.indices())
    assert torch.equal(moved.values(), mine.values())


@pytest.mark.parametrize(
    ("position", "moves", "chances", "reward"),
    [
        # The first, with the ball, walks into the second, who stands: it always loses the ball.
        (((1, 2), (1, 3), (1, 2)), ("right", "stand"), {((1, 2), (1, 3), (1, 3)): 1.0}, 0.0),
        # Without the ball nothing happens.
        (((1, 2), (1, 3), (1, 3)), ("right", "stand"), {((1, 2), (1, 3), (1, 3)): 1.0}, 0.0),
        # Both want the free ball: who moves first has it, and the other bumps into it without the ball.
        (
            ((1, 1), (1, 3), (1, 2)),
            ("right", "left"),
            {((1, 2), (1, 3), (1, 2)): 0.5, ((1, 1), (1, 2), (1, 2)): 0.5},
            0.0,
        ),
        # Out of the field in a middle row: a goal for each, the other side's goal is none.
        (((1, 4), (3, 0), (1, 4)), ("right", "stand"), {None: 1.0}, 1.0),
        (((3, 4), (2, 0), (2, 0)), ("stand", "left"), {None: 1.0}, -1.0),
        (((1, 0), (3, 0), (1, 0)), ("left", "stand"), {((1, 0), (3, 0), (1, 0)): 1.0}, 0.0),
        (((0, 4), (3, 0), (0, 4)), ("right", "stand"), {((0, 4), (3, 0), (0, 4)): 1.0}, 0.0),
        # The second walks away with the ball; the first gets into its cell if it moves after that.
        (
            ((1, 2), (1, 3), (1, 3)),
            ("right", "up"),
            {((1, 2), (0, 3), (0, 3)): 0.5, ((1, 3), (0, 3), (0, 3)): 0.5},
            0.0,
        ),
    ],
)
def test_rules_by_hand(game, position, moves, chances, reward):
    positions = soccer_positions()
    number = positions.index(Position(*position))
    first, second = (ACTIONS[move] for move in moves)
    found = {
        None if after == game.states - 1 else tuple(positions[after]): chance
        for after, chance in reached(game, number, first, second).items()
    }
    assert found == chances
    assert float(game.reward[number, first, second]) == reward


def test_positions_are_drawn():
    assert str(Position((2, 1), (1, 3), (2, 1))) == ".....\n...b.\n.A...\n....."
    assert soccer_positions()[0].ball in ((1, 2), (2, 2))


def test_play_ends_after_a_goal(game):
    end = game.states - 1
    assert all(reached(game, end, first, second) == {end: 1.0} for first in range(5) for second in range(5))
    assert (game.reward[-1] == 0.0).all()


@pytest.mark.slow
def test_values_at_the_start(game):
    """Close bounds on them, by Hoffman and Karp's policy iteration from where entropy-regularised play ends."""
    start = OMWU(game, 0.01).learn(3000, check_every=1500)
    values = torch.stack(game.best_response_values(*start.policy(), 0.0)).mean(0)
    for _ in range(5):
        solved = [solve_matrix(MatrixGame(payoff)).strategies for payoff in game.action_values(values)]
        first, second = (torch.stack([strategies[player] for strategies in solved]) for player in range(2))
        high, values = game.best_response_values(first, second, 0.0)
    known = {(1, 2): -0.21848, (2, 2): 0.21848}  # the second player is nearer to the upper of the two cells
    for number, position in enumerate(soccer_positions()[:2]):
        assert values[number] - 1e-5 <= known[position.ball] <= high[number] + 1e-5
        assert high[number] - values[number] < 5e-4


def test_games_may_be_made_of_rules():
    """A walk on 0, 1, 2 that the first pushes up and the second down, paid 1 at its upper end."""

    def outcomes(place, up, down):
        after = place + up - down
        return [(1.0, None, 1.0)] if after == 3 else [(0.5, max(after, 0), 0.0), (0.5, place, 0.0)]

    game, states = explore({0: 0.5, 1: 0.5}, (2, 2), outcomes, 0.9)
    assert sorted(states) == [0, 1, 2]
    assert game.states == 4
    number = states.index(2)
    assert game.reward[number].tolist() == [[0.0, 0.0], [1.0, 0.0]]
    rows = game.transition.to_dense().reshape(4, 2, 2, 4)
    assert rows[number, 1, 0].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert rows[number, 1, 1].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert game.start.tolist() == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("start", "outcome", "gamma", "message"),
    [
        ({0: 0.5}, (1.0, 0, 0.0), 0.9, "`start` must be a distribution"),
        ({0: 1.0}, (0.9, 0, 0.0), 0.9, r"`transition` must sum to one, but row \(0, 0, 0\) sums to 0.9"),
        ({0: 1.0}, (1.0, 0, 0.0), 1.0, "`gamma` must be in"),
    ],
)
def test_rules_that_make_no_game_are_refused(start, outcome, gamma, message):
    with pytest.raises(ValueError, match=message):
        explore(start, (1, 1), lambda *_: [outcome], gamma)


@pytest.mark.parametrize("name", ["kuhn_poker", "goofspiel(players=3)", "matrix_pd"])
def test_other_games_of_openspiel_are_refused(name):
    pytest.importorskip("pyspiel")
    from maxent_onpolicy.games.openspiel import read_markov_game

    with pytest.raises(ValueError, match="no zero-sum game of two players who move at the same time"):
        read_markov_game(name, 0.9)
