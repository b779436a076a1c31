"""Markov games from their rules."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

import torch

from maxent_onpolicy.games.markov import MarkovGame

State = TypeVar("State", bound=Hashable)
Outcome = tuple[float, State | None, float]


def explore(
    start: Mapping[State, float],
    actions: tuple[int, int],
    outcomes: Callable[[State, int, int], Iterable[Outcome[State]]],
    gamma: float,
) -> tuple[MarkovGame, list[State]]:
    """Return the game of all states that can be reached, with sparse transitions, and these states in its order.

    An end of play is one more state, the last one, which leads to itself and pays nothing.

    Args:
        start: probabilities of the first state.
        actions: of both players, in every state.
        outcomes: from a state and both players' actions the possible results: the probability, the next state (``None``
            at the end of play) and what the first player is paid.
        gamma: discount in ``[0, 1)``.

    Raises:
        ValueError: if probabilities do not sum to one, or ``gamma`` is out of range.
    """
    states = list(start)
    numbers = {state: number for number, state in enumerate(states)}
    cells: list[tuple[int, State | None, float]] = []
    rewards: list[float] = []
    for state in states:  # which grows on the way
        for first in range(actions[0]):
            for second in range(actions[1]):
                rewards.append(0.0)
                for probability, after, reward in outcomes(state, first, second):
                    if after is not None and after not in numbers:
                        numbers[after] = len(states)
                        states.append(after)
                    cells.append((len(rewards) - 1, after, probability))
                    rewards[-1] += probability * reward
    count = len(states)
    if any(after is None for _, after, _ in cells):
        pairs = actions[0] * actions[1]
        cells += [(len(rewards) + pair, None, 1.0) for pair in range(pairs)]
        rewards += [0.0] * pairs
        count += 1
    where = [[row for row, _, _ in cells], [count - 1 if after is None else numbers[after] for _, after, _ in cells]]
    probabilities = torch.tensor([probability for _, _, probability in cells], dtype=torch.float64)
    shape = (len(rewards), count)
    transition = torch.sparse_coo_tensor(torch.tensor(where), probabilities, shape, check_invariants=True).coalesce()
    first_state = torch.zeros(count, dtype=torch.float64)
    first_state[: len(start)] = torch.tensor(list(start.values()), dtype=torch.float64)
    reward_table = torch.tensor(rewards, dtype=torch.float64).reshape(count, *actions)
    return MarkovGame(transition, reward_table, gamma=gamma, start=first_state), states
