"""TRPO's step as every tier makes it, given the products and evaluations that it asks for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from maxent_onpolicy.estimators.trust_region import (
    LineSearch,
    backtracking_line_search,
    conjugate_gradient,
    step_length,
)

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.trpo import TRPO

# The solver starts at noise of this size, as sb3-contrib's does: at a gradient near 0 it would divide 0 by 0.
START_NOISE = 1e-4


class Step(NamedTuple):
    """A step ``length·direction`` that uses up the trust region; there is none where the length is 0.

    Attributes:
        direction: ``[P]``.
        length: positive, or 0.
    """

    direction: Tensor
    length: float


def natural_step(
    algorithm: "TRPO", fisher_product: Callable[[Tensor], Tensor], gradient: Tensor, noise: Tensor
) -> Step:
    """Solve for the natural gradient, and scale it to the trust region.

    Args:
        algorithm: its settings.
        fisher_product: ``v ↦ F·v`` for the Fisher information averaged over the rollout; damping is added here.
        gradient: of the surrogate objective, ``[P]``.
        noise: standard normal, ``[P]``.
    """

    def product(vector: Tensor) -> Tensor:
        return fisher_product(vector) + algorithm.cg_damping * vector

    direction = conjugate_gradient(product, gradient, algorithm.cg_max_steps, start=START_NOISE * noise)
    curvature = float(torch.dot(direction, product(direction)))
    return Step(direction, step_length(curvature, algorithm.target_kl))


def search(
    algorithm: "TRPO",
    step: Step,
    objective: float,
    evaluate: Callable[[float], tuple[float, float]],
    go_back: Callable[[], None],
) -> LineSearch:
    """Shorten the step until it may be made; else leave the parameters as they were.

    Args:
        algorithm: its settings.
        step: the longest.
        objective: the surrogate without a step.
        evaluate: brings the parameters to a fraction of the step; returns the surrogate and the KL divergence there.
        go_back: restores the parameters bit for bit.
    """
    found = LineSearch(False, 0.0, objective, 0.0, 0)
    if step.length == 0:
        return found
    try:
        found = backtracking_line_search(
            evaluate,
            objective,
            algorithm.target_kl,
            algorithm.line_search_shrinking_factor,
            algorithm.line_search_max_iter,
        )
    finally:
        if not found.accepted:
            go_back()
    return found
