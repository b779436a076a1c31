"""Which of a policy's parameters its action distribution depends on."""

from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn


def actor_parameters(policy: ActorCriticPolicy, observation: PyTorchObs, action: Tensor) -> list[nn.Parameter]:
    """Return the trainable parameters on which a policy's action distribution depends.

    The policy's own ``actor_parameters()`` lists them where it has such a method. For every other policy automatic
    differentiation finds out: a parameter belongs to the actor if the log-probability of an action can be
    differentiated with respect to it.

    Args:
        policy: any.
        observation: some observations ``[N, ...]``.
        action: actions ``[N, ...]`` that the policy may take there.

    Returns:
        Them in the order of ``policy.parameters()``.

    Raises:
        ValueError: if there are none.
    """
    method: Any = getattr(policy, "actor_parameters", None)
    listed = None if method is None else method()
    if listed is None:
        candidates = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        training = policy.training
        policy.set_training_mode(False)  # to look changes nothing: no statistics of batches, no random numbers
        with torch.enable_grad():
            log_prob = policy.get_distribution(observation).log_prob(action).sum()
        policy.set_training_mode(training)
        gradients: tuple[Tensor | None, ...] = ()
        if candidates and log_prob.requires_grad:
            gradients = torch.autograd.grad(log_prob, candidates, allow_unused=True)
        pairs = zip(candidates, gradients, strict=False)
        listed = [parameter for parameter, gradient in pairs if gradient is not None]
    if not listed:
        raise ValueError(f"no trainable parameter of {type(policy).__name__} changes its actions; unfreeze some")
    return listed
