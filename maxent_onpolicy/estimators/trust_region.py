"""The parts of a trust-region step: KL divergences, Fisher-vector products, conjugate gradients, line search.

Schulman et al. 2015, "Trust Region Policy Optimization", arXiv:1502.05477, appendix C.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

KLReduction = Literal["mean", "sum"]
KL_REDUCTIONS: tuple[KLReduction, ...] = get_args(KLReduction)


def gaussian_kl(
    mean: Float[Tensor, "*shape"],
    std: Float[Tensor, "*shape"],
    old_mean: Float[Tensor, "*shape"],
    old_std: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """``KL(new ‖ old)`` of every dimension of diagonal Gaussians, in nats.

    ``½·(σ²/σ_old² + (μ − μ_old)²/σ_old² − 1 − log σ²/σ_old²)``. Invertible functions of the action, such as tanh,
    leave it as it is.
    """
    variance_ratio = (std / old_std).pow(2)
    shift = ((mean - old_mean) / old_std).pow(2)
    return 0.5 * (variance_ratio + shift - 1 - variance_ratio.log())


def categorical_kl(
    log_prob: Float[Tensor, "*shape n"], old_log_prob: Float[Tensor, "*shape n"]
) -> Float[Tensor, "*shape"]:
    """``KL(new ‖ old)`` in nats of categorical distributions, given the log-probabilities of their ``n`` choices."""
    probability = F.softmax(log_prob, dim=-1)
    change = log_prob - old_log_prob
    # 0·log 0 = 0, also for a choice whose log-probability is −∞ in both. Its change is left out before the product,
    # whose gradient would be NaN.
    return (probability * torch.where(probability > 0, change, torch.zeros_like(change))).sum(-1)


def uniform_kl(entropy: Float[Tensor, "*shape"], choices: float | Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``KL(new ‖ uniform)`` in nats, ``log n − H``, of a distribution of that entropy over ``n`` choices."""
    return torch.as_tensor(choices, dtype=entropy.dtype, device=entropy.device).log() - entropy


def bernoulli_kl(logit: Float[Tensor, "*shape"], old_logit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``KL(new ‖ old)`` in nats of every binary action, given the log-odds of a 1."""
    probability = torch.sigmoid(logit)
    ones = probability * (F.softplus(-old_logit) - F.softplus(-logit))
    zeros = (1 - probability) * (F.softplus(old_logit) - F.softplus(logit))
    return ones + zeros


def beta_kl(
    alpha: Float[Tensor, "*shape"],
    beta: Float[Tensor, "*shape"],
    old_alpha: Float[Tensor, "*shape"],
    old_beta: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """``KL(new ‖ old)`` in nats of every dimension of Beta distributions, given their concentrations.

    ``log B(α_old, β_old)/B(α, β) + (α − α_old)·ψ(α) + (β − β_old)·ψ(β) + (α_old − α + β_old − β)·ψ(α + β)``.
    """
    total, old_total = alpha + beta, old_alpha + old_beta
    log_ratio = (old_alpha.lgamma() + old_beta.lgamma() + total.lgamma()) - (
        alpha.lgamma() + beta.lgamma() + old_total.lgamma()
    )
    slopes = (alpha - old_alpha) * alpha.digamma() + (beta - old_beta) * beta.digamma()
    return log_ratio + slopes + (old_total - total) * total.digamma()


def mean_kl(kl: Float[Tensor, "N ..."], reduction: KLReduction) -> Float[Tensor, ""]:
    """Mean divergence of a rollout.

    Args:
        kl: ``[N]``, or ``[N, A]`` for independent dimensions of the action.
        reduction: ``"sum"`` adds up the dimensions, which is the divergence of the whole action; ``"mean"`` averages
            over them.
    """
    return kl.mean() if reduction == "mean" or kl.dim() == 1 else kl.flatten(1).sum(1).mean()


def flat_gradient(
    output: Float[Tensor, ""],
    parameters: Sequence[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Float[Tensor, " P"]:
    """Gradient of a scalar with respect to all elements of ``parameters``, one after the other.

    Args:
        output: a scalar.
        parameters: ``P`` elements together; the gradient of those that the output does not depend on is 0.
        create_graph: whether the gradient can be differentiated again.
        retain_graph: whether the output can; default: as ``create_graph``.
    """
    gradients = torch.autograd.grad(
        output, parameters, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
    )
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1) for g, p in pairs])


def hessian_vector_product(
    gradient: Float[Tensor, " P"], parameters: Sequence[Tensor], vector: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """``∂²f/∂θ² · v`` by differentiating ``⟨∂f/∂θ, v⟩``; the graph of the gradient is kept.

    Of a mean KL divergence, where both policies are the same, the Hessian is the Fisher information.

    Args:
        gradient: of ``f``, made with ``create_graph=True``.
        parameters: ``P`` elements together.
        vector: ``v``.
    """
    return flat_gradient((gradient * vector).sum(), parameters, retain_graph=True)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor] | Float[Tensor, "P P"],
    target: Float[Tensor, " P"],
    max_steps: int = 10,
    tolerance: float = 1e-10,
    start: Float[Tensor, " P"] | None = None,
) -> Float[Tensor, " P"]:
    """Solve ``A·x = b`` approximately, for a symmetric positive definite ``A``.

    Hestenes & Stiefel 1952, "Methods of conjugate gradients for solving linear systems".

    Args:
        product: ``v ↦ A·v``, or ``A`` itself.
        target: ``b``.
        max_steps: at most so many steps, each with one product; one more product is made before the first.
        tolerance: stop where the squared norm of the residual ``b − A·x`` is below this.
        start: first ``x``; default 0.

    Returns:
        ``x``.
    """
    apply = (lambda vector: product @ vector) if isinstance(product, Tensor) else product
    x = torch.zeros_like(target) if start is None else start.clone()
    residual = target - apply(x)
    square = torch.dot(residual, residual)
    direction = residual.clone()
    for step in range(max_steps):
        if square < tolerance:
            break
        image = apply(direction)
        length = square / torch.dot(direction, image)
        x += length * direction
        if step == max_steps - 1:
            break
        residual = residual - length * image
        last_square, square = square, torch.dot(residual, residual)
        direction = residual + square / last_square * direction
    return x


def step_length(curvature: float, max_kl: float) -> float:
    """Largest ``α`` for which the quadratic model of the KL divergence of a step ``α·s`` keeps to ``max_kl``.

    ``√(2·δ / sᵀHs)`` (arXiv:1502.05477, appendix C).

    Args:
        curvature: ``sᵀHs``.
        max_kl: ``δ``, in nats.

    Returns:
        0 where there is no such step: the curvature is not positive, or no number.
    """
    return math.sqrt(2 * max_kl / curvature) if 0 < curvature < float("inf") else 0.0


class LineSearch(NamedTuple):
    """What a line search ended with.

    Attributes:
        accepted: whether a step met both conditions.
        fraction: of the full step, of the one accepted; 0 if none was.
        objective: of that step, or of none.
        kl: of that step, or 0.
        tries: steps tried.
    """

    accepted: bool
    fraction: float
    objective: float
    kl: float
    tries: int


def backtracking_line_search(
    evaluate: Callable[[float], tuple[float, float]],
    objective: float,
    max_kl: float,
    shrink: float,
    max_tries: int,
) -> LineSearch:
    """Shorten a step until it improves the objective and keeps to the trust region.

    Args:
        evaluate: takes a fraction of the full step, and returns the objective and the KL divergence there. NaN in
            either refuses the step.
        objective: without a step; to be exceeded.
        max_kl: what the KL divergence must stay below.
        shrink: factor between one fraction and the next; the first is 1.
        max_tries: at most so many fractions.
    """
    fraction = 1.0
    for tries in range(1, max_tries + 1):
        new_objective, kl = evaluate(fraction)
        if kl < max_kl and new_objective > objective:
            return LineSearch(True, fraction, new_objective, kl, tries)
        fraction *= shrink
    return LineSearch(False, 0.0, objective, 0.0, max_tries)
