"""The one update: each response's own loop does what the reference does, and that is what the papers write."""

import numpy as np
import pytest
import torch
from game_helpers import random_game

from maxent_onpolicy.games.generators import random_markov_game, random_matrix_game
from maxent_onpolicy.games.solvers.core import VARIANTS, advance, from_arrays, midpoint, to_arrays
from maxent_onpolicy.games.solvers.omwu import OMWU
from maxent_onpolicy.games.solvers.responses import make_response

ETA, TAU = 0.2, 0.3
GAMES = {
    "matrix": lambda: random_matrix_game(3, 4, batch=5),
    "markov": lambda: random_markov_game(4, (2, 3)),
    "horizon": lambda: random_markov_game(4, (2, 3), horizon=3),
    "sequence": lambda: random_game(0),
}


def close(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", GAMES)
def test_own_loops_are_the_reference(name, variant):
    mine, reference = (make_response(GAMES[name](), "float64", "cpu") for _ in range(2))
    state = advance(reference, reference.start(), 30, ETA, TAU, variant)
    found = mine.start()
    for iterations in (13, 17):  # logits are shifted in between, which no strategy sees
        found = mine.advance(found, iterations, ETA, TAU, variant)
    close(mine.respond(found.dual), reference.respond(state.dual))
    close(found.gradient, state.gradient)
    close(found.total, state.total)


def written_out(payoff, iterations, variant):
    """Return the regular iterate as Cen, Wei, Chi (arXiv:2105.15186) write it, in probabilities, and the one played."""
    m, n = payoff.shape
    first, second = first_played, second_played = np.full(m, 1 / m), np.full(n, 1 / n)

    def step(own, gain):
        weights = own ** (1 - ETA * TAU) * np.exp(ETA * gain)
        return weights / weights.sum()

    before = np.zeros(m), np.zeros(n)
    for _ in range(iterations):
        if variant == "extragradient":
            before = payoff @ second, -payoff.T @ first
        if variant == "mwu":
            first_played, second_played = first, second
        else:
            first_played, second_played = step(first, before[0]), step(second, before[1])
        before = payoff @ second_played, -payoff.T @ first_played
        first, second = step(first, before[0]), step(second, before[1])
    return (first, second), (first_played, second_played)


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_are_those_of_the_paper_in_probabilities(variant):
    game = random_matrix_game(4, 3, seed=1)
    solver = OMWU(game, TAU, ETA, variant).learn(25, check_every=10)
    regular, _ = written_out(game.payoff.numpy(), 25, variant)
    close(solver.policy("last"), regular)
    played = [written_out(game.payoff.numpy(), iteration, variant)[1] for iteration in range(1, 26)]
    close(solver.policy("average"), [np.mean([pair[player] for pair in played], axis=0) for player in range(2)])
    if variant != "extragradient":  # which looks once more before it plays
        close(solver.policy("midpoint"), written_out(game.payoff.numpy(), 26, variant)[1])


def test_markov_updates_are_those_of_the_paper():
    """Algorithm 1 of Cen, Chi, Du, Xiao (arXiv:2210.01050), in probabilities, with loops over states."""
    game = random_markov_game(3, (2, 3), gamma=0.8, seed=1)
    reward, transition = game.reward.numpy(), game.transition.reshape(3, 2, 3, 3).numpy()
    with pytest.warns(UserWarning, match="largest step size"):
        solver = OMWU(game, TAU, ETA).learn(12, check_every=5)
    values = np.full(3, TAU * (np.log(2) - np.log(3)))
    first, second = np.full((3, 2), 1 / 2), np.full((3, 3), 1 / 3)
    before = np.zeros((3, 2)), np.zeros((3, 3))

    def step(own, gain):
        weights = own ** (1 - ETA * TAU) * np.exp(ETA * gain)
        return weights / weights.sum()

    for _ in range(12):
        q = reward + 0.8 * transition @ values
        played = [
            np.array([step(own[s], gain[s]) for s in range(3)])
            for own, gain in zip((first, second), before, strict=True)
        ]
        before = (
            np.array([q[s] @ played[1][s] for s in range(3)]),
            np.array([-q[s].T @ played[0][s] for s in range(3)]),
        )
        first = np.array([step(first[s], before[0][s]) for s in range(3)])
        second = np.array([step(second[s], before[1][s]) for s in range(3)])
        for s in range(3):
            entropy = -played[0][s] @ np.log(played[0][s]) + played[1][s] @ np.log(played[1][s])
            soft = played[0][s] @ q[s] @ played[1][s] + TAU * entropy
            values[s] = (1 - ETA * TAU) * values[s] + ETA * TAU * soft
    close(solver.policy("last"), (first, second))
    close((solver._response.v,), (values,))


def test_states_survive_as_arrays():
    response = make_response(random_matrix_game(2, 3), "float64", "cpu")
    state = response.advance(response.start(), 5, ETA, TAU, "omwu")
    again = from_arrays(to_arrays(state), torch.from_numpy)
    close(midpoint(again, ETA, TAU), midpoint(state, ETA, TAU))
    close(again.total, state.total)


@pytest.mark.slow
def test_fused_updates_are_the_reference():
    game = random_matrix_game(3, 4, batch=5)
    fused, plain = (OMWU(game, TAU, compile=compile).learn(30) for compile in (True, False))
    close(fused.policy(), plain.policy())
    close(fused.policy("average"), plain.policy("average"))
