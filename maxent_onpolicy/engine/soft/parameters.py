"""A model's networks as flat vectors: parameters, gradients and Adam's moments."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maxent_onpolicy.engine.soft.networks import ACTIVATIONS, Shape

# For each network its layers; the actor's last one has two modules, whose rows follow one another.
Networks = list[list[list[nn.Linear]]]


def linears(module: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of an ``nn.Sequential``."""
    return [layer for layer in module.children() if isinstance(layer, nn.Linear)]


def actor_networks(actor: Any) -> Networks:
    """Return the layers of SB3's SAC actor; the output is the Gaussian's mean and logarithmic deviation."""
    return [[*([layer] for layer in linears(actor.latent_pi)), [actor.mu, actor.log_std]]]


def critic_networks(critic: Any) -> Networks:
    """Return the layers of SB3's ``ContinuousCritic``."""
    return [[[layer] for layer in linears(network)] for network in critic.q_networks]


def shape_of(networks: Networks, activation_fn: type[nn.Module]) -> Shape:
    """Return the shape that the networks share."""
    layers = networks[0]
    widths = (layers[0][0].in_features, *(sum(part.out_features for part in layer) for layer in layers))
    return Shape(len(networks), widths, ACTIVATIONS[activation_fn])


class FlatNetworks:
    """Parameters of stacked networks in one vector; the modules' own become views of it.

    Saving, loading, ``state_dict`` and every other consumer see ordinary modules.

    Args:
        networks: the modules.
        shape: theirs.
    """

    def __init__(self, networks: Networks, shape: Shape) -> None:
        self.shape = shape
        self.networks = networks
        self.flat = torch.zeros(shape.size, device=networks[0][0][0].weight.device)
        self._places = list(self.views(self.flat))
        self.adopt()

    def views(self, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield every parameter with its view of ``flat`` ``[P]``."""
        for index, (weight, bias) in enumerate(self.shape.layers(flat)):
            for network, layers in enumerate(self.networks):
                start = 0
                for part in layers[index]:
                    end = start + part.out_features
                    assert isinstance(part.bias, nn.Parameter)
                    yield part.weight, weight[network, start:end]  # type: ignore[misc]
                    yield part.bias, bias[network, start:end]
                    start = end

    @torch.no_grad()
    def adopt(self) -> None:
        """Take over parameters that are not views yet."""
        for parameter, view in self._places:
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter)
                parameter.data = view

    def is_attached(self) -> bool:
        """Whether the modules' parameters still are views of the vector."""
        return all(parameter.data_ptr() == view.data_ptr() for parameter, view in self._places)


class TrainedNetworks(FlatNetworks):
    """:class:`FlatNetworks` with gradients and the moments of their Adam, whose state becomes views too.

    Args:
        networks: the modules.
        shape: theirs.
        optimizer: holds exactly their parameters.
    """

    def __init__(self, networks: Networks, shape: Shape, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(networks, shape)
        self.optimizer = optimizer
        self.gradient, self.mean, self.square = (torch.zeros_like(self.flat) for _ in range(3))
        self._step = torch.zeros((), device=self.flat.device)
        self._rate = Rate(self.flat.device)
        self._lists: tuple[list[Tensor], ...] = (
            *([vector] for vector in (self.flat, self.gradient, self.mean, self.square)),
            [],
            [self._step],
        )
        self._states: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        self._adopt_moments()

    @torch.no_grad()
    def _adopt_moments(self) -> None:
        means, squares = dict(self.views(self.mean)), dict(self.views(self.square))
        for parameter, _ in self._places:
            state = self.optimizer.state[parameter]
            for name, view in (("exp_avg", means[parameter]), ("exp_avg_sq", squares[parameter])):
                if name in state:
                    view.copy_(state[name])
                state[name] = view
            state.setdefault("step", torch.tensor(0.0))
            self._steps_made = float(state["step"])
            self._step.fill_(self._steps_made)
            self._states.append((state, state["exp_avg"], state["exp_avg_sq"]))

    def is_attached(self) -> bool:
        """Whether modules and optimiser still share memory with the vectors."""
        current = self.optimizer.state
        return super().is_attached() and all(
            current[parameter] is state and state.get("exp_avg") is mean and state.get("exp_avg_sq") is square
            for (parameter, _), (state, mean, square) in zip(self._places, self._states, strict=True)
        )

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What a step changes."""
        return self.flat, self.mean, self.square, self._step

    @property
    def constants(self) -> tuple[Any, ...]:
        """Python values that a step reads."""
        return adam_constants(self.optimizer.param_groups[0])

    def begin(self, on_device: bool) -> None:
        """Read the learning rate for a series of steps.

        Args:
            on_device: whether steps are to find it in a tensor, where recorded steps see it change.
        """
        self._rate.take(self.optimizer.param_groups[0], on_device)

    def step(self) -> None:
        """Make a step of Adam with the gradient that lies there, as torch's own on each parameter would."""
        self._step += 1
        adam_step(self._lists, self.optimizer.param_groups[0], self._rate)

    def publish(self, steps: int) -> None:
        """Tell the optimiser that so many steps were made; counted here, because a device would have to be asked."""
        self._steps_made += steps
        for state, _, _ in self._states:
            state["step"].fill_(self._steps_made)


class Rate:
    """The learning rate of a series of steps: a number, or a tensor that keeps its place.

    Args:
        device: of the tensor.

    Attributes:
        value: what ``torch._fused_adam_`` takes.
    """

    def __init__(self, device: torch.device) -> None:
        self._tensor = torch.zeros((), device=device)
        self._held = 0.0
        self.value: float | Tensor = 0.0

    def take(self, options: dict[str, Any], on_device: bool) -> None:
        """Read it from a parameter group of ``torch.optim.Adam``."""
        rate = float(options["lr"])
        if on_device and rate != self._held:
            self._tensor.fill_(rate)
            self._held = rate
        self.value = self._tensor if on_device else rate


def adam_constants(options: dict[str, Any]) -> tuple[Any, ...]:
    """Return the Python values that :func:`adam_step` reads of a parameter group."""
    return tuple(float(beta) for beta in options["betas"]), float(options["eps"])


def adam_step(lists: tuple[list[Tensor], ...], options: dict[str, Any], rate: Rate) -> None:
    """Make a fused step.

    Args:
        lists: parameters, gradients, moments, the moments' maxima (unused) and steps.
        options: a parameter group of ``torch.optim.Adam``.
        rate: its learning rate.
    """
    beta1, beta2 = options["betas"]
    torch._fused_adam_(
        *lists,
        lr=rate.value,
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=options["eps"],
        amsgrad=False,
        maximize=False,
    )
