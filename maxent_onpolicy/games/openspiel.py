"""OpenSpiel's games as data."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from maxent_onpolicy.games.explore import explore
from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.sequence_form import InformationState
from maxent_onpolicy.validation import did_you_mean

# What one can wait for, and a game's tree that still fits: Leduc poker has 9,457 histories, Liar's dice 294,883.
MAX_HISTORIES = 2_000_000


class GameTooLargeError(ValueError):
    """A game's tree has too many histories to walk through."""


def load_game(game: Any) -> Any:
    """Return a ``pyspiel.Game`` from its name.

    Raises:
        ImportError: without OpenSpiel, saying what to install.
        ValueError: if OpenSpiel has no such game, naming the closest it has.
    """
    pyspiel = _pyspiel()
    if not isinstance(game, str):
        return game
    name = game.split("(", 1)[0]
    known = pyspiel.registered_names()
    if name not in known:
        raise ValueError(f"OpenSpiel has no game {name!r}{did_you_mean(name, known)}")
    try:
        return pyspiel.load_game(game)
    except pyspiel.SpielError as error:
        raise ValueError(f"OpenSpiel cannot load {game!r}: {error}") from None


def load_zero_sum(game: Any) -> Any:
    """Return a two-player zero-sum ``pyspiel.Game`` in which players take turns.

    Where they move at the same time, the second moves without seeing what the first did.

    Args:
        game: a ``pyspiel.Game`` or its name.

    Raises:
        ImportError: without OpenSpiel.
        ValueError: if there is no such game, naming the closest, or it is another kind of game.
    """
    pyspiel = _pyspiel()
    loaded = load_game(game)
    kind = loaded.get_type()
    if loaded.num_players() != 2:
        raise ValueError(f"{kind.short_name} has {loaded.num_players()} players; it must have two")
    if kind.utility != pyspiel.GameType.Utility.ZERO_SUM:
        raise ValueError(f"{kind.short_name} is not zero-sum in OpenSpiel's words ({kind.utility.name})")
    if kind.dynamics == pyspiel.GameType.Dynamics.SIMULTANEOUS:
        return pyspiel.convert_to_turn_based(loaded)
    return loaded


def read_game(
    game: Any,
) -> tuple[tuple[list[InformationState], list[InformationState]], np.ndarray, np.ndarray, str]:
    """Walk through a game's tree; return the arguments of a :class:`SequenceFormGame`.

    Games in which players move at the same time are read as if the second moved without seeing what the first did.

    Raises:
        GameTooLargeError: if its tree has more than ``MAX_HISTORIES`` histories.
        ValueError: if the game is not one of two players, zero-sum, with perfect recall.
    """
    loaded = load_zero_sum(game)
    if not loaded.get_type().provides_information_state_string:
        raise ValueError(f"{game} does not name its information states, which the sequence form needs")
    reader = _Reader(str(game))
    reader.visit(loaded.new_initial_state(), (0, 0), 1.0)
    entries = np.array(list(reader.payoff), dtype=np.int64).reshape(-1, 2)
    return (reader.states[0], reader.states[1]), entries, np.array(list(reader.payoff.values())), str(game)


def read_markov_game(game: Any, gamma: float) -> tuple[MarkovGame, list[str]]:
    """Return a game in which both players move at the same time as a Markov game, and the names of its states.

    States are told apart by what OpenSpiel prints for them, without the time, so that a limit of moves does not count.
    An end of play is one more state, the last one.

    Args:
        game: a ``pyspiel.Game`` or its name.
        gamma: discount in ``[0, 1)``.

    Raises:
        ImportError: without OpenSpiel.
        ValueError: if the game is not one of two players, zero-sum, with simultaneous moves and the same actions in
            every state, or there is no such game.
    """
    pyspiel = _pyspiel()
    loaded = load_game(game)
    kind = loaded.get_type()
    fits = loaded.num_players() == 2 and kind.utility == pyspiel.GameType.Utility.ZERO_SUM
    if not fits or kind.dynamics != pyspiel.GameType.Dynamics.SIMULTANEOUS:
        raise ValueError(f"{kind.short_name} is no zero-sum game of two players who move at the same time")
    known: dict[str, Any] = {}
    actions: list[list[int]] = []

    def settled(state: Any, probability: float) -> Iterator[tuple[float, str | None, float]]:
        if state.is_chance_node():
            for action, chance in state.chance_outcomes():
                yield from settled(state.child(action), probability * chance)
            return
        label = None if state.is_terminal() else str(state)
        if label is not None and label not in known:
            known[label] = state
            here = [state.legal_actions(player) for player in range(2)]
            if (actions or here) != here:
                raise ValueError(f"{kind.short_name} has other actions than elsewhere in the state {label!r}")
            actions[:] = here
        yield probability, label, state.returns()[0]

    def outcomes(label: str, first: int, second: int) -> Iterator[tuple[float, str | None, float]]:
        state, earned = known[label].clone(), known[label].returns()[0]
        state.apply_actions([actions[0][first], actions[1][second]])
        return ((probability, after, total - earned) for probability, after, total in settled(state, 1.0))

    start: dict[str, float] = {}
    for probability, label, _ in settled(loaded.new_initial_state(), 1.0):
        if label is not None:
            start[label] = start.get(label, 0.0) + probability
    return explore(start, (len(actions[0]), len(actions[1])), outcomes, gamma)


def tabular_policy(game: Any, tables: Any) -> Any:
    """Return OpenSpiel's ``TabularPolicy`` with the probabilities of :meth:`SequenceFormGame.table`."""
    from open_spiel.python import policy as openspiel_policy

    found = openspiel_policy.TabularPolicy(load_game(game))
    for label, row in found.state_lookup.items():
        for table in tables:
            if label in table:
                legal = np.flatnonzero(found.legal_actions_mask[row])
                found.action_probability_array[row] = 0.0
                found.action_probability_array[row, legal] = table[label]
    return found


class _Reader:
    """The information states and payoffs met so far.

    Args:
        name: of the game, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: tuple[list[InformationState], list[InformationState]] = ([], [])
        self.payoff: dict[tuple[int, int], float] = {}
        self._first: tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]] = ({}, {})
        self._sequences = [1, 1]
        self._histories = 0

    def visit(self, state: Any, sequences: tuple[int, int], chance: float) -> None:
        """Add what lies below ``state``, to which ``sequences`` and ``chance`` lead."""
        self._histories += 1
        if self._histories > MAX_HISTORIES:
            raise GameTooLargeError(
                f"{self.name} has more than {MAX_HISTORIES:,} histories, too many for the sequence form"
            )
        if state.is_terminal():
            first, second = state.returns()
            if abs(first + second) > 1e-9 * max(1.0, abs(first)):
                raise ValueError(f"{self.name} is not zero-sum: it pays {first:g} and {second:g} after {state}")
            self.payoff[sequences] = self.payoff.get(sequences, 0.0) + chance * first
        elif state.is_chance_node():
            for action, probability in state.chance_outcomes():
                self.visit(state.child(action), sequences, chance * probability)
        else:
            player = state.current_player()
            actions = state.legal_actions()
            first = self._own(player, state, actions, sequences[player])
            for offset, action in enumerate(actions):
                taken = (first + offset, sequences[1]) if player == 0 else (sequences[0], first + offset)
                self.visit(state.child(action), taken, chance)

    def _own(self, player: int, state: Any, actions: list[int], parent: int) -> int:
        """Return the first sequence of the player's information state."""
        label = state.information_state_string(player)
        if label not in self._first[player]:
            self._first[player][label] = (self._sequences[player], len(self.states[player]))
            self.states[player].append(InformationState(label, tuple(actions), parent, tuple(state.history())))
            self._sequences[player] += len(actions)
        first, number = self._first[player][label]
        known = self.states[player][number]
        if known.parent != parent or known.actions != tuple(actions):
            raise ValueError(f"{self.name} has no perfect recall: player {player} gets to {label!r} in two ways")
        return first


def _pyspiel() -> Any:
    try:
        import pyspiel
    except ImportError as error:
        raise ImportError("this needs OpenSpiel: pip install 'maxent-onpolicy[games]'") from error
    return pyspiel
