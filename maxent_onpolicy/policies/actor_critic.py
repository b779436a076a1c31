"""SB3's actor-critic policies with our action distributions, and with the entropy head."""

from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import policies as sb3
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, MlpExtractor, create_mlp
from stable_baselines3.common.torch_layers import NatureCNN as SB3NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from maxent_onpolicy.policies.copying import GraphFreeCopies
from maxent_onpolicy.policies.distributions import (
    ActionDistribution,
    BoxDistribution,
    GaussianDistribution,
    make_box_distribution,
)
from maxent_onpolicy.policies.heads import PopArtLinear
from maxent_onpolicy.policies.nature_cnn import NatureCNN
from maxent_onpolicy.validation import check_range

_KNOWN_MODULES = frozenset({sb3.__name__, __name__})


class ActorCriticPolicy(GraphFreeCopies, sb3.ActorCriticPolicy):
    """SB3's ``ActorCriticPolicy`` with more action distributions.

    Without the keywords below it is SB3's policy to the last bit.

    Args:
        observation_space: as SB3.
        action_space: as SB3.
        lr_schedule: as SB3.
        *args: as SB3.
        action_distribution: ``"auto"`` (SB3's choice), ``"gaussian"``, ``"tanh_gaussian"`` or ``"beta"``. The last two
            cannot leave the action bounds.
        state_dependent_std: the standard deviation is an output of the actor network.
        log_std_bounds: ``(low, high)`` within which the log standard deviation stays; ``log_std_init`` lies between.
        **kwargs: as SB3.

    Raises:
        ValueError: if these options contradict the action space, each other or gSDE.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *args: Any,
        action_distribution: ActionDistribution = "auto",
        state_dependent_std: bool = False,
        log_std_bounds: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._distribution_kwargs: dict[str, Any] = {
            "action_distribution": action_distribution,
            "state_dependent_std": state_dependent_std,
            "log_std_bounds": log_std_bounds,
        }
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)
        if isinstance(self.action_dist, BoxDistribution):
            self._squash_output = self.action_dist.bounded

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._distribution_kwargs

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Return a new features extractor; SB3's NatureCNN as one that can compute in chunks."""
        if self.features_extractor_class is SB3NatureCNN:
            return NatureCNN(self.observation_space, **self.features_extractor_kwargs)
        return super().make_features_extractor()

    def extract_features(  # type: ignore[override]
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return features ``[N, F]`` of observations ``[N, ...]``, or the actor's and the critic's, as SB3's method.

        Where :class:`NatureCNN` takes its images in chunks they are scaled there, too, while they are in the cache.
        """
        if not isinstance(self.features_extractor, NatureCNN):
            return super().extract_features(obs, features_extractor)
        assert isinstance(obs, Tensor)
        features = [
            super(ActorCriticPolicy, self).extract_features(chunk, features_extractor)
            for chunk in self.features_extractor.chunks(obs)
        ]
        if len(features) == 1:
            return features[0]
        pieces = [each if isinstance(each, tuple) else (each,) for each in features]
        joined = [torch.cat(each) for each in zip(*pieces, strict=True)]
        return joined[0] if len(joined) == 1 else (joined[0], joined[1])

    def actor_parameters(self) -> list[nn.Parameter] | None:
        """Return the trainable parameters on which the action distribution depends, in the order of ``parameters()``.

        ``None`` if a subclass builds or runs its networks in a way of its own; it may override this.
        """
        parts = ("_build_mlp_extractor", "extract_features", "get_distribution", "_get_action_dist_from_latent")
        own = all(getattr(type(self), name).__module__ in _KNOWN_MODULES for name in parts)
        if not own or type(self.mlp_extractor) is not MlpExtractor:
            return None
        modules = (self.pi_features_extractor, self.mlp_extractor.policy_net, self.action_net)
        actor = {id(parameter) for module in modules for parameter in module.parameters()}
        if isinstance(getattr(self, "log_std", None), nn.Parameter):
            actor.add(id(self.log_std))
        return [parameter for parameter in self.parameters() if parameter.requires_grad and id(parameter) in actor]

    def _build(self, lr_schedule: Schedule) -> None:
        distribution = make_box_distribution(self.action_space, **self._distribution_kwargs)
        if distribution is None:
            super()._build(lr_schedule)
            return
        if self.use_sde:
            raise ValueError(
                "`use_sde=True` brings its own distribution; leave out "
                "`action_distribution`, `state_dependent_std` and `log_std_bounds`"
            )
        self.action_dist = distribution
        self._build_mlp_extractor()
        self.action_net = distribution.proba_distribution_net(self.mlp_extractor.latent_dim_pi)
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        self._initialise_weights()
        if isinstance(distribution, GaussianDistribution):
            self._initialise_std(distribution)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _initialise_weights(self) -> None:
        if not self.ortho_init:
            return
        # A dict, not a set, drops the second of two equal extractors: the order decides which weights are drawn.
        trunk = (self.pi_features_extractor, self.vf_features_extractor, self.mlp_extractor)
        gains = dict.fromkeys(trunk, float(np.sqrt(2))) | {self.action_net: 0.01, self.value_net: 1.0}
        for module, gain in gains.items():
            module.apply(partial(self.init_weights, gain=gain))

    def _initialise_std(self, distribution: GaussianDistribution) -> None:
        action_dim = get_action_dim(self.action_space)
        if distribution.log_std_bounds is not None:
            # At a bound the gradient vanishes: the deviation would never leave it.
            check_range("log_std_init", self.log_std_init, *distribution.log_std_bounds, low_open=True, high_open=True)
        raw = distribution.raw_log_std(self.log_std_init)
        if distribution.state_dependent_std:
            assert isinstance(self.action_net, nn.Linear)
            with torch.no_grad():
                self.action_net.bias[action_dim:].fill_(raw)
        else:
            self.log_std = nn.Parameter(torch.full((action_dim,), float(raw)))

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        if not isinstance(self.action_dist, BoxDistribution):
            return super()._get_action_dist_from_latent(latent_pi)
        parameters = self.action_net(latent_pi)
        if isinstance(self.action_dist, GaussianDistribution) and not self.action_dist.state_dependent_std:
            return self.action_dist.proba_distribution(parameters, self.log_std)
        return self.action_dist.proba_distribution(parameters)


class ActorCriticCnnPolicy(ActorCriticPolicy):
    """:class:`ActorCriticPolicy` for images (SB3's NatureCNN)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": SB3NatureCNN} | kwargs)


class MultiInputActorCriticPolicy(ActorCriticPolicy):
    """:class:`ActorCriticPolicy` for dictionary observations (SB3's CombinedExtractor)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor} | kwargs)


class EntropyHeadMixin(GraphFreeCopies, sb3.ActorCriticPolicy):
    """Adds the entropy critic, and optionally PopArt on both critics, to any SB3 actor-critic policy.

    Everything is built after SB3's own networks and without drawing from the
    global random generator, so the policy below it is bit for bit what it would
    be without the head.

    Args:
        *args: as the policy below.
        entropy_head: whether there is an entropy critic (the single-critic ablation has none).
        entropy_net_arch: hidden layers of the entropy critic's own MLP on the critic's features; ``"critic"``: as many
            and as wide as the value network's. ``None`` puts one linear head on the value network, which is cheaper,
            but the errors of future entropy, in nats, then drown those of normalised rewards in what both share.
        popart: PopArt on the value head and the entropy head, each with its own statistics.
        popart_beta: weight of one rollout in PopArt's statistics.
        **kwargs: as the policy below.
    """

    entropy_trunk: nn.Module | None
    entropy_value_net: nn.Linear

    def __init__(
        self,
        *args: Any,
        entropy_head: bool = True,
        entropy_net_arch: list[int] | Literal["critic"] | None = "critic",
        popart: bool = False,
        popart_beta: float = 0.03,
        **kwargs: Any,
    ) -> None:
        self._head_kwargs: dict[str, Any] = {
            "entropy_head": entropy_head,
            "entropy_net_arch": entropy_net_arch,
            "popart": popart,
            "popart_beta": popart_beta,
        }
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._head_kwargs

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        head = self._head_kwargs
        with torch.random.fork_rng(devices=[]):
            if head["entropy_head"]:
                self._build_entropy_critic(head["entropy_net_arch"])
            if head["popart"]:
                self.value_net = PopArtLinear.from_linear(self.value_net, head["popart_beta"])
                if head["entropy_head"]:
                    self.entropy_value_net = PopArtLinear.from_linear(self.entropy_value_net, head["popart_beta"])
        self._optimise_new_parameters(lr_schedule)

    def _optimise_new_parameters(self, lr_schedule: Schedule) -> None:
        """Make the optimiser anew with all parameters, or extend one that the policy below made in its own way."""
        usual = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        if type(self.optimizer) is type(usual) and _options(self.optimizer) == _options(usual):
            self.optimizer = usual
            return
        known = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        new = [parameter for parameter in self.parameters() if id(parameter) not in known]
        if new:
            self.optimizer.add_param_group({"params": new})

    def _build_entropy_critic(self, net_arch: list[int] | Literal["critic"] | None) -> None:
        self.entropy_trunk = None
        latent_dim = self.mlp_extractor.latent_dim_vf
        if isinstance(net_arch, str):
            if net_arch != "critic":
                raise ValueError(f"`entropy_net_arch` must be a list of widths, 'critic' or None; got {net_arch!r}")
            # Without layers of its own, as behind a CNN, the value network is its features, and a head is all there is.
            net_arch = (self.net_arch.get("vf", []) if isinstance(self.net_arch, dict) else self.net_arch) or None
        if net_arch is not None:
            features_dim = self._entropy_features_dim()
            self.entropy_trunk = nn.Sequential(*create_mlp(features_dim, -1, net_arch, self.activation_fn))
            latent_dim = net_arch[-1] if net_arch else features_dim
            if self.ortho_init:
                self.entropy_trunk.apply(partial(self.init_weights, gain=np.sqrt(2)))
        self.entropy_value_net = nn.Linear(latent_dim, 1)
        if self.ortho_init:
            self.init_weights(self.entropy_value_net, gain=1.0)

    def predict_entropy_values(self, obs: PyTorchObs) -> Tensor:
        """Return the entropy critic's values ``[N, 1]`` (nats, discounted with γ_H) of observations ``[N, ...]``."""
        features = sb3.BasePolicy.extract_features(self, obs, self.vf_features_extractor)
        return self._entropy_value(features, self.mlp_extractor.forward_critic(features))

    def predict_both_values(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Return values and entropy values, ``[N, 1]`` each, of observations ``[N, ...]``.

        One pass through the networks, unless the policy overrides ``predict_values``.
        """
        if type(self).predict_values is not sb3.ActorCriticPolicy.predict_values:
            return self.predict_values(obs), self.predict_entropy_values(obs)
        features = sb3.BasePolicy.extract_features(self, obs, self.vf_features_extractor)
        latent = self.mlp_extractor.forward_critic(features)
        return self.value_net(latent), self._entropy_value(features, latent)

    def evaluate_actions_and_entropy_values(
        self, obs: PyTorchObs, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Evaluate actions with both critics.

        Args:
            obs: ``[N, ...]``.
            actions: ``[N, A]``.

        Returns:
            Values ``[N, 1]``, entropy values ``[N, 1]``, log-probabilities ``[N]`` and, where it has a closed form, the
            distribution's entropy ``[N]``. One pass through the networks, unless the policy overrides
            ``evaluate_actions``, which is then called and followed by a pass through the entropy critic.
        """
        if type(self).evaluate_actions is not sb3.ActorCriticPolicy.evaluate_actions:
            values, log_prob, entropy = self.evaluate_actions(obs, actions)
            return values, self.predict_entropy_values(obs), log_prob, entropy
        distribution, values, entropy_values = self._all_heads(obs)
        return values, entropy_values, distribution.log_prob(actions), distribution.entropy()

    def act_with_entropy_values(self, obs: PyTorchObs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do what SB3's ``forward`` does, and ask the entropy critic in the same pass through the networks.

        Args:
            obs: ``[N, ...]``.

        Returns:
            Sampled actions ``[N, A]``, values ``[N, 1]``, log-probabilities ``[N]`` and entropy values ``[N, 1]``.
        """
        distribution, values, entropy_values = self._all_heads(obs)
        actions = distribution.get_actions()
        log_prob = distribution.log_prob(actions)
        assert self.action_space.shape is not None
        return actions.reshape((-1, *self.action_space.shape)), values, log_prob, entropy_values

    def _all_heads(self, obs: PyTorchObs) -> tuple[Distribution, Tensor, Tensor]:
        """Return the action distribution, values and entropy values ``[N, 1]`` of one pass through the networks."""
        features = self.extract_features(obs)
        pi_features, vf_features = features if isinstance(features, tuple) else (features, features)
        latent_vf = self.mlp_extractor.forward_critic(vf_features)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(pi_features))
        return distribution, self.value_net(latent_vf), self._entropy_value(vf_features, latent_vf)

    def _entropy_value(self, vf_features: Tensor, latent_vf: Tensor) -> Tensor:
        if self.entropy_trunk is None:
            return self.entropy_value_net(latent_vf)
        return self.entropy_value_net(self.entropy_trunk(vf_features[:, : self._entropy_features_dim()]))

    def _entropy_features_dim(self) -> int:
        """Return how many of the critic's features a network of the entropy critic's own sees: the first ones."""
        return self.features_dim


class MaxEntActorCriticPolicy(EntropyHeadMixin, ActorCriticPolicy):
    """:class:`ActorCriticPolicy` with the entropy critic."""


class MaxEntActorCriticCnnPolicy(EntropyHeadMixin, ActorCriticCnnPolicy):
    """:class:`ActorCriticCnnPolicy` with the entropy critic."""


class MaxEntMultiInputActorCriticPolicy(EntropyHeadMixin, MultiInputActorCriticPolicy):
    """:class:`MultiInputActorCriticPolicy` with the entropy critic."""


def _options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return each parameter group's settings."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


@cache
def with_entropy_head(policy_class: Any) -> type[EntropyHeadMixin]:
    """Return a policy class with the entropy critic: the class itself if it has one, else a subclass that adds it.

    Raises:
        ValueError: if ``policy_class`` is no SB3 ``ActorCriticPolicy``.
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, sb3.ActorCriticPolicy)):
        raise ValueError(f"`policy` must be an alias or a subclass of SB3's ActorCriticPolicy, got {policy_class!r}")
    if issubclass(policy_class, EntropyHeadMixin):
        return policy_class
    return type(f"MaxEnt{policy_class.__name__}", (EntropyHeadMixin, policy_class), {"__doc__": policy_class.__doc__})
