"""The parameters that a loss reaches, and Adam's moments, each as one flat vector."""

import math
from dataclasses import dataclass

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

ALIGNMENT = 16  # elements: every parameter starts at a multiple of 64 bytes, as kernels like it


@dataclass(frozen=True)
class Place:
    """Where a parameter lies in the flat vectors."""

    name: str
    parameter: nn.Parameter
    start: int

    @property
    def stop(self) -> int:
        """First element after it."""
        return self.start + self.parameter.numel()

    def view(self, vector: Tensor) -> Tensor:
        """Return its view of a flat vector."""
        return vector[self.start : self.stop].view(self.parameter.shape)


class FlatParameters:
    """Parameters and Adam's moments as three vectors ``[P]``.

    The policy's own parameters become views of ``flat`` and its optimiser's moments
    views of ``mean`` and ``square``: ``state_dict``, saving and every consumer of the
    modules see ordinary tensors.

    Args:
        policy: whose optimiser is an Adam with one group of parameters.
        names: the parameters that the loss reaches. Adam leaves all others, which have no gradient, alone.
    """

    def __init__(self, policy: ActorCriticPolicy, names: list[str]) -> None:
        self.names = names
        self.places: list[Place] = []
        size = 0
        parameters = dict(policy.named_parameters())
        for name in names:
            self.places.append(Place(name, parameters[name], size))
            size += math.ceil(parameters[name].numel() / ALIGNMENT) * ALIGNMENT
        device = next(policy.parameters()).device
        self.flat, self.mean, self.square = (torch.zeros(size, device=device) for _ in range(3))
        self.steps = 0
        self.adopt(policy)

    @torch.no_grad()
    def adopt(self, policy: ActorCriticPolicy) -> None:
        """Take over parameters and moments that are not views yet: after construction, loading or a device move."""
        for place in self.places:
            parameter, view = place.parameter, place.view(self.flat)
            if not _same_memory(parameter, view):
                view.copy_(parameter)
                parameter.data = view
            state = policy.optimizer.state[parameter]
            for name, vector in (("exp_avg", self.mean), ("exp_avg_sq", self.square)):
                view = place.view(vector)
                if name not in state:
                    view.zero_()
                elif not _same_memory(state[name], view):
                    view.copy_(state[name])
                state[name] = view
            if "step" not in state:
                state["step"] = torch.tensor(0.0)
            self.steps = int(state["step"].item())

    def publish(self, policy: ActorCriticPolicy) -> None:
        """Tell the policy's optimiser how many steps were made."""
        for place in self.places:
            policy.optimizer.state[place.parameter]["step"].fill_(float(self.steps))

    def flatten(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Return the parameters' gradients as one vector ``[P]``."""
        parts = []
        for gradient in gradients:
            parts.append(gradient.flatten())
            padding = -gradient.numel() % ALIGNMENT
            if padding:
                parts.append(gradient.new_zeros(padding))
        return torch.cat(parts)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.device == b.device
