"""Random games and strategies."""

import numpy as np

from maxent_onpolicy.games.sequence_form import InformationState, SequenceFormGame


def random_states(random: np.random.Generator, count: int) -> list[InformationState]:
    """Return information states with one to three actions each, hung below random sequences."""
    states, sequences = [], 1
    for number in range(count):
        actions = int(random.integers(1, 4))
        states.append(InformationState(f"state {number}", tuple(range(actions)), int(random.integers(sequences))))
        sequences += actions
    return states


def random_game(seed: int, counts: tuple[int, int] = (5, 6), entries: int = 40) -> SequenceFormGame:
    """Return a game with random trees and payoffs at random pairs of sequences."""
    random = np.random.default_rng(seed)
    states = (random_states(random, counts[0]), random_states(random, counts[1]))
    sizes = [1 + sum(len(state.actions) for state in own) for own in states]
    where = np.stack([random.integers(size, size=entries) for size in sizes], axis=1)
    return SequenceFormGame(states, where, random.normal(size=entries), f"random {seed}")


def random_behaviours(game: SequenceFormGame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return behaviours drawn from flat Dirichlet distributions."""
    random = np.random.default_rng(seed)
    found = game.uniform()
    for tree, behaviour in zip(game.trees, found, strict=True):
        for first, count in zip(tree.first, tree.actions, strict=True):
            behaviour[first : first + count] = random.dirichlet(np.ones(count))
    return found
