"""Whether the packed engine of soft actor-critic can train a policy, and if not, why."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac import policies as sb3
from torch import nn

from maxent_onpolicy.engine.adam_options import why_not_one_adam, why_not_options
from maxent_onpolicy.engine.hooks import why_hooked
from maxent_onpolicy.engine.soft.networks import ACTIVATIONS
from maxent_onpolicy.engine.soft.parameters import actor_networks, critic_networks

_REFUSED = ("weight_decay", "amsgrad", "maximize", "differentiable")


def why_not_packed(policy: Any) -> str | None:
    """Return why the packed engine cannot train an SAC policy, or ``None`` if it can."""
    checks = (_classes, _observations, _networks, _parameters, _optimizers, _hooks)
    return next((reason for check in checks if (reason := check(policy)) is not None), None)


def why_not_optimizer(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> str | None:
    """Return why an optimiser is not plain Adam on exactly these parameters, or ``None`` if it is."""
    reason = why_not_one_adam(optimizer)
    if reason is not None:
        return reason
    if {id(each) for each in optimizer.param_groups[0]["params"]} != {id(each) for each in parameters}:
        return "an optimiser that does not hold exactly its networks' parameters"
    return why_not_options(optimizer, _REFUSED)


def _classes(policy: Any) -> str | None:
    if not isinstance(policy, sb3.SACPolicy):
        return f"{type(policy).__name__} is no SACPolicy"
    for name in ("forward", "_predict", "predict", "make_actor", "make_critic"):
        home = getattr(type(policy), name).__module__
        if not home.startswith("stable_baselines3."):
            return f"{type(policy).__name__}'s own `{name}`"
    expected = ((policy.actor, sb3.Actor), (policy.critic, ContinuousCritic), (policy.critic_target, ContinuousCritic))
    foreign = next((type(part).__name__ for part, kind in expected if type(part) is not kind), None)
    if foreign is not None:
        return f"the network {foreign}"
    if policy.actor.use_sde:
        return "generalised state-dependent exploration (`use_sde=True`)"
    return None


def _observations(policy: Any) -> str | None:
    space = policy.observation_space
    if not isinstance(space, spaces.Box) or is_image_space(space):
        return f"observations that are not vectors ({type(space).__name__}{list(space.shape or ())})"
    parts = (policy.actor, policy.critic, policy.critic_target)
    extractors = [part.features_extractor for part in parts]
    foreign = next((type(each).__name__ for each in extractors if type(each) is not FlattenExtractor), None)
    return None if foreign is None else f"the features extractor {foreign}"


def _networks(policy: Any) -> str | None:
    trunks = [policy.actor.latent_pi, *policy.critic.q_networks, *policy.critic_target.q_networks]
    if type(policy.actor.mu) is not nn.Linear or type(policy.actor.log_std) is not nn.Linear:
        return "an output layer that is not linear"
    for trunk in trunks:
        for layer in trunk.children():
            if type(layer) is not nn.Linear and type(layer) not in ACTIVATIONS:
                return f"a layer {type(layer).__name__} in the networks"
            if type(layer) is nn.Linear and layer.bias is None:
                return "a linear layer without bias"
    kinds = (policy.actor.activation_fn, policy.critic_kwargs["activation_fn"])
    unknown = next((kind.__name__ for kind in kinds if kind not in ACTIVATIONS), None)
    if unknown is not None:
        return f"the activation {unknown}"
    for trunk in trunks:
        _, *order = [type(layer) for layer in trunk.children()] or [nn.Linear]
        if any((kind is nn.Linear) == (index % 2 == 0) for index, kind in enumerate(order)):
            return "networks whose linear layers and activations do not take turns"
        if {kind for kind in order if kind is not nn.Linear} - set(kinds):
            return "an activation that the policy was not made with"
    shapes = {tuple(layer.weight.shape for layer in trunk if isinstance(layer, nn.Linear)) for trunk in trunks[1:]}
    return "critics of different shapes" if len(shapes) > 1 else None


def _parameters(policy: Any) -> str | None:
    for name, parameter in policy.named_parameters():
        frozen = not parameter.requires_grad and not name.startswith("critic_target.")
        if parameter.dtype != torch.float32 or frozen:
            return f"the parameter {name} ({parameter.dtype}{', frozen' if frozen else ''})"
    known: set[int] = set()
    for networks in (
        actor_networks(policy.actor),
        critic_networks(policy.critic),
        critic_networks(policy.critic_target),
    ):
        for part in (part for layers in networks for layer in layers for part in layer):
            places = {id(part.weight), id(part.bias)}
            if known & places:
                return "a parameter that two layers share"
            known |= places
    extra = [name for name, parameter in policy.named_parameters() if id(parameter) not in known]
    return f"the additional parameter {extra[0]}" if extra else None


def _optimizers(policy: Any) -> str | None:
    for part in (policy.actor, policy.critic):
        reason = why_not_optimizer(part.optimizer, list(part.parameters()))
        if reason is not None:
            return reason
    return None


def _hooks(policy: Any) -> str | None:
    # Modules of the policy: `why_hooked` asks an object with one optimiser.
    return next((reason for part in (policy.actor, policy.critic) if (reason := why_hooked(part)) is not None), None)
