"""Rollouts from images, whose networks are so large that every image should pass them once only."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.finite import naming_divergence
from maxent_onpolicy.engine.rollout import ActResult, collect_rollout
from maxent_onpolicy.engine.shared_buffer import has_images
from maxent_onpolicy.envs.tensor import Observation
from maxent_onpolicy.policies.actor_critic import EntropyHeadMixin

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm


class ImageCollector:
    """Collects rollouts with all heads at once, and remembers what the entropy critic said.

    Without it the entropy critic would see the whole rollout again after the last step.
    """

    def __init__(self) -> None:
        self._entropy_value: Tensor | None = None

    @staticmethod
    def serves(algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer) -> bool:
        """Whether a model has images and, where it has an entropy critic, a ``forward`` that this can stand in for."""
        policy = algorithm.policy
        if not has_images(algorithm.observation_space) or buffer.noise_rows is not None:
            return False
        return type(policy).forward is ActorCriticPolicy.forward

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
        if not getattr(algorithm, "uses_entropy_critic", False):
            return collect_rollout(algorithm, env, callback, buffer, n_steps)
        seen: list[Tensor] = []
        complete = collect_rollout(algorithm, env, callback, buffer, n_steps, acting=partial(act_and_remember, seen))
        if complete:
            self._entropy_value = torch.stack(seen)
        return complete

    def entropy_value(self) -> Tensor | None:
        """Return the entropy critic's values ``[T, B]`` of the last rollout, once; ``None`` if it was not asked."""
        value, self._entropy_value = self._entropy_value, None
        return value


def act_and_remember(
    seen: list[Tensor], policy: ActorCriticPolicy, observation: Observation, num_timesteps: int
) -> ActResult:
    """Do what :func:`~maxent_onpolicy.engine.rollout.act` does, and append the entropy values ``[B]`` to ``seen``."""
    assert isinstance(policy, EntropyHeadMixin)
    where = f"action of environment 0 cannot be sampled at step {num_timesteps}"
    with torch.no_grad(), naming_divergence(policy, where):
        actions, values, log_probs, entropy_values = policy.act_with_entropy_values(observation)
    seen.append(entropy_values.flatten())
    return actions, values, log_probs
