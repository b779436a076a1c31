"""The packed tier of TRPO: the actor's step with closed-form products, the critics' with hand-derived gradients."""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer, random_order
from maxent_onpolicy.engine.packed.actor import RolloutActor
from maxent_onpolicy.engine.packed.critics import CriticSettings, CriticTrainer
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.packed.layout import make_split_layout
from maxent_onpolicy.engine.packed.update import PackedUpdate, moments, quiet
from maxent_onpolicy.engine.trust_region import natural_step, search
from maxent_onpolicy.estimators.losses import normalize_advantage
from maxent_onpolicy.estimators.trust_region import KLReduction, LineSearch

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
    from maxent_onpolicy.algorithms.trpo import TRPO


class TrustRegionUpdate(PackedUpdate):
    """A rollout as a matrix with one column a transition, and TRPO's update on it."""

    _actor: tuple[KLReduction, RolloutActor] | None = None

    @torch.no_grad()
    @quiet()
    def run(self, algorithm: "TRPO") -> dict[str, float]:  # type: ignore[override]
        """Move the actor, then train the critics; return scalars to log."""
        buffer = algorithm.rollout_buffer
        self.load_transitions(buffer)
        found = self._step_actor(algorithm, buffer)
        metrics = self._train_critics(algorithm, buffer)
        algorithm._n_updates += 1
        self.model.parameters.publish(self.model.policy)
        return algorithm.metrics_of(found) | metrics

    def _step_actor(self, algorithm: "TRPO", buffer: RolloutBuffer) -> LineSearch:
        # The eager engine sees the rollout in this order: where every so many-th column is taken, they are the same.
        order = torch.as_tensor(random_order(*self.shape), device=self.model.device)
        advantages = [(weight, values.flatten()) for weight, values in algorithm.advantage_terms(buffer)]
        old_log_prob = buffer.log_prob.flatten()
        if algorithm.sub_sampling_factor == 1:
            actor = self._whole_actor(algorithm.kl_reduction)
        else:
            chosen = order[:: algorithm.sub_sampling_factor]
            inputs, action = (self.data[rows][:, chosen] for rows in (self.rows.inputs, self.rows.action))
            actor = RolloutActor(self.model, inputs, action, algorithm.kl_reduction)
            advantages = [(weight, values[chosen]) for weight, values in advantages]
            old_log_prob = old_log_prob[chosen]
        if algorithm.normalize_advantage:
            advantages = [(weight, normalize_advantage(values)) for weight, values in advantages]
        advantage = torch.stack([weight * values for weight, values in advantages]).sum(0)
        objective, gradient = actor.surrogate(old_log_prob, advantage)
        step = natural_step(algorithm, actor.fisher_product, gradient, self._noise(len(gradient)))
        parameters, before = actor.parameters, actor.parameters.clone()

        def evaluate(fraction: float) -> tuple[float, float]:
            parameters.copy_(before + fraction * step.length * step.direction)
            return actor.evaluate(old_log_prob, advantage)

        def go_back() -> None:
            parameters.copy_(before)

        return search(algorithm, step, objective, evaluate, go_back)

    def _whole_actor(self, reduction: KLReduction) -> RolloutActor:
        """Return the actor on the whole rollout; its memory is kept from one update to the next."""
        if self._actor is None or self._actor[0] != reduction:
            rows = self.rows
            self._actor = reduction, RolloutActor(self.model, self.data[rows.inputs], self.data[rows.action], reduction)
        return self._actor[1]

    def _noise(self, size: int) -> Tensor:
        """Draw standard normal numbers ``[P]`` for the actor, each parameter's as in the eager engine."""
        policy, layout = self.model.policy, self.model.parameters.layout
        drawn, placed = torch.randn(size, device=self.model.device), torch.zeros_like(self.model.parameters.flat)
        views = {id(parameter): view for parameter, view in layout.views(policy, placed)}
        first = 0
        for parameter in policy.parameters():
            view = views[id(parameter)]
            if view.storage_offset() < size:
                view.copy_(drawn[first : first + view.numel()].view_as(view))
                first += view.numel()
        return placed[:size]

    @cached_property
    def _critics(self) -> CriticTrainer:
        return CriticTrainer(self.model, self.sizes)

    def _train_critics(self, algorithm: "TRPO", buffer: RolloutBuffer) -> dict[str, float]:
        model, trainer, inputs = self.model, self._critics, self.rows.inputs
        targets = torch.zeros(len(model.critics), self.samples, device=model.device)
        weights = {}
        for index, name in enumerate(model.critics):
            if name == "value" or buffer.entropy:
                mean, std = moments(model, name)
                targets[index] = (getattr(buffer, f"{name}_target").flatten() - mean) / std
                weights[name] = 1.0 if name == "value" else float(getattr(algorithm, "entropy_vf_coef", 0.0))
        group = model.policy.optimizer.param_groups[0]
        settings = CriticSettings(weights, float(group["lr"]), group["betas"], group["eps"])
        view, take = model.arrays.view, model.arrays.take_columns
        totals = dict.fromkeys(weights, torch.zeros((), device=model.device))
        for _ in range(algorithm.n_critic_updates):
            order = view(torch.as_tensor(random_order(*self.shape), device=model.device))
            take(view(self.data[inputs]), order, view(trainer.epoch[: inputs.stop]))
            take(view(targets), order, view(trainer.epoch[inputs.stop :]))
            sums = trainer.train(settings)
            totals = {name: total + sums[name] for name, total in totals.items()}
        count = algorithm.n_critic_updates * len(self.sizes)
        return {f"{name}_loss": total.item() / count for name, total in totals.items()}


class PackedTrustRegionEngine(PackedEngine):
    """Runs MLP actor-critics as one flat vector, the actor's part first, without automatic differentiation.

    Args:
        algorithm: its policy must fit; see :func:`~maxent_onpolicy.engine.packed.fits.why_not_packed`.
    """

    layout = staticmethod(make_split_layout)

    def update(self, algorithm: "TRPO") -> dict[str, float]:  # type: ignore[override]
        """Train on the rollout; return scalars to log."""
        self.model.parameters.adopt(algorithm.policy)
        update = self._update_of(algorithm, algorithm.rollout_buffer)
        assert isinstance(update, TrustRegionUpdate)
        with self._threads(algorithm):
            return update.run(algorithm)

    def _make_update(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, batch_size: int) -> PackedUpdate:
        return TrustRegionUpdate(self.model, buffer, batch_size)
