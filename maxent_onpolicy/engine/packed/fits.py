"""Whether the packed tier can train a policy, and if not, why."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common import distributions as sb3_distributions
from stable_baselines3.common import policies as sb3
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

from maxent_onpolicy.engine.adam_options import why_not_one_adam, why_not_options
from maxent_onpolicy.engine.hooks import why_hooked
from maxent_onpolicy.engine.packed.layout import ACTIVATIONS, make_layout
from maxent_onpolicy.policies import actor_critic
from maxent_onpolicy.policies.distributions import GaussianDistribution, TanhGaussianDistribution
from maxent_onpolicy.policies.heads import PopArtLinear

# What the packed step computes itself; a policy that overrides one of these means something else by it.
_COMPUTED = (
    "forward",
    "extract_features",
    "evaluate_actions",
    "evaluate_actions_and_entropy_values",
    "get_distribution",
    "predict_values",
    "predict_entropy_values",
    "_get_action_dist_from_latent",
    "_entropy_value",
)
_OWN_MODULES = frozenset({sb3.__name__, actor_critic.__name__})
_DISTRIBUTIONS = (
    sb3_distributions.DiagGaussianDistribution,
    sb3_distributions.CategoricalDistribution,
    sb3_distributions.MultiCategoricalDistribution,
    sb3_distributions.BernoulliDistribution,
    GaussianDistribution,
    TanhGaussianDistribution,
)


def why_not_packed(policy: Any) -> str | None:
    """Return why the packed tier cannot train ``policy``, or ``None`` if it can."""
    checks = (_policy_class, _observations, _actions, _networks, _parameters, _optimizer)
    return next((reason for check in checks if (reason := check(policy)) is not None), None)


def _policy_class(policy: Any) -> str | None:
    if not isinstance(policy, sb3.ActorCriticPolicy):
        return f"{type(policy).__name__} is no ActorCriticPolicy"
    for name in _COMPUTED:
        method = getattr(type(policy), name, None)
        if method is not None and method.__module__ not in _OWN_MODULES:
            return f"{type(policy).__name__} overrides `{name}`"
    if policy.use_sde:
        return "generalised state-dependent exploration (`use_sde=True`)"
    return why_hooked(policy)


def _observations(policy: Any) -> str | None:
    space = policy.observation_space
    if not isinstance(space, spaces.Box) or is_image_space(space):
        return f"observations that are not vectors ({type(space).__name__}{list(space.shape or ())})"
    extractors = (policy.features_extractor, policy.pi_features_extractor, policy.vf_features_extractor)
    foreign = next((type(each).__name__ for each in extractors if type(each) is not FlattenExtractor), None)
    return None if foreign is None else f"the features extractor {foreign}"


def _actions(policy: Any) -> str | None:
    kind = type(policy.action_dist)
    return None if kind in _DISTRIBUTIONS else f"the action distribution {kind.__name__}"


def _networks(policy: Any) -> str | None:
    extractor = policy.mlp_extractor
    if type(extractor) is not MlpExtractor:
        return f"the MLP extractor {type(extractor).__name__}"
    trunks = [extractor.policy_net, extractor.value_net, getattr(policy, "entropy_trunk", None)]
    activations = set()
    for trunk in trunks:
        layers = [] if trunk is None else list(trunk.children())
        if len(layers) % 2:
            return f"a layer {type(layers[-1]).__name__} without an activation"
        for index, layer in enumerate(layers):
            if index % 2 == 0 and type(layer) is not nn.Linear:
                return f"a layer {type(layer).__name__} in the networks"
            if index % 2 == 1:
                activations.add(type(layer))
    unknown = sorted(kind.__name__ for kind in activations - set(ACTIVATIONS))
    if unknown or len(activations) > 1:
        return f"the activation {', '.join(unknown) or 'functions, which differ'}"
    heads = [policy.action_net, policy.value_net, getattr(policy, "entropy_value_net", None)]
    kinds = [type(head) for head in heads if head is not None]
    foreign = next((kind.__name__ for kind in kinds if kind not in (nn.Linear, PopArtLinear)), None)
    if foreign is not None:
        return f"an output layer {foreign}"
    linears = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    return "a linear layer without bias" if any(layer.bias is None for layer in linears) else None


def _parameters(policy: Any) -> str | None:
    for name, parameter in policy.named_parameters():
        if parameter.dtype != torch.float32 or not parameter.requires_grad:
            frozen = "" if parameter.requires_grad else ", frozen"
            return f"the parameter {name} ({parameter.dtype}{frozen})"
    probe = torch.empty(make_layout(policy).size, device="meta")
    places = [id(parameter) for parameter, _ in make_layout(policy).views(policy, probe)]
    known = set(places)
    if len(known) < len(places):
        return "a parameter that two layers share"
    extra = [name for name, parameter in policy.named_parameters() if id(parameter) not in known]
    return f"the additional parameter {extra[0]}" if extra else None


def _optimizer(policy: Any) -> str | None:
    optimizer = policy.optimizer
    reason = why_not_one_adam(optimizer)
    if reason is not None:
        return reason
    group = optimizer.param_groups[0]
    if {id(parameter) for parameter in group["params"]} != {id(parameter) for parameter in policy.parameters()}:
        return "an optimiser that does not hold exactly the policy's parameters"
    return why_not_options(optimizer, ("weight_decay", "amsgrad", "maximize", "differentiable"))
