"""Step sizes that follow what the game shows."""

from typing import Any

from torch import Tensor

_GROWTH = 1.02
_PATIENCE = 1.5
_ROUNDING = 1e-13
_SMALLEST = 1e-3
_WEAKEST = 0.01  # of τ
_COLDEST = 1e-15  # the square of _WEAKEST times this is no zero in float32


def magnetic_step(strength: Any, tau: float) -> Any:
    """Return ``τ/(τ² + L²)``, the step size of updates without optimism between players that depend by ``L``.

    It is ``η/(1 + ητ)`` with ``η = τ/L²``, the largest step for which magnetic mirror descent is proved to converge in
    matrix games with ``L = ‖A‖`` (Sokota et al., arXiv:2206.05825, Theorem 3.4). With the largest singular value of the
    payoffs between the responses' derivatives for ``L``, which is never larger, it is what makes the linearised update
    contract most, at the rate ``L/√(τ² + L²)``; twice of it makes none.

    It is 0.9999/τ at most, where players hardly depend on each other.
    """
    tau = max(tau, _COLDEST)
    return tau / (tau**2 + _at_least(strength, _WEAKEST * tau) ** 2)


def proximal_step(step: Any, tau: float) -> Any:
    """Return the ``η`` with ``η/(1 + ητ) = step``: what magnetic mirror descent calls a step of the logits."""
    return step / (1.0 - step * tau)


def _at_least(strength: Any, least: float) -> Any:
    return strength.clamp(min=least) if isinstance(strength, Tensor) else max(strength, least)


class BackOff:
    """A factor on the step size: halved when the QRE gap grows by half, regained slowly.

    Attributes:
        factor: between 0.001 and 1.
    """

    def __init__(self) -> None:
        self.factor = 1.0
        self._last = float("inf")

    def see(self, qre_gap: float, scale: float) -> None:
        """Take note of the gap after some updates, in a game of that scale: what is far below it is rounding.

        At the equilibrium the gap is nothing but rounding, which grows and shrinks as it likes, while the action values
        of a Markov game still settle.
        """
        grows = not qre_gap <= max(_PATIENCE * self._last, _ROUNDING * scale)  # NaN grows
        self.factor = max(_SMALLEST, self.factor * 0.5) if grows else min(1.0, self.factor * _GROWTH)
        self._last = qre_gap

    def forget(self) -> None:
        """Compare the next gap with nothing: the equilibrium has moved."""
        self._last = float("inf")
