"""Entropy rewards, the entropy advantage and the temperature.

The maximum-entropy objective is ``J(π) = E[V(s_0) + τ·V_H(s_0)]`` with
``V_H(s) = E[Σ_t γ_H^t·(−log π(a_t|s_t))]`` (Choe & Kim, arXiv:2407.18143).
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maxent_onpolicy.estimators.advantages import AdvantageEstimate, gae
from maxent_onpolicy.estimators.losses import normalize_advantage

EntropyReward = Literal["sampled", "exact"]
AdvantageNormalization = Literal["combined", "separate"]


def sampled_entropy_reward(log_prob: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Entropy reward of a step: ``−log π(a_t|s_t)`` in nats, summed over action dimensions by the caller."""
    return -log_prob


def center(reward: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Subtract the batch mean, so that the entropy reward pays nothing for merely staying alive.

    In episodic tasks a positive (negative) mean entropy reward lengthens
    (shortens) episodes (arXiv:2201.12434); a constant shift leaves the order of
    actions in non-terminating tasks unchanged.
    """
    return reward - reward.mean()


def entropy_advantage(
    entropy_reward: Float[Tensor, "T B"],
    entropy_value: Float[Tensor, "T B"],
    next_entropy_value: Float[Tensor, "T B"],
    terminated: Bool[Tensor, "T B"],
    done: Bool[Tensor, "T B"],
    entropy_gamma: float,
    entropy_gae_lambda: float,
    parallel: bool = False,
) -> AdvantageEstimate:
    """Advantage of the discounted future entropy (arXiv:2407.18143).

    ``δ_t = h_t + γ_H·V_H(s_{t+1})·(1 − terminated_t) − V_H(s_t)`` and
    ``A_H,t = δ_t + γ_H·λ_H·(1 − done_t)·A_H,t+1``: :func:`gae` with the
    entropy's own reward, critic, discount and trace. A λ_H of 0 means 0.

    Args:
        entropy_reward: ``[T, B]`` nats; sampled, exact or centred.
        entropy_value: ``[T, B]`` entropy critic at ``s_t``.
        next_entropy_value: ``[T, B]`` entropy critic at the successor (the true final observation at truncation).
        terminated: ``[T, B]``.
        done: ``[T, B]``.
        entropy_gamma: γ_H in ``[0, 1]``.
        entropy_gae_lambda: λ_H in ``[0, 1]``.
        parallel: as in :func:`gae`.

    Returns:
        ``A_H`` and the entropy critic's target ``A_H + V_H``.
    """
    return gae(
        entropy_reward, entropy_value, next_entropy_value, terminated, done, entropy_gamma, entropy_gae_lambda, parallel
    )


def soft_advantage(
    advantage: Float[Tensor, "*shape"], entropy_advantage: Float[Tensor, "*shape"], tau: float
) -> Float[Tensor, "*shape"]:
    """``A + τ·A_H``, the direction in which the policy moves (arXiv:2407.18143)."""
    return advantage + tau * entropy_advantage


def normalized_soft_advantage(
    advantage: Float[Tensor, " N"],
    entropy_advantage: Float[Tensor, " N"],
    tau: float,
    normalization: AdvantageNormalization = "combined",
) -> Float[Tensor, " N"]:
    """Soft advantage with zero mean and unit scale.

    Args:
        advantage: ``[N]`` of the task.
        entropy_advantage: ``[N]``.
        tau: temperature.
        normalization: ``"combined"`` normalises ``A + τ·A_H`` by its own mean and standard deviation, so τ keeps its
            meaning in units of reward per nat. ``"separate"`` normalises both first and adds them with weight τ, so τ
            is a ratio that does not depend on the reward's scale.
    """
    if normalization == "combined":
        return normalize_advantage(soft_advantage(advantage, entropy_advantage, tau))
    return soft_advantage(normalize_advantage(advantage), normalize_advantage(entropy_advantage), tau)


def augmented_reward(
    reward: Float[Tensor, "T B"], entropy_reward: Float[Tensor, "T B"], tau: float
) -> Float[Tensor, "T B"]:
    """``r + τ·h``: the single-critic ablation, in which entropy shares the task's γ and λ."""
    return reward + tau * entropy_reward


def advantage_share(
    advantage: Float[Tensor, "*shape"], entropy_advantage: Float[Tensor, "*shape"], tau: float
) -> Float[Tensor, ""]:
    """Fraction of the soft advantage's magnitude that comes from entropy, in ``[0, 1]``.

    ``mean|τ·A_H| / (mean|A| + mean|τ·A_H|)``; 0 where both vanish.
    """
    task = advantage.abs().mean()
    entropy = abs(tau) * entropy_advantage.abs().mean()
    total = task + entropy
    return torch.where(total > 0, entropy / torch.where(total > 0, total, torch.ones_like(total)), total)


class TemperatureLoss(NamedTuple):
    """A scalar loss for ``log τ`` and the mean entropy gap (nats) that drives it."""

    loss: Tensor
    gap: Tensor


def temperature_loss(
    log_tau: Float[Tensor, ""], entropy: Float[Tensor, "*shape"], target_entropy: float
) -> TemperatureLoss:
    """Dual loss whose descent raises τ while the policy's entropy is below its target.

    ``L(τ) = τ·(H(π) − H̄)`` with the entropy held constant (Haarnoja et al. 2018, arXiv:1812.05905, eq. 18).

    Args:
        log_tau: scalar parameter; its exponential is τ.
        entropy: entropies (or ``−log π`` samples) in nats, any shape.
        target_entropy: H̄ in nats.
    """
    gap = (entropy.detach() - target_entropy).mean()
    return TemperatureLoss(log_tau.exp() * gap, gap)
