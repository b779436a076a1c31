"""Littman's soccer (1994, "Markov games as a framework for multi-agent reinforcement learning").

Two players move on four rows of five cells, at the same time, up, down, left, right or not at all; a fair coin says
whose move counts first. The ball belongs to who is in its cell. Who has it and walks into the other loses it to them.
Who has it and leaves the field in one of the middle rows, the first player to the right or the second to the left,
scores 1, and play ends. Nothing else happens at the border, or when a player without the ball walks into the other. At
the start the ball lies free, in one of two cells alike. These are the rules of OpenSpiel's ``markov_soccer``.
"""

from functools import cache
from typing import NamedTuple

from maxent_onpolicy.games.explore import Outcome, explore
from maxent_onpolicy.games.markov import MarkovGame

Cell = tuple[int, int]
MOVES: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "stand": (0, 0)}
_STEPS = tuple(MOVES.values())
_ROWS, _COLUMNS = 4, 5
_GOAL_ROWS = (1, 2)
_GOAL_COLUMN = (_COLUMNS, -1)  # where each player scores


class Position(NamedTuple):
    """Cells ``(row, column)`` of the first player, the second, and the ball."""

    first: Cell
    second: Cell
    ball: Cell

    def __str__(self) -> str:
        rows = [["."] * _COLUMNS for _ in range(_ROWS)]
        for (row, column), mark in zip((self.ball, self.first, self.second), "Oab", strict=True):
            rows[row][column] = mark.upper() if (row, column) == self.ball else mark
        return "\n".join("".join(row) for row in rows)


_START = {Position((2, 1), (1, 3), (row, 2)): 0.5 for row in _GOAL_ROWS}


def soccer(gamma: float = 0.9) -> MarkovGame:
    """Return Littman's soccer on a field of 4 × 5 cells; its value is 0, and ±0.2185 once the ball's cell is known.

    Args:
        gamma: discount in ``[0, 1)``.

    Raises:
        ValueError: if ``gamma`` is out of range.
    """
    return explore(_START, (len(MOVES), len(MOVES)), _outcomes, gamma)[0]


@cache
def soccer_positions() -> tuple[Position, ...]:
    """Return what the game's states mean, but for the last one, the end of play; actions are in the order of MOVES."""
    return tuple(explore(_START, (len(MOVES), len(MOVES)), _outcomes, 0.0)[1])


def _outcomes(position: Position, first: int, second: int) -> list[Outcome[Position]]:
    """Return what both orders of the two moves lead to."""
    found: list[Outcome[Position]] = []
    for order in (((0, first), (1, second)), ((1, second), (0, first))):
        after: Position | None = position
        reward = 0.0
        for player, move in order:
            if after is not None:
                after = _moved(after, player, _STEPS[move])
                reward = 0.0 if after is not None else (1.0, -1.0)[player]
        found.append((0.5, after, reward))
    return found


def _moved(position: Position, player: int, step: Cell) -> Position | None:
    """Return the position after one player's move, or ``None`` if it has scored."""
    own, other = position[player], position[1 - player]
    has_ball = position.ball == own
    row, column = own[0] + step[0], own[1] + step[1]
    if not (0 <= row < _ROWS and 0 <= column < _COLUMNS):
        scores = has_ball and row in _GOAL_ROWS and column == _GOAL_COLUMN[player]
        return None if scores else position
    if (row, column) == other:
        return position._replace(ball=other) if has_ball else position
    ball = (row, column) if has_ball else position.ball
    return Position((row, column), other, ball) if player == 0 else Position(other, (row, column), ball)
