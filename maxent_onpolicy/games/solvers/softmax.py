"""The softmax: responses and updates of matrix games, many at once.

Arrays have the batch last: ``[actions, games]``. So all games' entries of a kind lie side by side, and one product is a
few fused multiply-adds over long rows, ten times as fast as batched matrix products of tiny matrices.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.games.evaluation import Evaluation
from maxent_onpolicy.games.matrix import MatrixGame, measure
from maxent_onpolicy.games.solvers.core import DualState, Pair, Variant, advance, average, from_arrays, to_arrays
from maxent_onpolicy.games.solvers.step_size import magnetic_step
from maxent_onpolicy.validation import check_choice

_ROUNDS = 12
_UNROLLED = 4  # updates in one compiled call
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class SoftmaxResponse:
    """Responses in matrix games.

    Args:
        game: one game or a batch.
        dtype: name of the numbers' type.
        device: where to compute.
        compile: let ``torch.compile`` fuse a few updates, which takes some ten seconds once.
    """

    theorem = "Cen, Wei, Chi, arXiv:2105.15186, Theorem 1"

    def __init__(
        self, game: MatrixGame, dtype: str = "float64", device: str | torch.device = "cpu", compile: bool = False
    ) -> None:
        kind = DTYPES[check_choice("dtype", dtype, DTYPES)]
        self.batch_shape = game.batch_shape
        m, n = game.actions
        payoff = game.payoff.to(device=device, dtype=kind).reshape(-1, m, n)
        self.payoff = payoff.permute(1, 2, 0).contiguous()
        spread = self.payoff.amax((0, 1)) - self.payoff.amin((0, 1))
        self._compiled = torch.compile(self._unrolled, fullgraph=True) if compile else None
        self._probe = payoff.new_tensor(np.random.default_rng(0).normal(size=(m, 1)))
        self._norm = spread / 2  # of the payoffs shifted to where it is smallest, which moves no strategy

    def start(self) -> DualState:
        """Return the state in which both players choose uniformly and have seen nothing."""
        m, n, games = self.payoff.shape

        def zeros() -> tuple[Tensor, Tensor]:
            return self.payoff.new_zeros(m, games), self.payoff.new_zeros(n, games)

        return DualState(zeros(), zeros(), zeros())

    def respond(self, dual: Pair) -> Pair:
        """Return the softmax of both."""
        return torch.softmax(dual[0], 0), torch.softmax(dual[1], 0)

    def gradients(self, strategies: Pair) -> Pair:
        """Return what each action earns its player."""
        first, second = strategies
        return (self.payoff * second).sum(1), -(self.payoff * first.unsqueeze(1)).sum(0)

    def learn(self, strategies: Pair, eta: Any, tau: float) -> None:
        """Nothing: payoffs are known."""

    def advance(self, state: DualState, iterations: int, eta: Any, tau: float, variant: Variant) -> DualState:
        """Return the state after some updates, with logits shifted to a maximum of 0."""
        found, left = state, iterations
        if self._compiled is not None:
            parts: tuple[Tensor, ...] = (*state.dual, *state.gradient, *state.total)
            size = torch.as_tensor(eta, dtype=self.payoff.dtype, device=self.payoff.device)
            temperature = torch.as_tensor(tau, dtype=self.payoff.dtype, device=self.payoff.device)
            for _ in range(iterations // _UNROLLED):
                parts = self._compiled(parts, size, temperature, variant)
            found, left = _paired(parts), iterations % _UNROLLED
        found = advance(self, found, left, eta, tau, variant)
        found.dual = tuple(dual - dual.amax(0) for dual in found.dual)
        return found

    def _unrolled(self, parts: tuple[Tensor, ...], eta: Tensor, tau: Tensor, variant: Variant) -> tuple[Tensor, ...]:
        found = advance(self, _paired(parts), _UNROLLED, eta, tau, variant)
        return *found.dual, *found.gradient, *found.total

    def bound(self, tau: float) -> Tensor:
        """Return ``min(1/(2τ + 2‖A‖), 1/(4‖A‖))`` for each game; infinite payoffs' bounds do not occur."""
        norm = self._norm.clamp(min=1e-12)
        return torch.minimum(1 / (2 * tau + 2 * norm), 1 / (4 * norm))

    def magnetic_bound(self, tau: float) -> Tensor:
        """Return the largest step size of each game for which updates without optimism are proved to converge."""
        return magnetic_step(self._norm, tau)

    def strength(self, state: DualState) -> Tensor:
        """Return how strongly the players' responses depend on each other in each game; at most ``‖A‖``.

        It is the largest singular value of the payoffs between the responses' derivatives, by power iteration, where
        both play the average of what they have played: they come back to it if they go round the equilibrium, while
        what they play at a moment may be so sharp there that they seem not to depend on each other at all.
        """
        played = average(state) if bool(state.total[0].any()) else self.respond(state.dual)
        first, second = (strategy.sqrt() for strategy in played)
        # The derivative diag(p) − p·pᵀ of a softmax is K·Kᵀ with K = diag(√p)·(I − √p·√pᵀ).
        probe = self._probe.expand_as(first)
        length = torch.zeros_like(self._norm)
        for _ in range(_ROUNDS):
            probe = _without(probe, first)
            probe = probe / probe.norm(dim=0).clamp(min=1e-30)
            answer = _without(second * (self.payoff * (first * probe).unsqueeze(1)).sum(0), second)
            length = answer.norm(dim=0)
            probe = first * (self.payoff * (second * answer)).sum(1)
        return length

    def suggested_eta(self, state: DualState, tau: float) -> None:
        """``None``: the proved step size is good."""

    def accelerate(self, state: DualState, tau: float) -> None:
        """Not for this kind of game.

        Raises:
            ValueError: always.
        """
        raise ValueError("acceleration='newton' is for games in sequence form")

    def policy(self, dual: Pair) -> Pair:
        """Return strategies ``[..., actions]``."""
        return self._exported(self.respond(dual))

    def average_policy(self, state: DualState) -> Pair:
        """Return the average of the strategies played, ``[..., actions]``."""
        return self._exported(average(state))

    def evaluate(self, dual: Pair, tau: float) -> Evaluation:
        """Measure the responses to ``dual``."""
        return self._measure(self.respond(dual), tau)

    def evaluate_average(self, state: DualState, tau: float) -> Evaluation:
        """Measure the average of the strategies played."""
        return self._measure(average(state), tau)

    def to_arrays(self, state: DualState) -> dict[str, np.ndarray]:
        """Return what is needed to go on."""
        return to_arrays(state)

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> DualState:
        """Return the state that was saved."""
        return from_arrays(arrays, lambda array: torch.from_numpy(array).to(self.payoff))

    def _measure(self, strategies: Pair, tau: float) -> Evaluation:
        found = measure(*strategies, *self.gradients(strategies), tau, 0)
        if not self.batch_shape:
            return Evaluation(*map(float, found[:4]))
        return Evaluation(*(torch.as_tensor(number).reshape(self.batch_shape) for number in found[:4]))

    def _exported(self, strategies: Pair) -> Pair:
        first, second = (strategy.T.reshape(*self.batch_shape, strategy.shape[0]) for strategy in strategies)
        return first, second


def _without(vector: Tensor, unit: Tensor) -> Tensor:
    """Return what is left of vectors, in columns, without their parts along unit vectors."""
    return vector - unit * (unit * vector).sum(0)


def _paired(parts: tuple[Tensor, ...]) -> DualState:
    return DualState((parts[0], parts[1]), (parts[2], parts[3]), (parts[4], parts[5]))
