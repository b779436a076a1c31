"""The eager tier of TRPO: Fisher-vector products by differentiating twice, for any policy."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maxent_onpolicy.engine.buffer import Minibatch
from maxent_onpolicy.engine.eager import EagerEngine
from maxent_onpolicy.engine.finite import NonFiniteError, naming_divergence
from maxent_onpolicy.engine.trust_region import natural_step, search
from maxent_onpolicy.estimators.losses import surrogate_objective
from maxent_onpolicy.estimators.trust_region import LineSearch, flat_gradient, hessian_vector_product, mean_kl
from maxent_onpolicy.policies.actor_parameters import actor_parameters
from maxent_onpolicy.policies.divergence import kl_divergence, remember

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.trpo import TRPO


class EagerTrustRegionEngine(EagerEngine):
    """Makes TRPO's step with autograd, and lets the policy's optimiser train the critics.

    With the same seed its parameters are sb3-contrib's bit for bit.
    """

    def update(self, algorithm: "TRPO") -> dict[str, float]:  # type: ignore[override]
        """Train on the rollout; return scalars to log."""
        policy = algorithm.policy
        with naming_divergence(policy, f"the update after step {algorithm.num_timesteps} failed", algorithm.remedy):
            whole = next(algorithm.rollout_buffer.get())
            batch = whole.rows(slice(None, None, algorithm.sub_sampling_factor))
            actor = actor_parameters(policy, batch.observation, batch.action)
            found = _step_actor(algorithm, batch, actor)
            metrics = _train_critics(algorithm, actor)
        algorithm._n_updates += 1
        return algorithm.metrics_of(found) | metrics


def _step_actor(algorithm: "TRPO", batch: Minibatch, actor: list[nn.Parameter]) -> LineSearch:
    """Move the actor's parameters by a natural-gradient step, or leave them bit for bit as they are."""
    policy = algorithm.policy
    with torch.no_grad():
        old = remember(policy.get_distribution(batch.observation))
    distribution = policy.get_distribution(batch.observation)
    advantage = algorithm._policy_advantage(batch)
    objective = surrogate_objective(distribution.log_prob(batch.action), batch.log_prob, advantage)
    kl = mean_kl(kl_divergence(distribution, old), algorithm.kl_reduction)
    gradient = flat_gradient(objective, actor, retain_graph=True)
    # A graph for each parameter: then products round as sb3-contrib's do.
    kl_gradient = torch.cat([flat_gradient(kl, [parameter], create_graph=True) for parameter in actor])

    step = natural_step(
        algorithm,
        lambda vector: hessian_vector_product(kl_gradient, actor, vector),
        gradient,
        torch.randn_like(gradient),
    )
    parts = step.direction.split([parameter.numel() for parameter in actor])
    directions = [part.view_as(parameter) for part, parameter in zip(parts, actor, strict=True)]
    before = [parameter.detach().clone() for parameter in actor]

    @torch.no_grad()
    def evaluate(fraction: float) -> tuple[float, float]:
        for parameter, original, direction in zip(actor, before, directions, strict=True):
            parameter.copy_(original + fraction * step.length * direction)
        try:
            with naming_divergence(policy, "a step leads outside the action distribution's parameters"):
                tried = policy.get_distribution(batch.observation)
        except NonFiniteError:
            return float("nan"), float("nan")
        reached = surrogate_objective(tried.log_prob(batch.action), batch.log_prob, advantage)
        return reached.item(), mean_kl(kl_divergence(tried, old), algorithm.kl_reduction).item()

    @torch.no_grad()
    def go_back() -> None:
        for parameter, original in zip(actor, before, strict=True):
            parameter.copy_(original)

    return search(algorithm, step, objective.item(), evaluate, go_back)


def _train_critics(algorithm: "TRPO", actor: list[nn.Parameter]) -> dict[str, float]:
    """Train all that is not the actor's on the critics' losses; return their means over all minibatches."""
    optimizer = algorithm.policy.optimizer
    batches: list[dict[str, Tensor]] = []
    for _ in range(algorithm.n_critic_updates):
        for batch in algorithm.rollout_buffer.get(algorithm.batch_size):
            loss, metrics = algorithm._critic_loss(batch)
            optimizer.zero_grad()
            loss.backward()
            for parameter in actor:  # what both share, only the trust region may move
                parameter.grad = None
            optimizer.step()
            batches.append(metrics)
    return {name: torch.stack([each[name] for each in batches]).mean().item() for name in batches[0]}
