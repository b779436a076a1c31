"""Two-player zero-sum games of imperfect information, in sequence form."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from maxent_onpolicy.games import treeplex
from maxent_onpolicy.games.evaluation import Evaluation, digest, not_negative
from maxent_onpolicy.games.treeplex import Payoff, Treeplex, Vector
from maxent_onpolicy.validation import check_range, did_you_mean

if TYPE_CHECKING:
    from maxent_onpolicy.games.reduction import Reduction

Behaviours = tuple[Vector, Vector]


class InformationState(NamedTuple):
    """What a player knows when it moves.

    Attributes:
        label: its name, unique for the player.
        actions: names of the legal actions, in the order of its sequences.
        parent: the player's own sequence that leads here.
        history: all players' and chance's actions on one of the ways here, where they are known.
    """

    label: str
    actions: tuple[Any, ...]
    parent: int
    history: tuple[int, ...] = ()


class SequenceFormGame:
    """A game tree of perfect recall, as two trees of information states and a sparse payoff matrix.

    Player 0 maximises ``xᵀAy`` and player 1 minimises it, where ``x`` and ``y`` are realisation plans and ``A`` has the
    first player's payoffs times the probabilities of chance (von Stengel 1996).

    Args:
        states: for each player its information states, parents first; the sequences of a state are numbered when it
            comes, from 1 on.
        entries: ``[entries, 2]`` sequences of the players at the leaves; repeated pairs add up.
        values: ``[entries]`` first player's payoff there times the probability of chance.
        name: for messages.

    Raises:
        ValueError: if a payoff is not finite, a sequence is out of range, or a label comes twice.
    """

    def __init__(
        self,
        states: tuple[Sequence[InformationState], Sequence[InformationState]],
        entries: Int64[np.ndarray, "entries 2"],
        values: Float64[np.ndarray, " entries"],
        name: str = "game",
    ) -> None:
        self.name = name
        self.states = states
        trees = tuple(_tree(own, player) for player, own in enumerate(states))
        self.trees: tuple[Treeplex, Treeplex] = (trees[0], trees[1])
        _check_entries(entries, values, self.trees)
        self.entries, self.values = _add_repeated(entries, values)

    @classmethod
    def from_openspiel(cls, game: Any) -> "SequenceFormGame":
        """Return an OpenSpiel game in sequence form.

        Args:
            game: a ``pyspiel.Game`` or its name, with parameters as OpenSpiel writes them: ``"liars_dice(numdice=1)"``.

        Raises:
            ImportError: without OpenSpiel.
            GameTooLargeError: if there are too many histories to walk through.
            ValueError: if there is no such game, or it is not one of two players, zero-sum, with perfect recall.
        """
        from maxent_onpolicy.games.openspiel import read_game

        return cls(*read_game(game))

    @cached_property
    def payoffs(self) -> tuple[Payoff, Payoff]:
        """For each player, what one of its sequences earns against each of the opponent's."""
        row, column = self.entries[:, 0], self.entries[:, 1]
        first, second = self.trees
        return (
            _compressed(row, column, self.values / first.size[row], first.n_sequences),
            _compressed(column, row, -self.values / second.size[column], second.n_sequences),
        )

    @cached_property
    def reduced(self) -> "Reduction":
        """The game without its symmetries; see :mod:`maxent_onpolicy.games.reduction`."""
        from maxent_onpolicy.games.reduction import reduce_game

        return reduce_game(self)

    def uniform(self) -> Behaviours:
        """Return the behaviour that chooses among all actions alike."""
        first, second = (_uniform(tree) for tree in self.trees)
        return first, second

    def reach(self, behaviour: Vector, player: int) -> Vector:
        """Return the realisation plan of a behaviour."""
        plan = np.empty_like(behaviour)
        treeplex.fill_reach(self.trees[player], behaviour.copy(), plan)
        return plan

    def gradients(self, behaviours: Behaviours) -> tuple[Vector, Vector]:
        """Return what each player's sequences earn against the other's behaviour."""
        plans = [self.reach(behaviour, player) for player, behaviour in enumerate(behaviours)]
        out = tuple(np.empty(tree.n_sequences) for tree in self.trees)
        for player in range(2):
            treeplex.multiply(self.payoffs[player], plans[1 - player], out[player])
        return out[0], out[1]

    def value(self, behaviours: Behaviours) -> float:
        """Return the first player's expected payoff."""
        plan = self.reach(behaviours[0], 0)
        return float(np.dot(plan * self.trees[0].size, self.gradients(behaviours)[0]))

    def best_responses(self, behaviours: Behaviours) -> tuple[Behaviours, tuple[float, float]]:
        """Return each player's pure best response to the other, and what it earns there."""
        found, earned = [], []
        for tree, gradient in zip(self.trees, self.gradients(behaviours), strict=True):
            best = np.empty(tree.n_sequences)
            earned.append(float(treeplex.best_response(tree, gradient, best, np.empty(tree.n_sequences))))
            found.append(best)
        return (found[0], found[1]), (earned[0], earned[1])

    def qre_gap(self, behaviours: Behaviours, tau: float) -> float:
        """Return how far the behaviours are from the quantal response equilibrium of temperature ``tau``.

        It is what the players could gain together, entropy counted, by responding to each other; computed as
        ``τ·Σ_players D(x‖response)``, which is the same and has no cancellation. At ``tau = 0`` it is NashConv.
        """
        if tau == 0.0:
            return not_negative(sum(self.best_responses(behaviours)[1]))
        total = 0.0
        for player, gradient in enumerate(self.gradients(behaviours)):
            tree = self.trees[player]
            response = gradient / tau
            treeplex.recentre(tree, response)
            total += tau * treeplex.divergence(
                tree, behaviours[player], self.reach(behaviours[player], player), response
            )
        return not_negative(float(total))

    def evaluate(self, behaviours: Behaviours, tau: float = 0.0) -> Evaluation:
        """Measure a pair of behaviours.

        Args:
            behaviours: of both players.
            tau: temperature of the equilibrium that ``qre_gap`` is measured to.

        Raises:
            ValueError: if ``tau`` is negative, or a behaviour has another length than the player has sequences.
        """
        check_range("tau", tau, 0.0)
        for player, (tree, behaviour) in enumerate(zip(self.trees, behaviours, strict=True)):
            if len(behaviour) != tree.n_sequences:
                raise ValueError(
                    f"player {player} of {self.name} has {tree.n_sequences} sequences, "
                    f"got a behaviour of {len(behaviour)}"
                )
        nash_conv = not_negative(sum(self.best_responses(behaviours)[1]))
        return Evaluation(self.qre_gap(behaviours, tau), nash_conv, nash_conv / 2, self.value(behaviours))

    def table(self, behaviours: Behaviours) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return each player's action probabilities by information state."""
        tables = []
        for tree, own, behaviour in zip(self.trees, self.states, behaviours, strict=True):
            spans = zip(own, tree.first, tree.actions, strict=True)
            tables.append({state.label: behaviour[first : first + count].copy() for state, first, count in spans})
        return tables[0], tables[1]

    def behaviours(self, tables: Sequence[Mapping[str, Sequence[float]]]) -> Behaviours:
        """Return the behaviours that such tables describe; uniform where they say nothing.

        Raises:
            ValueError: if probabilities are negative, do not sum to one or are not one for each action.
        """
        found = self.uniform()
        for tree, own, table, behaviour in zip(self.trees, self.states, tables, found, strict=True):
            for state, first, count in zip(own, tree.first, tree.actions, strict=True):
                if state.label in table:
                    behaviour[first : first + count] = _checked(table[state.label], int(count), state.label)
        return found

    def choices(
        self, table: Mapping[str, np.ndarray], player: int, observation: Any
    ) -> tuple[np.ndarray, tuple[Any, ...]]:
        """Return the probabilities of the player's actions in an information state, and their names.

        Raises:
            ValueError: if there is no such information state, naming the closest.
        """
        if observation not in self._actions[player]:
            raise ValueError(
                f"player {player} has no information state {observation!r}{did_you_mean(observation, table)}"
            )
        return table[observation], self._actions[player][observation]

    @cached_property
    def _actions(self) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]:
        first, second = ({state.label: state.actions for state in own} for own in self.states)
        return first, second

    @property
    def fingerprint(self) -> str:
        """What tells this game from others, in a line."""
        parents = [tree.parent for tree in self.trees]
        return f"{self!r} {digest(*parents, self.entries, self.values)}"

    def __repr__(self) -> str:
        first, second = self.trees
        return (
            f"SequenceFormGame({self.name!r}, information states {first.n_states} + {second.n_states}, "
            f"sequences {first.n_sequences} × {second.n_sequences}, payoffs {len(self.values)})"
        )


def _tree(states: Sequence[InformationState], player: int) -> Treeplex:
    actions = np.array([len(state.actions) for state in states], dtype=np.int64)
    if (actions < 1).any():
        raise ValueError(f"player {player} has an information state without actions")
    labels = [state.label for state in states]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"player {player} has two information states with the label {twice!r}")
    first = 1 + np.concatenate([[0], np.cumsum(actions)[:-1]]).astype(np.int64) if len(states) else actions
    parent = np.array([state.parent for state in states], dtype=np.int64)
    if (parent < 0).any() or (parent >= first).any():
        raise ValueError(f"player {player}: the sequence that leads to an information state must come before it")
    return Treeplex(parent, first, actions, np.ones(len(states)), np.ones(1 + int(actions.sum())))


def _check_entries(entries: np.ndarray, values: np.ndarray, trees: tuple[Treeplex, Treeplex]) -> None:
    if entries.ndim != 2 or entries.shape[1] != 2 or values.shape != entries.shape[:1]:
        raise ValueError(
            f"`entries` must be [entries, 2] and `values` [entries], got shapes {entries.shape} and {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"payoffs must be finite, got {values[~np.isfinite(values)][0]}")
    for player, tree in enumerate(trees):
        outside = (entries[:, player] < 0) | (entries[:, player] >= tree.n_sequences)
        if outside.any():
            raise ValueError(
                f"player {player} has sequences 0 to {tree.n_sequences - 1}, got {entries[outside][0, player]}"
            )


def _add_repeated(entries: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair of sequences once, with the sum of its values, and leave out those that sum to zero."""
    pairs, where = np.unique(entries, axis=0, return_inverse=True)
    sums = np.bincount(where.reshape(-1), values, len(pairs))
    return pairs[sums != 0.0], sums[sums != 0.0]


def _compressed(row: np.ndarray, column: np.ndarray, value: np.ndarray, n_rows: int) -> Payoff:
    order = np.lexsort((column, row))
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))]).astype(np.int64)
    return Payoff(start, column[order].astype(np.int64), value[order].astype(np.float64))


def _uniform(tree: Treeplex) -> np.ndarray:
    return np.concatenate([[1.0], np.repeat(1.0 / tree.actions, tree.actions)])


def _checked(probabilities: Sequence[float], count: int, label: str) -> np.ndarray:
    array = np.asarray(probabilities, dtype=np.float64)
    if array.shape != (count,) or (array < 0).any() or not np.isclose(array.sum(), 1.0, atol=1e-6):
        raise ValueError(f"information state {label!r} needs {count} probabilities that sum to one, got {array}")
    return array
