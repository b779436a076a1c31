"""The one update of all three kinds of games, on unnormalised logits.

Each player keeps dual variables ``θ`` and plays a *response* to them: a softmax (matrix games), one in each state
(Markov games) or a dilated softmax (sequence form). With the game's gradients ``g`` (what each action earns against
the other's current strategy), step size η and temperature τ,

- ``"omwu"``: play ``respond((1 − ητ)·θ + η·g_previous)``, see ``g`` there, ``θ ← (1 − ητ)·θ + η·g``;
- ``"extragradient"``: the same with ``g_previous`` replaced by the gradient at ``respond(θ)``, for twice the work;
- ``"mwu"``: play ``respond(θ)``.

In logits this is the update of Cen, Wei, Chi (arXiv:2105.15186): ``μ' ∝ μ^(1 − ητ)·exp(η·g)``, with a uniform start.
Nothing here knows whether arrays are numpy's or torch's.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np

Variant = Literal["omwu", "extragradient", "mwu"]
VARIANTS: tuple[Variant, ...] = ("omwu", "extragradient", "mwu")
Pair = tuple[Any, Any]


@dataclass
class DualState:
    """What a solver remembers.

    Attributes:
        dual: unnormalised logits of both players.
        gradient: what was seen at the strategies played last.
        total: sum of the strategies played, for their average.
    """

    dual: Pair
    gradient: Pair
    total: Pair


def average(state: DualState) -> Pair:
    """Return the average of the strategies played, where actions come first; not for realisation plans."""
    first, second = (total / total.sum(0) for total in state.total)
    return first, second


def to_arrays(state: DualState) -> dict[str, np.ndarray]:
    """Return the state as numpy arrays by name."""
    return {
        f"{field.name}_{player}": np.array(_on_cpu(getattr(state, field.name)[player]))
        for field in fields(state)
        for player in range(2)
    }


def from_arrays(arrays: dict[str, np.ndarray], convert: Callable[[np.ndarray], Any]) -> DualState:
    """Return the state that :func:`to_arrays` has made arrays of, each put through ``convert``."""
    pairs = [tuple(convert(arrays[f"{field.name}_{player}"]) for player in range(2)) for field in fields(DualState)]
    return DualState(*pairs)


class Response(Protocol):
    """How a kind of game turns dual variables into strategies, and strategies into gradients."""

    def respond(self, dual: Pair) -> Pair:
        """Return the strategies that maximise ``⟨dual, x⟩`` plus their entropy."""

    def gradients(self, strategies: Pair) -> Pair:
        """Return what each player's choices earn against the other's strategy."""

    def learn(self, strategies: Pair, eta: Any, tau: float) -> None:
        """Take in what was played, where payoffs depend on it: the values of Markov games."""


def advance(
    response: Response, state: DualState, iterations: int, eta: Any, tau: Any, variant: Variant = "omwu"
) -> DualState:
    """Return the state after some updates; the reference for every compiled version.

    Args:
        response: of the kind of game.
        state: the state before.
        iterations: how many updates.
        eta: step size, a number or one a game.
        tau: temperature.
        variant: which update.
    """
    keep = 1.0 - eta * tau
    dual, gradient, total = state.dual, state.gradient, state.total
    for _ in range(iterations):
        if variant == "mwu":
            played = response.respond(dual)
        else:
            if variant == "extragradient":
                gradient = response.gradients(response.respond(dual))
            played = response.respond(_step(dual, gradient, keep, eta))
        response.learn(played, eta, tau)
        gradient = response.gradients(played)
        dual = _step(dual, gradient, keep, eta)
        total = (total[0] + played[0], total[1] + played[1])
    return DualState(dual, gradient, total)


def midpoint(state: DualState, eta: Any, tau: Any) -> Pair:
    """Return the dual variables of the strategies played next, if ``state.gradient`` is what they look ahead with."""
    return _step(state.dual, state.gradient, 1.0 - eta * tau, eta)


def _step(dual: Pair, gradient: Pair, keep: Any, eta: Any) -> Pair:
    return keep * dual[0] + eta * gradient[0], keep * dual[1] + eta * gradient[1]


def _on_cpu(array: Any) -> Any:
    return array.cpu().numpy() if hasattr(array, "cpu") else array
