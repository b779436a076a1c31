"""Matrix games: one simultaneous move, paid at once."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.games.evaluation import Evaluation, digest, not_negative
from maxent_onpolicy.validation import check_range

Strategies = tuple[Tensor, Tensor]


class MatrixGame:
    """``max_μ min_ν μᵀAν``, for one matrix or many at once.

    Args:
        payoff: ``[..., m, n]`` what the second player pays the first; leading dimensions are a batch of games.
        second_payoff: what the second player gets, if it is to be checked that this is the negative.

    Raises:
        ValueError: if there are fewer than two dimensions, an entry is not finite, or the game is not zero-sum.
    """

    def __init__(self, payoff: Any, second_payoff: Any = None) -> None:
        self.payoff: Float[Tensor, "*batch m n"] = as_floats(payoff)
        if self.payoff.ndim < 2 or 0 in self.payoff.shape:
            raise ValueError(f"`payoff` must have a shape [..., m, n], got {tuple(self.payoff.shape)}")
        if not bool(torch.isfinite(self.payoff).all()):
            raise ValueError(f"`payoff` must be finite, got {self.payoff[~torch.isfinite(self.payoff)][0].item()}")
        if second_payoff is not None:
            _check_zero_sum(self.payoff, as_floats(second_payoff))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading dimensions; empty for one game."""
        return tuple(self.payoff.shape[:-2])

    @property
    def actions(self) -> tuple[int, int]:
        """How many actions the players have."""
        return self.payoff.shape[-2], self.payoff.shape[-1]

    def uniform(self) -> Strategies:
        """Return the strategies that choose among all actions alike."""
        first, second = (self.payoff.new_full((*self.batch_shape, n), 1.0 / n) for n in self.actions)
        return first, second

    def evaluate(self, strategies: tuple[Any, Any], tau: float = 0.0) -> Evaluation:
        """Measure a pair of strategies.

        Args:
            strategies: ``[..., m]`` and ``[..., n]``.
            tau: temperature of the equilibrium that ``qre_gap`` is measured to.

        Raises:
            ValueError: if ``tau`` is negative, or a shape does not fit.
        """
        check_range("tau", tau, 0.0)
        like = self.payoff
        first, second = (torch.as_tensor(each, dtype=like.dtype, device=like.device) for each in strategies)
        for player, (strategy, count) in enumerate(zip((first, second), self.actions, strict=True)):
            if strategy.shape[-1:] != (count,):
                raise ValueError(
                    f"the strategy of player {player} must have {count} entries, got a shape {tuple(strategy.shape)}"
                )
        earned = (like @ second.unsqueeze(-1)).squeeze(-1)
        paid = (first.unsqueeze(-2) @ like).squeeze(-2)
        return measure(first, second, earned, -paid, tau, -1)

    def choices(self, strategy: Tensor, player: int, observation: None) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of the player's actions, ``[..., actions]``, and their names.

        Raises:
            ValueError: if there is an observation; there is nothing to see.
        """
        if observation is not None:
            raise ValueError(f"a matrix game has no observation, got {observation!r}")
        return strategy.cpu().numpy(), np.arange(self.actions[player])

    @property
    def fingerprint(self) -> str:
        """What tells this game from others, in a line."""
        return f"{self!r} {digest(self.payoff.cpu().numpy())}"

    def __repr__(self) -> str:
        m, n = self.actions
        batch = f"{'×'.join(map(str, self.batch_shape))} games of " if self.batch_shape else ""
        return f"MatrixGame({batch}{m} × {n})"


def as_floats(numbers: Any) -> Tensor:
    """Return numbers as a tensor: of their own type if they have one of floating point, else of float64.

    PyTorch would make float32 of lists of Python's numbers, and 0.1 a payoff that no solver can tell from 0.100000001.
    """
    tensor = torch.as_tensor(numbers if isinstance(numbers, Tensor) else np.asarray(numbers))
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def measure(
    first: Tensor, second: Tensor, first_gradient: Tensor, second_gradient: Tensor, tau: float, dim: int
) -> Evaluation:
    """Measure strategies whose actions lie along ``dim``, from what each action earns its own player.

    The QRE gap is computed as ``τ·Σ KL(strategy‖response)``, the same without cancellation.
    """
    value = (first * first_gradient).sum(dim)
    nash_conv = not_negative(first_gradient.amax(dim) + second_gradient.amax(dim))
    gap = nash_conv
    if tau > 0.0:
        divergences = [
            (torch.xlogy(own, own) - own * torch.log_softmax(gradient / tau, dim)).sum(dim)
            for own, gradient in ((first, first_gradient), (second, second_gradient))
        ]
        gap = not_negative(tau * (divergences[0] + divergences[1]))
    found = (gap, nash_conv, nash_conv / 2, value)
    return Evaluation(*(number if number.ndim else number.item() for number in found))


def _check_zero_sum(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(f"`second_payoff` must have the shape {tuple(first.shape)}, got {tuple(second.shape)}")
    total = (first + second.to(first)).abs()
    if bool((total > 1e-6 * first.abs().max().clamp(min=1.0)).any()):
        where = np.unravel_index(int(total.argmax()), total.shape)
        raise ValueError(
            f"the game is not zero-sum: payoffs at {tuple(map(int, where))} are {first[where].item():g} "
            f"and {second[where].item():g}"
        )
