"""A softmax in each state: responses and updates of Markov games, whose payoffs are learned on the way.

In one loop, the policies take a step against the current action values ``Q``, and values ``V`` move slowly toward those
of the policies (Cen, Chi, Du, Xiao, arXiv:2210.01050, Algorithm 1; with a horizon Algorithm 2). Arrays have the states
last: ``[actions, ..., states]``.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.solvers.core import DualState, Pair, Variant, advance, average, from_arrays, to_arrays
from maxent_onpolicy.games.solvers.softmax import DTYPES
from maxent_onpolicy.validation import check_choice

_CAUTION = 0.5  # of the inverse spread of a state's action values


class StateResponse:
    """Responses in Markov games.

    Args:
        game: discounted or with a horizon.
        dtype: name of the numbers' type.
        device: where to compute.

    Attributes:
        q: ``[A, B, ..., S]`` learned action values.
        v: ``[..., S]`` learned values, or ``None`` before the first update.
    """

    theorem = "Cen, Chi, Du, Xiao, arXiv:2210.01050"

    def __init__(self, game: MarkovGame, dtype: str = "float64", device: str | torch.device = "cpu") -> None:
        kind = DTYPES[check_choice("dtype", dtype, DTYPES)]
        self.game = game
        self.reward = game.reward.movedim((-2, -1), (0, 1)).to(device=device, dtype=kind).contiguous()
        if game.horizon is not None and game.reward.ndim == 3:
            self.reward = self.reward.unsqueeze(2)
        self.transition = _states_last(game).to(device=device, dtype=kind)
        self.q = self.reward.new_zeros(*game.actions, *game.layout)
        self.v: Tensor | None = None

    def start(self) -> DualState:
        """Return the state in which both players choose uniformly and have seen nothing."""

        def zeros() -> tuple[Tensor, Tensor]:
            first, second = (self.reward.new_zeros(n, *self.game.layout) for n in self.game.actions)
            return first, second

        return DualState(zeros(), zeros(), zeros())

    def respond(self, dual: Pair) -> Pair:
        """Return the softmax in each state."""
        return torch.softmax(dual[0], 0), torch.softmax(dual[1], 0)

    def gradients(self, strategies: Pair) -> Pair:
        """Return what each action earns its player, by the current action values."""
        first, second = strategies
        return (self.q * second).sum(1), -(self.q * first.unsqueeze(1)).sum(0)

    def learn(self, strategies: Pair, eta: Any, tau: float) -> None:
        """Update ``Q`` from ``V``, and ``V`` with rate ``ητ`` toward the smoothed value of the strategies."""
        first, second = strategies
        if self.v is None:
            count = torch.tensor(self.game.actions, dtype=torch.float64).log()
            self.v = self.reward.new_full(self.game.layout, tau * float(count[0] - count[1]))
        self.q = self.reward + self.game.gamma * self._expected(self.v)
        value = (first * (self.q * second).sum(1)).sum(0)
        smoothed = value - tau * (torch.xlogy(first, first).sum(0) - torch.xlogy(second, second).sum(0))
        self.v = torch.lerp(self.v, smoothed, eta * tau)

    def advance(self, state: DualState, iterations: int, eta: Any, tau: float, variant: Variant) -> DualState:
        """Return the state after some updates, with logits shifted to a maximum of 0.

        Raises:
            ValueError: if ``tau`` is 0, with which the values would never move.
        """
        if tau == 0.0:
            raise ValueError("Markov games need tau > 0: the values follow the policies at the rate eta·tau; got tau=0")
        found = advance(self, state, iterations, eta, tau, variant)
        found.dual = tuple(dual - dual.amax(0) for dual in found.dual)
        return found

    def bound(self, tau: float) -> float:
        """Return the proved step size: ``(1 − γ)³/(32000·S)``, or ``1/(8·H)`` with a horizon (for rewards within 1)."""
        if self.game.horizon is not None:
            return 1.0 / (8.0 * self.game.horizon)
        return (1.0 - self.game.gamma) ** 3 / (32_000.0 * self.game.states)

    def suggested_eta(self, state: DualState, tau: float) -> float:
        """Return half the inverse of the largest spread of action values within a state."""
        return _CAUTION / max(2.0 * self.strength(state), 1e-12)

    def strength(self, state: DualState) -> float:
        """Return how strongly the players depend on each other: half the largest spread of a state's action values."""
        q = self.q if self.v is not None else self.reward.expand_as(self.q) / (1.0 - min(self.game.gamma, 0.9))
        return float((q.amax((0, 1)) - q.amin((0, 1))).max()) / 2

    def accelerate(self, state: DualState, tau: float) -> None:
        """Not for this kind of game.

        Raises:
            ValueError: always.
        """
        raise ValueError("acceleration='newton' is for games in sequence form")

    def action_values(self) -> Tensor:
        """Return ``q`` as ``[..., S, A, B]``."""
        return self.q.movedim((0, 1), (-2, -1))

    def policy(self, dual: Pair) -> Pair:
        """Return strategies ``[..., states, actions]``."""
        return _exported(self.respond(dual))

    def average_policy(self, state: DualState) -> Pair:
        """Return the average of the strategies played."""
        return _exported(average(state))

    def evaluate(self, dual: Pair, tau: float) -> Evaluation:
        """Measure the responses to ``dual`` by exact best responses."""
        q = self.action_values().to("cpu", self.game.reward.dtype)
        return self.game.evaluate(self.policy(dual), tau, q)

    def evaluate_average(self, state: DualState, tau: float) -> Evaluation:
        """Measure the average of the strategies played."""
        return self.game.evaluate(self.average_policy(state), tau)

    def to_arrays(self, state: DualState) -> dict[str, np.ndarray]:
        """Return what is needed to go on."""
        values = {} if self.v is None else {"q": self.q.cpu().numpy(), "v": self.v.cpu().numpy()}
        return to_arrays(state) | values

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> DualState:
        """Return the state that was saved."""

        def convert(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.reward)

        if "v" in arrays:
            self.q, self.v = convert(arrays["q"]), convert(arrays["v"])
        return from_arrays(arrays, convert)

    def _expected(self, values: Tensor) -> Tensor:
        """Return ``P·v`` as ``[A, B, ..., S]``."""
        shape = (*self.game.actions, self.game.states)
        if self.game.horizon is None:
            return (self.transition @ values).reshape(shape)
        after = torch.cat([values[1:], torch.zeros_like(values[:1])])
        if self.transition.ndim == 3:
            rows = torch.bmm(self.transition, after.unsqueeze(-1)).squeeze(-1)
            return rows.reshape(self.game.horizon, *shape).movedim(0, 2)
        return (self.transition @ after.T).reshape(*shape, self.game.horizon).movedim(-1, 2)


def _states_last(game: MarkovGame) -> Tensor:
    """Return the transition with rows in the order (actions, state) instead of (state, actions)."""
    shape = (game.states, *game.actions)
    order = torch.arange(game.states * game.actions[0] * game.actions[1]).reshape(shape).permute(1, 2, 0).reshape(-1)
    if game.transition.layout != torch.sparse_csr:
        return game.transition.index_select(-2, order)
    return torch.index_select(game.transition.to_sparse_coo(), 0, order).to_sparse_csr()


def _exported(strategies: Pair) -> Pair:
    first, second = (strategy.movedim(0, -1) for strategy in strategies)
    return first, second
