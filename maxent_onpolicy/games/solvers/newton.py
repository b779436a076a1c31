"""Newton steps toward the quantal response equilibrium of a game in sequence form.

At the equilibrium of temperature τ each player's logits are the other's payoffs, ``θ = g(x_other(θ_other))/τ``, up to
shifts that its response does not see. Linearised in both players' logits, with the responses' derivatives ``J`` and the
payoff matrices ``G``, that is ``(I − G₁J₂G₂J₁/τ²)·d₁ = r₁ + G₁J₂·r₂/τ``, one dense system of the size of the game. The
matrix is never singular: its spectrum is ``1 + λ/τ²`` with ``λ ≥ 0``, since the game is zero-sum. Turocy (2005, 2010)
follows the same equations in logits of normal and extensive form.
"""

from typing import Any, NamedTuple

import numpy as np

from maxent_onpolicy.games import treeplex
from maxent_onpolicy.games.sequence_form import SequenceFormGame
from maxent_onpolicy.games.treeplex import Vector

Vectors = tuple[Vector, Vector]
_SHORTEST = 1 / 64
_EASIER = 0.1  # of what the linear model promises must come true


class _Point(NamedTuple):
    """Logits as ``log b``, behaviours, plans, and how far the logits are from what the payoffs ask for."""

    dual: Vectors
    behaviour: Vectors
    plan: Vectors
    residual: Vectors
    size: float


class NewtonSteps:
    """Newton's method with a line search on the residual of the logits, weighted with how much they matter.

    Args:
        game: in sequence form; takes memory of the square of its sequences.
    """

    def __init__(self, game: SequenceFormGame) -> None:
        self.game = game
        self._payoffs = tuple(_sparse(game, player) for player in range(2))

    def solve(self, dual: Vectors, tau: float, tol: float = 1e-9, most: int = 12) -> tuple[Vectors, int]:
        """Return logits closer to the equilibrium, and how many steps it took.

        Args:
            dual: logits to start from.
            tau: temperature above 0.
            tol: stop at this residual of ``log b``.
            most: stop after so many steps.
        """
        here = self._look(dual, tau)
        for step in range(most):
            if here.size <= tol:
                return here.dual, step
            try:
                there = self._search(here, self._direction(here, tau), tau)
            except np.linalg.LinAlgError:  # singular to rounding
                there = None
            if there is None:
                return here.dual, step
            here = there
        return here.dual, most

    def _search(self, here: _Point, move: Vectors, tau: float) -> _Point | None:
        """Return a point along the step with a smaller residual, if there is one not too near."""
        length = 1.0
        while length >= _SHORTEST:
            (a, b), (c, d) = here.dual, move
            there = self._look((a + length * c, b + length * d), tau)
            if there.size <= (1.0 - _EASIER * length) * here.size:
                return there
            length /= 2
        return None

    def _look(self, dual: Vectors, tau: float) -> _Point:
        first, second = (vector.copy() for vector in dual)
        parts = []
        for tree, own in zip(self.game.trees, (first, second), strict=True):
            treeplex.recentre(tree, own)
            behaviour, plan, work = (np.empty_like(own) for _ in range(3))
            treeplex.respond(tree, own, behaviour, plan, work)
            parts.append((behaviour, plan))
        residuals, total = [], 0.0
        for player, (tree, own) in enumerate(zip(self.game.trees, (first, second), strict=True)):
            wanted = np.empty_like(own)
            treeplex.multiply(self.game.payoffs[player], parts[1 - player][1], wanted)
            wanted /= tau
            treeplex.recentre(tree, wanted)
            residuals.append(wanted - own)
            total += float(np.sum(tree.size * parts[player][1] * residuals[-1] ** 2))
        (b0, x0), (b1, x1) = parts
        return _Point((first, second), (b0, b1), (x0, x1), (residuals[0], residuals[1]), np.sqrt(total))

    def _direction(self, at: _Point, tau: float) -> Vectors:
        """Return the Newton step in both players' logits."""
        derivatives = []
        for player, tree in enumerate(self.game.trees):
            matrix = np.empty((tree.n_sequences, tree.n_sequences))
            every_logit = np.eye(tree.n_sequences)
            treeplex.respond_derivative(tree, at.behaviour[player], at.plan[player], every_logit, matrix)
            del every_logit  # as large as the systems below
            derivatives.append(matrix)
        first = self._payoffs[0] @ derivatives[1] / tau
        second = self._payoffs[1] @ derivatives[0] / tau
        system = np.eye(len(first)) - first @ second
        r0, r1 = at.residual
        move = np.linalg.solve(system, r0 + first @ r1)
        return move, r1 + second @ move


def _sparse(game: SequenceFormGame, player: int) -> Any:
    try:
        from scipy.sparse import csr_array
    except ImportError as error:
        raise ImportError("Newton steps need SciPy: pip install 'maxent-onpolicy[games]'") from error
    start, column, value = game.payoffs[player]
    return csr_array((value, column, start), shape=[game.trees[each].n_sequences for each in (player, 1 - player)])
