"""A SAC policy's three groups of networks on flat vectors."""

from typing import Any

import torch
from torch import Tensor

from maxent_onpolicy.engine.soft.networks import StackedRows
from maxent_onpolicy.engine.soft.parameters import (
    FlatNetworks,
    TrainedNetworks,
    actor_networks,
    critic_networks,
    shape_of,
)
from maxent_onpolicy.engine.soft.squashed import SquashedSamples


class SoftModel:
    """Actor, critics and target critics of a policy that fits (see ``fits.py``).

    Args:
        policy: an ``SACPolicy``.

    Attributes:
        actor: its parameters, one network with the outputs ``[mean, log_std]``.
        critic: those of the critics, stacked.
        target: those of their slow copies.
    """

    def __init__(self, policy: Any) -> None:
        actor, critic, target = policy.actor, policy.critic, policy.critic_target
        self.policy = policy
        self.device: torch.device = policy.device
        self.action_dim: int = actor.mu.out_features
        self.epsilon: float = actor.action_dist.epsilon
        networks = actor_networks(actor)
        self.actor = TrainedNetworks(networks, shape_of(networks, actor.activation_fn), actor.optimizer)
        networks = critic_networks(critic)
        shape = shape_of(networks, policy.critic_kwargs["activation_fn"])
        self.critic = TrainedNetworks(networks, shape, critic.optimizer)
        self.target = FlatNetworks(critic_networks(target), shape)
        self._acting: dict[int, tuple[Tensor, StackedRows, SquashedSamples]] = {}

    @property
    def observation_dim(self) -> int:
        """Elements of an observation."""
        return self.actor.shape.widths[0]

    def is_attached(self) -> bool:
        """Whether the policy's modules and optimisers still share memory with the vectors."""
        return self.actor.is_attached() and self.critic.is_attached() and self.target.is_attached()

    @torch.no_grad()
    def act(self, observation: Any) -> Tensor:
        """Return sampled actions ``[B, A]`` in ``[-1, 1]`` for observations ``[B, ...]``; SB3's, with its noise.

        They are valid until the next call with as many rows.
        """
        count = len(observation)
        if count not in self._acting:
            self._acting[count] = (
                torch.zeros(count, self.observation_dim, device=self.device),
                StackedRows(self.actor.shape, self.actor.flat, None, count),
                SquashedSamples(count, self.action_dim, self.epsilon, self.device),
            )
        rows, network, samples = self._acting[count]
        rows.copy_(torch.as_tensor(observation).reshape(rows.shape))
        parameters = network.forward(rows)[0]
        samples.noise.normal_()
        return samples.draw(parameters)
