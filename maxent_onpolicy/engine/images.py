"""Rollouts from images, whose networks are so large that every image should pass them once only."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.rollout import ActResult, collect_rollout, sampling
from maxent_onpolicy.engine.shared_buffer import has_images
from maxent_onpolicy.envs.tensor import Observation
from maxent_onpolicy.policies.actor_critic import EntropyHeadMixin

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm


class RolloutCollector:
    """Collects rollouts for an engine; from images with all heads at once, so that none has to see them again.

    It remembers what the entropy critic said of images until it is asked.

    Args:
        deferred: where there are no images, run the actor alone in every step, and the critics at the end.
    """

    def __init__(self, deferred: bool) -> None:
        self._deferred = deferred
        self._entropy_value: Tensor | None = None

    def collect(
        self,
        algorithm: "OnPolicyAlgorithm",
        env: VecEnv,
        callback: BaseCallback,
        buffer: RolloutBuffer,
        n_steps: int,
    ) -> bool:
        """Fill the buffer; see :func:`~maxent_onpolicy.engine.rollout.collect_rollout`."""
        self._entropy_value = None
        at_once = _passes_once(algorithm, buffer)
        seen: list[Tensor] = []
        remembers = at_once and getattr(algorithm, "uses_entropy_critic", False)
        acting = partial(act_and_remember, seen) if remembers else None
        deferred = self._deferred and not at_once
        complete = collect_rollout(algorithm, env, callback, buffer, n_steps, deferred, acting)
        if complete and remembers:
            self._entropy_value = torch.stack(seen)
        return complete

    def critic_values(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, critic: str) -> Tensor:
        """Return a critic's values ``[T, B]`` of the rollout's observations."""
        if critic == "entropy_value" and self._entropy_value is not None:
            known, self._entropy_value = self._entropy_value, None
            return known
        return buffer.evaluate(getattr(algorithm.policy, f"predict_{critic}s"))


def _passes_once(algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer) -> bool:
    """Whether a model has images, and a ``forward`` that another pass through its networks can stand in for."""
    if not has_images(algorithm.observation_space) or buffer.noise_rows is not None:
        return False
    return type(algorithm.policy).forward is ActorCriticPolicy.forward


def act_and_remember(
    seen: list[Tensor], policy: ActorCriticPolicy, observation: Observation, num_timesteps: int
) -> ActResult:
    """Do what :func:`~maxent_onpolicy.engine.rollout.act` does, and append the entropy values ``[B]`` to ``seen``."""
    assert isinstance(policy, EntropyHeadMixin)
    with sampling(policy, num_timesteps):
        actions, values, log_probs, entropy_values = policy.act_with_entropy_values(observation)
    seen.append(entropy_values.flatten())
    return actions, values, log_probs
