"""Games without their symmetries: alike sequences are solved once.

In Leduc poker the suit of a card decides nothing, and yet every suit has information states of its own. Colour
refinement finds the coarsest partition of the sequences in which those of a class have the same total payoff against
every class of the opponent's, and the same classes of information states below them (an equitable partition; Grohe,
Kersting, Mladenov, Selman 2014 for linear programs). Started from strategies that treat alike sequences alike, every
solver here keeps them so, and its iterates are exactly those of the whole game, at a fraction of the work: a third in
Leduc.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maxent_onpolicy.games.treeplex import Treeplex

if TYPE_CHECKING:
    from maxent_onpolicy.games.sequence_form import Behaviours, SequenceFormGame

_DIGITS = 1e-12  # payoffs that differ by less, relative to the largest, are the same


class Reduction(NamedTuple):
    """A smaller game, and how to get back.

    Attributes:
        game: with one of each kind of sequences.
        kinds: for each player and each sequence of the whole game, its sequence in the smaller one.
    """

    game: "SequenceFormGame"
    kinds: tuple[np.ndarray, np.ndarray]

    def lift(self, behaviours: "Behaviours") -> "Behaviours":
        """Return the whole game's behaviours."""
        return behaviours[0][self.kinds[0]], behaviours[1][self.kinds[1]]


def reduce_game(game: "SequenceFormGame") -> Reduction:
    """Return the game with one of each kind of sequences; the game itself where all are different."""
    colours = _refined(game)
    parts = [_smaller(tree, colours[player]) for player, tree in enumerate(game.trees)]
    kinds = (parts[0].kinds, parts[1].kinds)
    if all(len(part.tree.size) == tree.n_sequences for part, tree in zip(parts, game.trees, strict=True)):
        return Reduction(game, (np.arange(len(kinds[0])), np.arange(len(kinds[1]))))
    small = object.__new__(type(game))
    small.name = f"{game.name} without symmetries"
    kept = [[own[each] for each in part.kept] for own, part in zip(game.states, parts, strict=True)]
    small.states = (kept[0], kept[1])
    small.trees = (parts[0].tree, parts[1].tree)
    pairs = np.stack([kinds[player][game.entries[:, player]] for player in range(2)], axis=1)
    small.entries, where = np.unique(pairs, axis=0, return_inverse=True)
    small.values = np.bincount(where.reshape(-1), game.values, len(small.entries))
    return Reduction(small, kinds)


class _Part(NamedTuple):
    tree: Treeplex
    kinds: np.ndarray
    kept: list[int]


def _refined(game: "SequenceFormGame") -> list[np.ndarray]:
    """Return a colour for each sequence of each player: the same for those that are alike.

    Sums of random 64-bit numbers stand for multisets of colours, so that a round is a few sums over all payoffs.
    """
    random = np.random.default_rng(0)
    scale = float(np.abs(game.values).max(initial=0.0)) or 1.0
    whole = np.rint(game.values / (scale * _DIGITS)).astype(np.int64).astype(np.uint64)
    above = [_state_of(tree) for tree in game.trees]
    colours = [np.zeros(tree.n_sequences, dtype=np.int64) for tree in game.trees]
    found = 0
    while True:
        names = [random.integers(0, 2**63, colour.max() + 1, dtype=np.uint64) for colour in colours]
        new = []
        for player, tree in enumerate(game.trees):
            mine, theirs = game.entries[:, player], game.entries[:, 1 - player]
            earns = np.zeros(tree.n_sequences, dtype=np.uint64)
            np.add.at(earns, mine, names[1 - player][colours[1 - player][theirs]] * whole)
            state_colours = _state_colours(tree, colours[player])
            leads = np.zeros(tree.n_sequences, dtype=np.uint64)
            label = random.integers(0, 2**63, state_colours.max(initial=0) + 1, dtype=np.uint64)
            np.add.at(leads, tree.parent, label[state_colours])
            state, position = above[player]
            own = np.where(state >= 0, state_colours[state], -1) if len(state_colours) else state
            signature = np.stack([colours[player].astype(np.uint64), earns, leads, own.astype(np.uint64), position], 1)
            new.append(np.unique(signature, axis=0, return_inverse=True)[1].reshape(-1))
        colours = new
        count = sum(int(colour.max()) + 1 for colour in colours)
        if count == found:
            return colours
        found = count


def _state_of(tree: Treeplex) -> tuple[np.ndarray, np.ndarray]:
    """Return each sequence's information state (−1 for the empty one) and its position there."""
    state = np.concatenate([[-1], np.repeat(np.arange(tree.n_states), tree.actions)])
    position = np.arange(tree.n_sequences) - np.concatenate([[0], np.repeat(tree.first, tree.actions)])
    return state, position.astype(np.uint64)


def _state_colours(tree: Treeplex, colours: np.ndarray) -> np.ndarray:
    """Return a colour for each information state: of what leads there and of its sequences."""
    widest = int(tree.actions.max(initial=0))
    rows = np.full((tree.n_states, 1 + widest), -1, dtype=np.int64)
    rows[:, 0] = colours[tree.parent]
    for offset in range(widest):
        has = tree.actions > offset
        rows[has, 1 + offset] = colours[tree.first[has] + offset]
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def _smaller(tree: Treeplex, colours: np.ndarray) -> _Part:
    """Keep the first information state of each kind."""
    kinds = np.full(tree.n_sequences, -1, dtype=np.int64)
    kinds[0] = 0
    state_colours = _state_colours(tree, colours)
    kept: list[int] = []
    number: dict[int, int] = {}
    first: list[int] = []
    n_sequences = 1
    for state in range(tree.n_states):
        colour = int(state_colours[state])
        if colour not in number:
            number[colour] = len(kept)
            kept.append(state)
            first.append(n_sequences)
            n_sequences += int(tree.actions[state])
        span = slice(tree.first[state], tree.first[state] + tree.actions[state])
        kinds[span] = first[number[colour]] + np.arange(tree.actions[state])
    size = np.bincount(kinds, tree.size, n_sequences)
    alike = np.bincount([number[int(colour)] for colour in state_colours], minlength=len(kept)).astype(np.float64)
    parent = kinds[tree.parent[kept]]
    small = Treeplex(parent, np.array(first, dtype=np.int64), tree.actions[kept], alike / size[parent], size)
    return _Part(small, kinds, kept)
