"""The controllers' rules as functions of numbers."""

import math
from collections.abc import Sequence

Bounds = tuple[float, float]


def adaptive_clip_range(
    base: float, entropy_share: float, plateau: float, entropy_weight: float, reward_weight: float, squash: bool = True
) -> float:
    """PPO-BR's clip range ``ε₀·[1 + λ₁·tanh φ − λ₂·tanh ψ]`` (Rahman 2025, arXiv:2505.17714).

    Args:
        base: ε₀.
        entropy_share: φ in [0, 1]; see :func:`entropy_share`.
        plateau: ψ in [0, 1]; see :func:`reward_plateau`.
        entropy_weight: λ₁.
        reward_weight: λ₂.
        squash: whether φ and ψ go through tanh; else they count as they are.
    """
    if squash:
        entropy_share, plateau = math.tanh(entropy_share), math.tanh(plateau)
    return base * (1 + entropy_weight * entropy_share - reward_weight * plateau)


def entropy_share(entropy: float, max_entropy: float) -> float:
    """φ = H/H_max, kept in [0, 1]: a negative differential entropy counts as none."""
    return min(max(entropy / max_entropy, 0.0), 1.0)


def reward_plateau(old_return: float, new_return: float) -> float:
    """``ψ = 1 − |ΔR|/max(|R|, |R_old|)``, kept in [0, 1]: 1 where returns stand still, 0 where they have doubled.

    The source does not define ψ; it says that a plateau of the return shall narrow the clip range. This is our choice.
    """
    scale = max(abs(old_return), abs(new_return))
    return 1.0 if scale == 0 else max(1.0 - abs(new_return - old_return) / scale, 0.0)


def kl_adaptive_rate(rate: float, kl: float, target: float, margin: float, factor: float, bounds: Bounds) -> float:
    """Learning rate divided by ``factor`` where ``kl > margin·target``, multiplied where ``0 < kl < target/margin``.

    The rule of rsl_rl, RL-Games and SBX.

    Args:
        rate: the learning rate in force.
        kl: nats that the policy has moved.
        target: nats that it should move.
        margin: how far from the target is too far.
        factor: of one step.
        bounds: lowest and highest rate.
    """
    if kl > margin * target:
        return max(rate / factor, bounds[0])
    if 0 < kl < target / margin:
        return min(rate * factor, bounds[1])
    return rate


def log_space_step(log_coef: float, entropy: float, target: float, rate: float, bounds: Bounds) -> float:
    """One step of dual ascent on the logarithm of a coefficient: ``log α + η·(H_target − H)``, within the bounds of α.

    The gradient of SAC's temperature loss with respect to log α (Haarnoja et al. 2018, arXiv:1812.05905, eq. 18, in the
    usual form without the factor α).
    """
    moved = log_coef + rate * (target - entropy)
    return min(max(moved, math.log(bounds[0])), math.log(bounds[1]))


def additive_step(coef: float, entropy: float, target: float, delta: float, bounds: Bounds) -> float:
    """``coef + δ`` while the entropy is below its target, else ``coef − δ``, within bounds.

    Skywork-OR1's adaptive entropy control (He et al. 2025, arXiv:2505.22312).
    """
    moved = coef + delta if entropy < target else coef - delta
    return min(max(moved, bounds[0]), bounds[1])


def schedule_value(
    kind: str, initial: float, final: float, progress_remaining: float, end_fraction: float = 1.0
) -> float:
    """Value of a schedule that starts at ``initial`` and ends at ``final``.

    Args:
        kind: ``"constant"``, ``"linear"``, ``"cosine"`` (half a period) or ``"exponential"`` (the same factor in equal
            times; both ends positive).
        initial: at the beginning.
        final: at the end.
        progress_remaining: 1 at the beginning, 0 at the end, as SB3 counts.
        end_fraction: share of the training at which ``final`` is reached.
    """
    remaining = 1 - min(max(1 - progress_remaining, 0.0) / end_fraction, 1.0)
    if kind == "constant":
        return initial
    if kind == "exponential":
        return initial * (final / initial) ** (1 - remaining)
    if kind == "cosine":
        remaining = 0.5 * (1 + math.cos(math.pi * (1 - remaining)))
    return final + (initial - final) * remaining


def candidates(start: float, stop: float, step: float) -> Sequence[float]:
    """Return ``start``, ``start + step``, ... up to ``stop``, which is the last one whatever the step."""
    count = max(math.ceil((stop - start) / step - 1e-9), 0)
    return (*(start + index * step for index in range(count)), stop)
