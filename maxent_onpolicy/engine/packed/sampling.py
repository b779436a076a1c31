"""Sampling actions from packed parameters, with the very random numbers that torch's distributions would draw.

Each step's noise is drawn from torch's global generator in the order and shape of
stable_baselines3's own sampling, so a seed gives the same actions (to rounding)
whichever tier runs. It is drawn for the whole rollout before its first step.
"""

from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim

from maxent_onpolicy.engine.buffer import NoiseRows
from maxent_onpolicy.engine.packed.squashed import EPSILON
from maxent_onpolicy.policies.distributions import GaussianDistribution, TanhGaussianDistribution

ALL = slice(None)


class Sampler(Protocol):
    """Draws the actions of one rollout."""

    def sample(self, parameters: np.ndarray, step: int, out: np.ndarray) -> None:
        """Write actions ``[B, A]`` (``[B]`` for single discrete actions) for parameters ``[O, B]``."""
        ...


def make_sampler(policy: ActorCriticPolicy, n_steps: int, n_envs: int, noise_rows: NoiseRows | None = None) -> Sampler:
    """Draw the noise of ``n_steps`` steps in ``n_envs`` environments, which may be rows of more of them."""
    space, rows = policy.action_space, noise_rows or NoiseRows(0, n_envs)
    own = slice(rows.first, rows.first + n_envs)
    if isinstance(space, spaces.Discrete):
        return CategoricalSampler([int(space.n)], n_steps, rows.total, own)
    if isinstance(space, spaces.MultiDiscrete):
        return CategoricalSampler([int(n) for n in space.nvec], n_steps, rows.total, own)
    if isinstance(space, spaces.MultiBinary):
        return BernoulliSampler(rows.total, own)
    squashed = isinstance(policy.action_dist, TanhGaussianDistribution)
    return (TanhGaussianSampler if squashed else GaussianSampler)(policy, n_steps, rows.total, own)


def standard_normal(n_steps: int, n_envs: int, action_dim: int) -> torch.Tensor:
    """Return the noise ``[T, B, A]`` that torch's ``Normal`` would draw in ``T`` steps of ``[B, A]``.

    torch fills 16 or more contiguous numbers in blocks of 16, fewer or scattered ones one by one, and both ways use up
    its generator differently. Where blocks meet the ends of steps, or no step has any, one call draws them all.
    """
    size = n_envs * action_dim
    if size < 16:
        return torch.empty(n_steps, n_envs, action_dim, 2)[..., 0].normal_().contiguous()
    noise = torch.empty(n_steps, n_envs, action_dim)
    if size % 16 == 0:
        return noise.normal_()
    for step in noise:
        step.normal_()
    return noise


class GaussianSampler:
    """``mean + std·noise``.

    Args:
        policy: with a Gaussian action distribution; its free log standard deviation is read now.
        n_steps: ``T``.
        n_envs: ``B``.
        own: which of them are sampled; default all.
    """

    def __init__(self, policy: ActorCriticPolicy, n_steps: int, n_envs: int, own: slice = ALL) -> None:
        self._action_dim = get_action_dim(policy.action_space)
        self._noise = standard_normal(n_steps, n_envs, self._action_dim).numpy()[:, own]
        kind = policy.action_dist
        self._bound = kind.bound if isinstance(kind, GaussianDistribution) else None
        raw = getattr(policy, "log_std", None)
        self._std = None if raw is None else self._std_of(raw.detach()).numpy()

    def _std_of(self, raw: torch.Tensor) -> torch.Tensor:
        return (raw if self._bound is None else self._bound(raw)).exp()

    def sample(self, parameters: np.ndarray, step: int, out: np.ndarray) -> None:
        """See :class:`Sampler`."""
        std = self._std
        if std is None:
            std = self._std_of(torch.from_numpy(parameters[self._action_dim :])).numpy().T
        np.multiply(self._noise[step], std, out=out)
        np.add(out, parameters[: self._action_dim].T, out=out)


class TanhGaussianSampler(GaussianSampler):
    """``tanh(mean + std·noise)``, kept one float32 step away from ±1."""

    def sample(self, parameters: np.ndarray, step: int, out: np.ndarray) -> None:
        """See :class:`Sampler`."""
        super().sample(parameters, step, out)
        np.tanh(out, out=out)
        limit = np.float32(1.0 - EPSILON)
        np.minimum(np.maximum(out, -limit, out=out), limit, out=out)


class CategoricalSampler:
    """The choice with the largest ``p/q``, ``q`` exponential noise: how torch draws single samples.

    Args:
        choices: ``n`` of each dimension.
        n_steps: ``T``.
        n_envs: ``B``.
        own: which of them are sampled; default all.
    """

    def __init__(self, choices: list[int], n_steps: int, n_envs: int, own: slice = ALL) -> None:
        # torch draws exponential numbers one by one: all at once are the same as step by step.
        noise = torch.empty(n_steps, n_envs * sum(choices)).exponential_().numpy()
        parts = np.split(noise, np.cumsum([n_envs * n for n in choices])[:-1], axis=1)
        self._noise = [
            np.ascontiguousarray(part.reshape(n_steps, n_envs, n)[:, own].swapaxes(1, 2))
            for part, n in zip(parts, choices, strict=True)
        ]
        self._ends = np.cumsum(choices)[:-1]

    def sample(self, parameters: np.ndarray, step: int, out: np.ndarray) -> None:
        """See :class:`Sampler`."""
        for index, (logits, noise) in enumerate(zip(np.split(parameters, self._ends), self._noise, strict=True)):
            probability = np.exp(logits - np.maximum.reduce(logits, axis=0))
            choice = (probability / noise[step]).argmax(axis=0)
            if out.ndim == 1:
                out[...] = choice
            else:
                out[:, index] = choice


class BernoulliSampler:
    """Independent coin flips; torch draws them from the probabilities themselves.

    Args:
        n_envs: ``B``.
        own: which of them are sampled; default all.
    """

    def __init__(self, n_envs: int, own: slice = ALL) -> None:
        self._n_envs, self._own = n_envs, own

    def sample(self, parameters: np.ndarray, step: int, out: np.ndarray) -> None:
        """See :class:`Sampler`."""
        probability = torch.full((self._n_envs, len(parameters)), 0.5)
        probability[self._own] = torch.from_numpy(np.ascontiguousarray(parameters.T)).sigmoid()
        out[...] = torch.bernoulli(probability)[self._own].numpy()
