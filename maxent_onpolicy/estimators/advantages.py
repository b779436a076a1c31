"""Generalised advantage estimation, time-major."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class AdvantageEstimate(NamedTuple):
    """An advantage and the critic's regression target that belongs to it, both ``[T, B]``."""

    advantage: Tensor
    target: Tensor


def gae(
    reward: Float[Tensor, "T B"],
    value: Float[Tensor, "T B"],
    next_value: Float[Tensor, "T B"],
    terminated: Bool[Tensor, "T B"],
    done: Bool[Tensor, "T B"],
    gamma: float,
    gae_lambda: float,
    parallel: bool = False,
) -> AdvantageEstimate:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    ``δ_t = r_t + γ·V(s_{t+1})·(1 − terminated_t) − V(s_t)`` and
    ``A_t = δ_t + γ·λ·(1 − done_t)·A_{t+1}``.
    A truncated step therefore bootstraps from the value of its own final
    observation but takes nothing from the episode that follows it.

    Args:
        reward: ``[T, B]``; never edited for time limits.
        value: ``[T, B]`` critic at ``s_t``.
        next_value: ``[T, B]`` critic at the state that followed ``s_t`` in the same episode (the true final
            observation where the episode ended).
        terminated: ``[T, B]``; the next state's value is zero.
        done: ``[T, B]``; terminated or truncated.
        gamma: discount factor in ``[0, 1]``.
        gae_lambda: trace decay in ``[0, 1]``; 1 is Monte Carlo, 0 the one-step TD error.
        parallel: solve the recursion in ``log₂ T`` passes over all steps, in double precision, instead of step by step;
            equal to rounding, faster for long rollouts of few environments and on GPUs.

    Returns:
        The advantage, and ``advantage + value`` as the critic's TD(λ) target.

    Raises:
        ValueError: if the shapes differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in locals().items() if isinstance(tensor, Tensor)}
    if len(set(shapes.values())) != 1 or reward.dim() < 1:
        raise ValueError(f"gae() needs time-major tensors of one shape [T, B], got {shapes}")
    alive = 1.0 - terminated.to(reward.dtype)
    same_episode = 1.0 - done.to(reward.dtype)
    # The order of operations is SB3's: float32 results agree to the last bit.
    delta = reward + gamma * next_value * alive - value
    decay = (gamma * gae_lambda) * same_episode
    if parallel:
        advantage = _scan(delta.double(), decay.double()).to(delta.dtype)
        return AdvantageEstimate(advantage, advantage + value)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for step in range(delta.shape[0] - 1, -1, -1):
        running = delta[step] + decay[step] * running
        advantage[step] = running
    return AdvantageEstimate(advantage, advantage + value)


def _scan(delta: Tensor, decay: Tensor) -> Tensor:
    """Solve ``A_t = δ_t + c_t·A_{t+1}`` by recursive doubling.

    After ``k`` passes every ``A_t`` holds the next ``2^k`` terms of its sum (Hillis & Steele 1986, "Data parallel
    algorithms").
    """
    span = 1
    while span < delta.shape[0]:
        delta = torch.cat([torch.addcmul(delta[:-span], decay[:-span], delta[span:]), delta[-span:]])
        decay = torch.cat([decay[:-span] * decay[span:], torch.zeros_like(decay[-span:])])
        span *= 2
    return delta


def successor_values(
    value: Float[Tensor, "T B"],
    last_value: Float[Tensor, " B"],
    final_value: Float[Tensor, " K"],
    final_step: Tensor,
    final_index: Tensor,
) -> Float[Tensor, "T B"]:
    """Value of the state that followed each step in its own episode.

    Args:
        value: ``[T, B]`` critic at every step's observation.
        last_value: ``[B]`` critic at the observation after the last step.
        final_value: ``[K]`` critic at the true final observations of truncated episodes.
        final_step: ``[K]`` int64 steps at which those episodes were cut off.
        final_index: ``[K]`` int64 environments in which they were.

    Returns:
        ``[T, B]``. At terminated steps the entry belongs to the next episode; :func:`gae` masks it.
    """
    next_value = torch.cat([value[1:], last_value.unsqueeze(0)])
    next_value[final_step, final_index] = final_value
    return next_value
