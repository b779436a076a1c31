"""Which networks a policy consists of, and where their parameters lie in one flat vector."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu"}


@dataclass(frozen=True)
class Network:
    """One MLP of a policy.

    Attributes:
        name: ``"actor"``, ``"critic"`` or ``"entropy_critic"``.
        hidden: its hidden linear layers, first to last.
        heads: its output layers; their rows follow one another in one output.
        activation: a value of ``ACTIVATIONS``; between the layers.
    """

    name: str
    hidden: tuple[nn.Linear, ...]
    heads: tuple[nn.Linear, ...]
    activation: str

    @property
    def shape(self) -> tuple[object, ...]:
        """What networks must share to be stacked: activation, input size and hidden sizes."""
        first = (*self.hidden, self.heads[0])[0]
        return (self.activation, first.in_features, *(layer.out_features for layer in self.hidden))


@dataclass(frozen=True)
class Block:
    """A layer of ``K`` stacked networks: ``[K, out, in + 1]`` in the flat vector, the bias as its last column."""

    start: int
    networks: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.networks * self.rows * self.columns

    def view(self, flat: Tensor) -> Tensor:
        """Return the block ``[..., K, out, in + 1]`` of flat vectors ``[..., P]``."""
        part = flat[..., self.start : self.start + self.size]
        return part.unflatten(-1, (self.networks, self.rows, self.columns))


@dataclass(frozen=True)
class Stack:
    """``K`` networks of the same shape, which one batched product serves.

    Attributes:
        networks: in the order in which they are stacked.
        blocks: one for each layer. The output layers are padded with zero rows to the widest.
    """

    networks: tuple[Network, ...]
    blocks: tuple[Block, ...]

    @property
    def activation(self) -> str:
        """Of the hidden layers."""
        return self.networks[0].activation


@dataclass
class Layout:
    """Where every parameter of a policy lies.

    Attributes:
        stacks: the networks.
        log_std: start of the free log standard deviations ``[A]``, or ``None``.
        action_dim: ``A``, for ``log_std``.
        size: length ``P`` of the flat vector.
        actor_size: length of its beginning that the actor takes up alone; ``None`` where it is stacked with critics.
    """

    stacks: list[Stack] = field(default_factory=list)
    log_std: int | None = None
    action_dim: int = 0
    size: int = 0
    actor_size: int | None = None

    def find(self, name: str) -> tuple[Stack, int] | None:
        """Return the stack that holds a network, and its place there."""
        for stack in self.stacks:
            for index, network in enumerate(stack.networks):
                if network.name == name:
                    return stack, index
        return None

    def views(self, policy: ActorCriticPolicy, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield every parameter with its view of ``flat`` ``[P]``."""
        for stack in self.stacks:
            for index, network in enumerate(stack.networks):
                for layer, block in zip(network.hidden, stack.blocks, strict=False):
                    yield from _linear_views(layer, block.view(flat)[index])
                rows = stack.blocks[-1].view(flat)[index]
                for head in network.heads:
                    yield from _linear_views(head, rows[: head.out_features])
                    rows = rows[head.out_features :]
        if self.log_std is not None:
            yield policy.log_std, flat[self.log_std : self.log_std + self.action_dim]


def _linear_views(layer: nn.Linear, block: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
    assert isinstance(layer.bias, nn.Parameter)
    yield layer.weight, block[:, :-1]  # type: ignore[misc]
    yield layer.bias, block[:, -1]


def networks_of(policy: ActorCriticPolicy) -> list[Network]:
    """List the MLPs of a policy that fits (see ``fits.py``)."""
    extractor = policy.mlp_extractor
    activation = _activation(extractor.policy_net, extractor.value_net)
    actor = Network("actor", _linears(extractor.policy_net), (policy.action_net,), activation)  # type: ignore[arg-type]
    critic_heads = [policy.value_net]
    networks = [actor]
    entropy_head = getattr(policy, "entropy_value_net", None)
    trunk = getattr(policy, "entropy_trunk", None)
    if entropy_head is not None and trunk is None:
        critic_heads.append(entropy_head)
    networks.append(Network("critic", _linears(extractor.value_net), tuple(critic_heads), activation))
    if entropy_head is not None and trunk is not None:
        networks.append(Network("entropy_critic", _linears(trunk), (entropy_head,), activation))
    return networks


def make_layout(policy: ActorCriticPolicy) -> Layout:
    """Stack the networks of a policy by shape and assign them places."""
    groups: dict[tuple[object, ...], list[Network]] = {}
    for network in networks_of(policy):
        groups.setdefault(network.shape, []).append(network)
    layout = Layout()
    _place_networks(layout, groups.values())
    _place_log_std(layout, policy)
    return layout


def make_split_layout(policy: ActorCriticPolicy) -> Layout:
    """Place the actor's parameters first and the critics' after them, for algorithms that train the two apart."""
    actor, *critics = networks_of(policy)
    layout = Layout()
    _place_networks(layout, [[actor]])
    _place_log_std(layout, policy)
    layout.actor_size = layout.size
    groups: dict[tuple[object, ...], list[Network]] = {}
    for network in critics:
        groups.setdefault(network.shape, []).append(network)
    # Room for the entropy critic's output also where there is none: products of one shape round alike.
    _place_networks(layout, groups.values(), least_outputs=2)
    return layout


def _place_networks(layout: Layout, groups: Iterable[list[Network]], least_outputs: int = 1) -> None:
    for networks in groups:
        blocks = []
        inputs = (*networks[0].hidden, networks[0].heads[0])[0].in_features
        widths = [layer.out_features for layer in networks[0].hidden]
        sizes = [sum(head.out_features for head in network.heads) for network in networks]
        outputs = max(least_outputs, *sizes)
        for width in (*widths, outputs):
            block = Block(layout.size, len(networks), width, inputs + 1)
            blocks.append(block)
            layout.size += block.size
            inputs = width
        layout.stacks.append(Stack(tuple(networks), tuple(blocks)))


def _place_log_std(layout: Layout, policy: ActorCriticPolicy) -> None:
    if isinstance(getattr(policy, "log_std", None), nn.Parameter):
        layout.log_std, layout.action_dim = layout.size, policy.log_std.numel()
        layout.size += layout.action_dim


class PackedParameters:
    """A policy's parameters, gradients and Adam's moments, each one flat vector ``[P]``.

    The policy's own parameters become views of ``flat``, its optimiser's moments
    views of ``mean`` and ``square``: ``state_dict``, saving and every consumer of the
    modules see ordinary tensors.

    Args:
        policy: one that fits (see ``fits.py``).
        layout: where they lie; default :func:`make_layout`.
    """

    def __init__(self, policy: ActorCriticPolicy, layout: Layout | None = None) -> None:
        self.layout = layout or make_layout(policy)
        device = next(policy.parameters()).device
        self.flat, self.gradient, self.mean, self.square = (
            torch.zeros(self.layout.size, device=device) for _ in range(4)
        )
        self.step = torch.zeros((), device=device)
        self.adopt(policy)

    @torch.no_grad()
    def adopt(self, policy: ActorCriticPolicy) -> None:
        """Take over parameters and moments that are not views yet: after construction, loading or a device move."""
        for parameter, view in self.layout.views(policy, self.flat):
            if not _same_memory(parameter, view):
                view.copy_(parameter)
                parameter.data = view
        for name, vector in (("exp_avg", self.mean), ("exp_avg_sq", self.square)):
            for parameter, view in self.layout.views(policy, vector):
                state = policy.optimizer.state[parameter]
                if name not in state:
                    view.zero_()
                elif not _same_memory(state[name], view):
                    view.copy_(state[name])
                state[name] = view
        states = [policy.optimizer.state[parameter] for parameter, _ in self.layout.views(policy, self.flat)]
        steps = max((state["step"].item() for state in states if "step" in state), default=0.0)
        self.step.fill_(steps)
        for state in states:  # other engines leave out parameters that have no gradient
            state.setdefault("step", torch.tensor(steps))

    def publish(self, policy: ActorCriticPolicy) -> None:
        """Tell the policy's optimiser how many steps were made."""
        step = self.step.item()
        for parameter, _ in self.layout.views(policy, self.flat):
            policy.optimizer.state[parameter]["step"].fill_(step)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.device == b.device


def _linears(module: nn.Module) -> tuple[nn.Linear, ...]:
    return tuple(layer for layer in module.children() if isinstance(layer, nn.Linear))


def _activation(*modules: nn.Module) -> str:
    kinds = {type(layer) for module in modules for layer in module.children() if not isinstance(layer, nn.Linear)}
    return ACTIVATIONS[kinds.pop()] if kinds else "tanh"
