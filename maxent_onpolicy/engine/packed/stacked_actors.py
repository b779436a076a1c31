"""Actors of several models as one, in torch: one batched product a layer, and random numbers from each one's generator.

Every operation is the one that the policy's own modules and distributions make, with a
leading dimension; only the draws are made model by model.
"""

from collections.abc import Callable, Sequence

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor
from torch.nn import functional as F

from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.policies.distributions import GaussianDistribution, TanhGaussianDistribution

Draw = Callable[[Tensor, torch.Generator], object]


class StackedActors:
    """The actors of ``S`` models of one kind, with their parameters of this moment.

    Args:
        models: of one ``model_kind``.
        generators: for each, of its action noise; on the models' device.
    """

    def __init__(self, models: Sequence[PackedModel], generators: Sequence[torch.Generator]) -> None:
        self._generators = generators
        self._policy = models[0].policy
        layout = models[0].parameters.layout
        flat = torch.stack([model.parameters.flat for model in models])
        place = layout.find("actor")
        assert place is not None
        stack, index = place
        weights = [block.view(flat)[:, index] for block in stack.blocks]
        weights[-1] = weights[-1][:, : stack.networks[index].heads[0].out_features]
        self._layers = [(weight[..., -1].unsqueeze(1), weight[..., :-1].mT) for weight in weights]
        self._activate = torch.tanh if stack.activation == "tanh" else torch.relu
        self._std: Tensor | None = None
        if layout.log_std is not None:
            self._std = self._std_of(flat[:, None, layout.log_std : layout.log_std + layout.action_dim])

    def parameters(self, observation: Tensor) -> Tensor:
        """Return the distributions' parameters ``[S, B, O]`` for observations ``[S·B, ...]``."""
        values = observation.float().reshape(len(self._generators), -1, self._layers[0][1].shape[1])
        *hidden, (bias, weight) = self._layers
        for each_bias, each_weight in hidden:
            values = self._activate(torch.baddbmm(each_bias, values, each_weight))
        return torch.baddbmm(bias, values, weight)

    def sample(self, parameters: Tensor) -> Tensor:
        """Return actions ``[S·B, ...]`` as the policies would sample them."""
        space = self._policy.action_space
        if isinstance(space, spaces.Discrete):
            actions = self._choose(parameters)
        elif isinstance(space, spaces.MultiDiscrete):
            parts = parameters.split(space.nvec.tolist(), dim=-1)
            actions = torch.stack([self._choose(part) for part in parts], dim=-1)
        elif isinstance(space, spaces.MultiBinary):
            actions = self._flip(parameters.sigmoid())
        else:
            actions = self._sample_gaussian(parameters)
        return actions.reshape(-1, *(space.shape or ()))

    def std(self, parameters: Tensor) -> Tensor | None:
        """Return standard deviations for parameters ``[T, S·B, O]``: ``[T, S·B, A]``, or ``[1, S, A]`` if free of them.

        ``None`` if actions are not Gaussian.
        """
        if not isinstance(self._policy.action_space, spaces.Box):
            return None
        if self._std is not None:
            return self._std.transpose(0, 1)
        return self._std_of(parameters[..., get_action_dim(self._policy.action_space) :])

    def _draw(self, like: Tensor, draw: Draw) -> Tensor:
        noise = torch.empty(like.shape, device=like.device)
        for part, generator in zip(noise.unbind(), self._generators, strict=True):
            draw(part, generator)
        return noise

    def _choose(self, logits: Tensor) -> Tensor:
        """Return the choices ``[S, B]`` with the largest ``p/q``, ``q`` exponential: how torch draws single samples."""
        probability = F.softmax(logits - logits.logsumexp(dim=-1, keepdim=True), dim=-1)
        noise = self._draw(logits, lambda part, generator: part.exponential_(generator=generator))
        return (probability / noise).argmax(dim=-1)

    def _flip(self, probability: Tensor) -> Tensor:
        # torch draws them from the probabilities themselves.
        parts = zip(probability.unbind(), self._generators, strict=True)
        return torch.stack([torch.bernoulli(part, generator=generator) for part, generator in parts])

    def _sample_gaussian(self, parameters: Tensor) -> Tensor:
        action_dim = get_action_dim(self._policy.action_space)
        mean, rest = parameters[..., :action_dim], parameters[..., action_dim:]
        std = self._std_of(rest) if self._std is None else self._std
        noise = self._draw(mean, lambda part, generator: part.normal_(generator=generator))
        actions = mean + noise * std
        if not isinstance(self._policy.action_dist, TanhGaussianDistribution):
            return actions
        limit = 1.0 - torch.finfo(actions.dtype).eps
        return actions.tanh().clamp(-limit, limit)

    def _std_of(self, raw: Tensor) -> Tensor:
        kind = self._policy.action_dist
        return (kind.bound(raw) if isinstance(kind, GaussianDistribution) else raw).exp()
