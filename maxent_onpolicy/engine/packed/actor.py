"""The actor by itself: its surrogate's gradient and Fisher-vector products without automatic differentiation.

A product of the Fisher information with a vector ``v`` is ``Jᵀ·M·J·v``: a forward pass that carries the change which
``v`` makes (``J·v``), the distribution's own small matrices ``M``, and a backward pass (``Jᵀ``).
"""

import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.curvature import make_curvature
from maxent_onpolicy.engine.packed.layout import Layout
from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.estimators.trust_region import KLReduction

# Columns of one part of the rollout: its activations stay in a processor's cache.
COLUMNS = 2048


class ActorColumns:
    """The actor on some of the rollout's columns, with memory for its passes.

    Args:
        model: whose actor lies at the beginning of the flat vector.
        inputs: observations and a row of ones, ``[in + 1, N]``.
        action: stored actions, ``[action_rows, N]``.
        reduction: of the KL divergence over the action's dimensions.
    """

    def __init__(self, model: PackedModel, inputs: Tensor, action: Tensor, reduction: KLReduction) -> None:
        self.columns = inputs.shape[1]
        self._model, self._inputs, self._action = model, inputs, action
        self._layout: Layout = model.parameters.layout
        stack = self._layout.stacks[0]
        self._tanh = stack.activation == "tanh"
        self._blocks = stack.blocks
        self._own = self._weights(model.parameters.flat)
        make, widths = inputs.new_zeros, [block.rows for block in stack.blocks]
        self._padded = [inputs.new_ones(width + 1, self.columns) for width in widths]
        self._slopes = [make(width, self.columns) for width in widths[:-1]]
        self._changes = [make(width, self.columns) for width in widths]
        self._scratch = [make(width, self.columns) for width in widths]
        self._distribution = model.distribution(self.columns)
        self.curvature = make_curvature(model.policy, reduction)

    @property
    def parameters(self) -> Tensor:
        """The distribution's parameters ``[O, N]`` after the last :meth:`forward`."""
        return self._padded[-1][:-1]

    def _weights(self, flat: Tensor) -> list[Tensor]:
        return [block.view(flat)[0] for block in self._blocks]

    def forward(self) -> None:
        """Run the network with the parameters as they are now."""
        below = self._inputs
        for index, weight in enumerate(self._own):
            output = self._padded[index][:-1]
            torch.mm(weight, below, out=output)
            if index < len(self._slopes):
                torch.tanh(output, out=output) if self._tanh else torch.relu_(output)
            below = self._padded[index]

    def log_prob(self) -> Tensor:
        """Return log-probabilities ``[N]`` of the actions after the last :meth:`forward`."""
        view = self._model.arrays.view
        return torch.as_tensor(self._distribution.log_prob(view(self.parameters), view(self._action)))

    def expand_around(self) -> None:
        """Take the policy of the last :meth:`forward` as the point where divergences and products are taken."""
        self.curvature.remember(self.parameters)
        for slope, padded in zip(self._slopes, self._padded, strict=False):
            output = padded[:-1]
            torch.mul(output, output, out=slope).neg_().add_(1.0) if self._tanh else torch.sign(output, out=slope)

    def add_surrogate_gradient(self, weight: Tensor, gradient: Tensor) -> None:
        """Add the gradient of ``Σ_n weight_n·log π_n``, of the last :meth:`log_prob`, to ``gradient`` ``[P]``."""
        view, delta, layout = self._model.arrays.view, self._changes[-1], self._layout
        self._distribution.backward(view(weight), 0.0, view(delta))
        self._backward(delta, gradient)
        if layout.log_std is not None:
            place = slice(layout.log_std, layout.log_std + layout.action_dim)
            gradient[place] += self._model.parameters.gradient[place]

    def add_fisher_product(self, vector: Tensor, gradient: Tensor) -> None:
        """Add the sum over samples of their Fisher information times ``vector`` ``[P]`` to ``gradient`` ``[P]``."""
        below, change = self._inputs, None
        pairs = zip(self._own, self._weights(vector), strict=True)
        for index, (weight, weight_change) in enumerate(pairs):
            output = self._changes[index]
            torch.mm(weight_change, below, out=output)
            if change is not None:
                output.addmm_(weight[:, :-1], change)
            if index < len(self._slopes):
                output *= self._slopes[index]
            below, change = self._padded[index], output
        layout = self._layout
        place = None if layout.log_std is None else slice(layout.log_std, layout.log_std + layout.action_dim)
        extra = self.curvature.apply(self._changes[-1], None if place is None else vector[place])
        if place is not None and extra is not None:
            gradient[place] += extra
        self._backward(self._changes[-1], gradient)

    def _backward(self, delta: Tensor, gradient: Tensor) -> None:
        weights, gradients = self._own, self._weights(gradient)
        for index in range(len(weights) - 1, -1, -1):
            below = self._inputs if index == 0 else self._padded[index - 1]
            gradients[index].addmm_(delta, below.mT)
            if index > 0:
                lower = self._scratch[index - 1]
                torch.mm(weights[index][:, :-1].mT, delta, out=lower)
                lower *= self._slopes[index - 1]
                delta = lower


class RolloutActor:
    """The actor on all columns of a rollout.

    Args:
        model: whose actor lies at the beginning of the flat vector.
        inputs: ``[in + 1, n]``.
        action: ``[action_rows, n]``.
        reduction: of the KL divergence over the action's dimensions.

    Attributes:
        parameters: the actor's part of the flat vector, ``[P]``.
    """

    def __init__(self, model: PackedModel, inputs: Tensor, action: Tensor, reduction: KLReduction) -> None:
        size = model.parameters.layout.actor_size
        assert size is not None
        self.parameters = model.parameters.flat[:size]
        self._samples = inputs.shape[1]
        self._parts = [
            ActorColumns(model, inputs[:, first : first + COLUMNS], action[:, first : first + COLUMNS], reduction)
            for first in range(0, self._samples, COLUMNS)
        ]

    def surrogate(self, old_log_prob: Tensor, advantage: Tensor) -> tuple[float, Tensor]:
        """Return ``E[π/π_old·A]`` and its gradient ``[P]`` where the actor is; products are taken around that point."""
        total, gradient = torch.zeros((), device=advantage.device), torch.zeros_like(self.parameters)
        for part, old, own in zip(self._parts, old_log_prob.split(COLUMNS), advantage.split(COLUMNS), strict=True):
            part.forward()
            weight = (part.log_prob() - old).exp_().mul_(own)
            total += weight.sum()
            part.expand_around()
            part.add_surrogate_gradient(weight.div_(self._samples), gradient)
        return (total / self._samples).item(), gradient

    def evaluate(self, old_log_prob: Tensor, advantage: Tensor) -> tuple[float, float]:
        """Return the surrogate and the mean KL divergence where the actor is now."""
        sums = torch.zeros(2, device=advantage.device)
        for part, old, own in zip(self._parts, old_log_prob.split(COLUMNS), advantage.split(COLUMNS), strict=True):
            part.forward()
            sums[0] += (part.log_prob() - old).exp_().mul_(own).sum()
            sums[1] += part.curvature.kl(part.parameters).sum()
        objective, kl = (sums / self._samples).tolist()
        return objective, kl

    def fisher_product(self, vector: Tensor) -> Tensor:
        """Return the Fisher information, averaged over the samples, times ``vector`` ``[P]``."""
        result = torch.zeros_like(vector)
        for part in self._parts:
            part.add_fisher_product(vector, result)
        return result.div_(self._samples)
