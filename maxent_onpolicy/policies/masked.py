"""Policies for discrete actions of which not all are legal in every state.

The environment's observation is a dictionary: ``"observation"``, what the networks see, and ``"action_mask"``, which
actions are legal (1) and which are not (0). The networks see nothing of the mask; it decides over the logits alone.
"""

from typing import Any, Self

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor
from torch.distributions import Categorical

from maxent_onpolicy.policies.actor_critic import ActorCriticPolicy, EntropyHeadMixin

OBSERVATION, ACTION_MASK = "observation", "action_mask"


class MaskedCategorical(Categorical):
    """A categorical distribution over the legal choices; the others have probability 0 and log-probability −∞.

    With all choices legal it is PyTorch's ``Categorical`` to the last bit. Gradients are finite for any mask.

    Args:
        logits: ``[..., n]`` unnormalised log-probabilities.
        legal: ``[..., n]`` bool. Where nothing is legal, as in an observation in which nobody moves, everything is.
    """

    def __init__(self, logits: Tensor, legal: Tensor) -> None:
        self.legal = legal | ~legal.any(-1, keepdim=True)
        super().__init__(logits=logits.masked_fill(~self.legal, -torch.inf))

    def entropy(self) -> Tensor:
        """Return entropies ``[...]`` in nats."""
        # PyTorch's own replaces −∞ by the lowest number, whose product with a coefficient above 1 is infinite.
        return -(self.logits.masked_fill(~self.legal, 0.0) * self.probs).sum(-1)


class MaskedCategoricalDistribution(CategoricalDistribution):
    """SB3's ``CategoricalDistribution``, over the legal actions.

    Args:
        action_dim: ``A``, the number of actions.
    """

    def proba_distribution(self, action_logits: Tensor, legal: Tensor | None = None) -> Self:
        """Set the distribution from logits ``[N, A]`` and which actions are legal, ``[N, A]`` bool (default: all)."""
        if legal is None:
            legal = torch.ones_like(action_logits, dtype=torch.bool)
        self.distribution = MaskedCategorical(action_logits, legal)
        return self


class MaskedExtractor(BaseFeaturesExtractor):
    """Flattens ``"observation"`` and puts the mask behind it, for :class:`MaskedMlpExtractor` to take off again.

    Args:
        observation_space: with the entries ``"observation"`` and ``"action_mask"``.
    """

    def __init__(self, observation_space: spaces.Dict) -> None:
        self.n_actions = get_flattened_obs_dim(observation_space[ACTION_MASK])
        super().__init__(observation_space, get_flattened_obs_dim(observation_space[OBSERVATION]) + self.n_actions)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return ``[N, F + A]`` of a dictionary of ``[N, ...]``."""
        return torch.cat([observations[OBSERVATION].flatten(1), observations[ACTION_MASK].flatten(1)], dim=1)


class MaskedMlpExtractor(MlpExtractor):
    """SB3's two networks for features that end in a mask: neither sees it, the actor's output ends in it again.

    So it reaches the logits on every way through SB3's policies, and nothing has to be remembered between two calls.

    Args:
        feature_dim: of the features without the mask.
        n_actions: length of the mask.
        **kwargs: as SB3's ``MlpExtractor``.
    """

    def __init__(self, feature_dim: int, n_actions: int, **kwargs: Any) -> None:
        super().__init__(feature_dim, **kwargs)
        self.n_actions = n_actions

    def forward_actor(self, features: Tensor) -> Tensor:
        """Return the actor's latent features and the mask, ``[N, L + A]``."""
        mask = features[:, -self.n_actions :]
        return torch.cat([super().forward_actor(features[:, : -self.n_actions]), mask], dim=1)

    def forward_critic(self, features: Tensor) -> Tensor:
        """Return the critic's latent features ``[N, L]``."""
        return super().forward_critic(features[:, : -self.n_actions])


class MaskedActorCriticPolicy(ActorCriticPolicy):
    """:class:`~maxent_onpolicy.policies.actor_critic.ActorCriticPolicy` that takes legal actions only.

    Where all actions are legal it is SB3's ``MlpPolicy`` on ``"observation"`` alone: with the same seed, to the last
    bit.

    Args:
        observation_space: a dictionary with the entries ``"observation"`` and ``"action_mask"``; others are not looked
            at.
        action_space: ``Discrete(A)``; the mask has ``A`` entries.
        lr_schedule: as SB3.
        *args: as SB3.
        **kwargs: as SB3.

    Raises:
        ValueError: if the spaces are others.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        _check_spaces(observation_space, action_space)
        kwargs = {"features_extractor_class": MaskedExtractor} | kwargs
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        assert isinstance(self.action_space, spaces.Discrete)
        self.action_dist = MaskedCategoricalDistribution(int(self.action_space.n))
        super()._build(lr_schedule)

    def _build_mlp_extractor(self) -> None:
        assert isinstance(self.action_space, spaces.Discrete)
        n_actions = int(self.action_space.n)
        self.mlp_extractor = MaskedMlpExtractor(
            self.features_dim - n_actions,
            n_actions,
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            device=self.device,
        )

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        assert isinstance(self.action_dist, MaskedCategoricalDistribution)
        latent, mask = latent_pi.split([self.mlp_extractor.latent_dim_pi, self.action_dist.action_dim], dim=1)
        return self.action_dist.proba_distribution(self.action_net(latent), mask != 0)


class MaxEntMaskedActorCriticPolicy(EntropyHeadMixin, MaskedActorCriticPolicy):
    """:class:`MaskedActorCriticPolicy` with the entropy critic."""

    def _entropy_features_dim(self) -> int:
        assert isinstance(self.mlp_extractor, MaskedMlpExtractor)
        return self.features_dim - self.mlp_extractor.n_actions


def _check_spaces(observation: spaces.Space, action: spaces.Space) -> None:
    if not isinstance(action, spaces.Discrete):
        raise ValueError(f"`MaskedMlpPolicy` chooses among discrete actions; the action space is {action}")
    named = isinstance(observation, spaces.Dict) and {OBSERVATION, ACTION_MASK} <= set(observation.spaces)
    if not named:
        raise ValueError(
            f"`MaskedMlpPolicy` needs observations with the entries {OBSERVATION!r} and {ACTION_MASK!r}; "
            f"the observation space is {observation}"
        )
    assert isinstance(observation, spaces.Dict)
    mask = observation[ACTION_MASK]
    if get_flattened_obs_dim(mask) != action.n:
        raise ValueError(f"`action_mask` must have {action.n} entries, one for each action; its space is {mask}")
