"""A game's tree as arrays that grow where it is played, so that many games are stepped by a few array operations."""

from typing import Any

import numpy as np
from jaxtyping import Int, Int8

from maxent_onpolicy.games.selfplay.encoding import Encoding

Nodes = Int[np.ndarray, " n"]

CHANCE, END = -1, -2
_UNKNOWN = -1
# Memory for the tree; beyond it the tree is forgotten, and grows anew from where the games are.
_MOST_BYTES = 2**28
_STATE_BYTES = 1024  # what OpenSpiel keeps for a state, roughly
_FEWEST_NODES = 2**12


class GameTree:
    """The part of a game's tree that was visited.

    A node is a history. What is known of it lies in row ``node`` of the arrays; they are replaced when they grow.

    Args:
        game: a ``pyspiel.Game`` in which players take turns, and chance's probabilities are known.
        most_nodes: after which :meth:`is_full` says so; ``None``: about as many as fit into 256 MiB.

    Attributes:
        observation: ``[nodes, size]`` float32: what the acting player sees.
        mask: ``[nodes, actions]`` int8: 1 for what it may do.
        player: ``[nodes]`` who acts, 0 or 1; ``CHANCE`` or ``END``.
        returns: ``[nodes]`` what player 0 has gained up to here.
    """

    def __init__(self, game: Any, most_nodes: int | None = None) -> None:
        self.game = game
        self.encoding = Encoding(game)
        self._width = max(self.encoding.n_actions, game.max_chance_outcomes(), 1)
        row = _STATE_BYTES + 4 * self.encoding.size + self.encoding.n_actions + 4 * self._width
        self._most = max(_MOST_BYTES // row, _FEWEST_NODES) if most_nodes is None else most_nodes
        self._clear()

    def _clear(self) -> None:
        self.states: list[Any] = []
        # Of chance's nodes, in rows of their own: its actions, and their probabilities summed up.
        self._outcomes: list[list[int]] = []
        self._sums = np.empty((0, self._width))
        self._allocate(64)
        self.root = self.add(self.game.new_initial_state())

    def _allocate(self, capacity: int) -> None:
        known = len(self.states)
        arrays = {
            "observation": np.zeros((capacity, self.encoding.size), np.float32),
            "mask": np.zeros((capacity, self.encoding.n_actions), np.int8),
            "player": np.zeros(capacity, np.int8),
            "returns": np.zeros(capacity),
            "_chance": np.zeros(capacity, np.int32),
            "_child": np.full((capacity, self._width), _UNKNOWN, np.int32),
        }
        for name, array in arrays.items():
            if known:
                array[:known] = getattr(self, name)[:known]
            setattr(self, name, array)

    observation: np.ndarray
    mask: Int8[np.ndarray, "nodes actions"]
    player: Int8[np.ndarray, " nodes"]
    returns: np.ndarray
    _chance: np.ndarray
    _child: np.ndarray

    @property
    def is_full(self) -> bool:
        """Whether it is time to :meth:`forget`."""
        return len(self.states) > self._most

    def forget(self, nodes: Nodes) -> Nodes:
        """Forget all but the root and ``nodes``; return their new numbers."""
        kept = [self.states[node] for node in nodes]
        self._clear()
        return np.array([self.add(state) for state in kept], dtype=np.int64)

    def add(self, state: Any) -> int:
        """Return a new node for a ``pyspiel.State``.

        Raises:
            ValueError: if it is an end in which the players' gains are not opposite.
        """
        node = len(self.states)
        if node == len(self.player):
            self._allocate(2 * node)
        self.states.append(state)
        self.returns[node] = self._gain(state)
        if state.is_terminal():
            self.player[node] = END
        elif state.is_chance_node():
            self.player[node] = CHANCE
            self._add_chance(node, state.chance_outcomes())
        else:
            self.player[node] = state.current_player()
            self.encoding.fill(state, self.observation[node], self.mask[node])
        return node

    def _add_chance(self, node: int, outcomes: list[tuple[int, float]]) -> None:
        self._chance[node] = row = len(self._outcomes)
        if row == len(self._sums):
            more = np.full((max(16, row), self._width), np.inf)
            self._sums = np.concatenate([self._sums, more])
        # The last sum is 1 but for rounding, and no number is above it.
        self._sums[row, : len(outcomes) - 1] = np.cumsum([probability for _, probability in outcomes[:-1]])
        self._outcomes.append([action for action, _ in outcomes])

    def _gain(self, state: Any) -> float:
        first, second = state.returns()
        if abs(first + second) > 1e-6 * max(1.0, abs(first)):
            raise ValueError(f"{self.game} is not zero-sum: it pays {first:g} and {second:g} after {state.history()}")
        return first

    def act(self, nodes: Nodes, actions: Nodes) -> Nodes:
        """Return the nodes that legal actions, or chance's outcomes by their numbers, lead to."""
        found = self._child[nodes, actions].astype(np.int64)
        if (found == _UNKNOWN).any():
            for index in np.flatnonzero(found == _UNKNOWN).tolist():
                found[index] = self._grow(int(nodes[index]), int(actions[index]))
        return found

    def settle(self, nodes: Nodes, random: np.random.Generator) -> Nodes:
        """Return ``nodes``, where it is chance's turn replaced by what it leads to."""
        waiting = np.flatnonzero(self.player[nodes] == CHANCE)
        if len(waiting):
            nodes = nodes.copy()
        while len(waiting):
            at = nodes[waiting]
            drawn = random.random(len(at))
            places = (self._sums[self._chance[at]] <= drawn[:, None]).sum(1)
            nodes[waiting] = reached = self.act(at, places)
            waiting = waiting[self.player[reached] == CHANCE]
        return nodes

    def _grow(self, node: int, place: int) -> int:
        """Return a child by its place among the node's: an action, or the number of one of chance's outcomes."""
        if self._child[node, place] == _UNKNOWN:  # else another of the same games has just come here
            action = self._outcomes[self._chance[node]][place] if self.player[node] == CHANCE else place
            child = self.add(self.states[node].child(action))
            self._child[node, place] = child
        return int(self._child[node, place])
