"""A policy as packed parameters, stacked networks and a packed action distribution."""

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor

from maxent_onpolicy.engine.packed.adam import ClippedAdam
from maxent_onpolicy.engine.packed.arrays import Array, arrays_for
from maxent_onpolicy.engine.packed.distributions import (
    Bernoulli,
    Categorical,
    Gaussian,
    PackedDistribution,
    UnequalCategorical,
    encode_choices,
)
from maxent_onpolicy.engine.packed.layout import Layout, PackedParameters
from maxent_onpolicy.engine.packed.network import StackedMLP
from maxent_onpolicy.engine.packed.squashed import TanhGaussian, encode_squashed
from maxent_onpolicy.policies.distributions import GaussianDistribution, TanhGaussianDistribution

# Which network computes a critic, and which of its outputs it is, depends on the policy; these are the critics.
CRITICS = ("value", "entropy_value")


class PackedNetworks:
    """The networks of policies of one shape, on flat vectors; leading dimensions (``...``) are stacked models.

    Args:
        policy: one of them; gives the shapes, the action distribution and the action space.
        layout: of its parameters.
        flat: parameters ``[..., P]``.
        gradient: ``[..., P]``.

    Attributes:
        policy: as given.
        device: of the vectors.
        arrays: the array library of the device.
        leading: the leading dimensions.
        critics: the critics that the policies have.
        input_rows: rows of the networks' input: the observation and a row of ones.
        action_rows: rows of a stored action.
    """

    def __init__(self, policy: ActorCriticPolicy, layout: Layout, flat: Tensor, gradient: Tensor) -> None:
        self.policy = policy
        self.device = flat.device
        self.arrays = arrays_for(self.device)
        self.leading = tuple(flat.shape[:-1])
        self._layout, self._flat, self._gradient = layout, flat, gradient
        self._stacks = [StackedMLP(stack, flat, gradient, self.arrays) for stack in layout.stacks]
        self._places = self._find_outputs()
        self.critics = tuple(name for name in CRITICS if name in self._places)
        self.input_rows = self._stacks[0].stack.blocks[0].columns
        self.action_rows = self.distribution(1).action_rows
        self._scalars: dict[float, Array] = {}

    def _find_outputs(self) -> dict[str, tuple[StackedMLP, int, slice | int]]:
        """Map "actor", "value" and "entropy_value" to a stack, a network in it and its output rows."""
        places: dict[str, tuple[StackedMLP, int, slice | int]] = {}
        for mlp in self._stacks:
            for index, network in enumerate(mlp.stack.networks):
                if network.name == "actor":
                    places["actor"] = (mlp, index, slice(0, network.heads[0].out_features))
                elif network.name == "entropy_critic":
                    places["entropy_value"] = (mlp, index, 0)
                else:
                    places["value"] = (mlp, index, 0)
                    if len(network.heads) == 2:
                        places["entropy_value"] = (mlp, index, 1)
        return places

    def make(self, *shape: int) -> Array:
        """Allocate zeros ``[..., *shape]``, float32."""
        return self.arrays.view(torch.zeros(*self.leading, *shape, device=self.device))

    def scalar(self, value: float) -> Array:
        """Return a constant as an array, which some operations need; made once a value."""
        if value not in self._scalars:
            self._scalars[value] = self.arrays.view(torch.tensor(value, device=self.device))
        return self._scalars[value]

    def per_model(self, values: Sequence[float]) -> Array:
        """Return one number for each model as an array that broadcasts against ``[..., N]``."""
        tensor = torch.tensor(values, dtype=torch.float32, device=self.device)
        return self.arrays.view(tensor[:, None] if self.leading else tensor[0])

    def distribution(self, columns: int) -> PackedDistribution:
        """Make the policy's action distribution for ``columns`` samples."""
        space = self.policy.action_space
        if isinstance(space, spaces.Discrete):
            return Categorical([int(space.n)], columns, self.arrays, self.make)
        if isinstance(space, spaces.MultiDiscrete):
            choices = [int(n) for n in space.nvec]
            family = Categorical if len(set(choices)) == 1 else UnequalCategorical
            return family(choices, columns, self.arrays, self.make)
        if isinstance(space, spaces.MultiBinary):
            return Bernoulli(get_action_dim(space), columns, self.arrays, self.make)
        action_dim = get_action_dim(space)
        kind, layout = self.policy.action_dist, self._layout
        bounds = kind.log_std_bounds if isinstance(kind, GaussianDistribution) else None
        log_std = gradient = None
        if layout.log_std is not None:
            place = slice(layout.log_std, layout.log_std + action_dim)
            log_std = self.arrays.view(self._flat[..., place, None])
            gradient = self.arrays.view(self._gradient[..., place, None])
        gaussian = TanhGaussian if isinstance(kind, TanhGaussianDistribution) else Gaussian
        return gaussian(action_dim, log_std, gradient, bounds, columns, self.arrays, self.make)

    def encode_action(self, action: Tensor) -> Tensor:
        """Return actions ``[n, A]`` as the distribution's rows ``[action_rows, n]``."""
        space = self.policy.action_space
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            choices = [int(space.n)] if isinstance(space, spaces.Discrete) else space.nvec.tolist()
            return encode_choices(action, choices)
        if isinstance(self.policy.action_dist, TanhGaussianDistribution):
            return encode_squashed(action)
        return action.T

    def output(self, name: str, columns: int) -> Array:
        """Return the view that :meth:`forward` fills: ``[..., O, N]`` for ``"actor"``, ``[..., N]`` for a critic."""
        mlp, index, rows = self._places[name]
        return mlp.buffers(columns)[-1].output[..., index, rows, :]

    def output_delta(self, name: str, columns: int) -> Array:
        """Return where the loss's gradient with respect to that output belongs."""
        mlp, index, rows = self._places[name]
        return mlp.output_delta(columns)[..., index, rows, :]

    def operations(self, columns: int) -> float:
        """Return the floating-point operations of the largest matrix product for ``columns`` samples."""
        return max(2.0 * block.size * columns for mlp in self._stacks for block in mlp.stack.blocks)

    def forward(self, inputs: Array) -> None:
        """Run all networks on ``[..., 1, in + 1, N]`` inputs; see :meth:`output`."""
        for mlp in self._stacks:
            mlp.forward(inputs)

    def critic_stacks(self) -> list[StackedMLP]:
        """Return the networks without the actor, which shares none of them where a layout keeps it apart."""
        return [mlp for mlp in self._stacks if all(network.name != "actor" for network in mlp.stack.networks)]

    def backward(self, inputs_transposed: Array) -> None:
        """Write the gradient of every weight, given each :meth:`output_delta`; ``[..., 1, N, in + 1]``."""
        for mlp in self._stacks:
            mlp.backward(inputs_transposed)


class PackedModel(PackedNetworks):
    """The networks, parameters and optimiser of one policy that fits (see ``fits.py``).

    Args:
        policy: its parameters become views of the flat vector.
        layout: where they lie; default :func:`~maxent_onpolicy.engine.packed.layout.make_layout`.

    Attributes:
        parameters: flat parameters, gradients and moments.
    """

    def __init__(self, policy: ActorCriticPolicy, layout: Layout | None = None) -> None:
        self.parameters = vectors = PackedParameters(policy, layout)
        super().__init__(policy, vectors.layout, vectors.flat, vectors.gradient)
        #: Clips the gradient's norm and makes one step of Adam.
        self.apply_gradient = ClippedAdam(
            vectors.flat, vectors.gradient, vectors.mean, vectors.square, vectors.step, self.arrays
        ).apply

    def actor(self, columns: int) -> "PackedActor":
        """Return the actor alone, for ``columns`` observations at a time."""
        mlp, index, rows = self._places["actor"]
        assert isinstance(rows, slice)
        return PackedActor(mlp, index, rows.stop, self, columns)


def model_kind(model: PackedModel) -> tuple[Any, ...]:
    """Return what models must share to be stacked: device, shapes, action space and action distribution."""
    layout, distribution = model.parameters.layout, model.policy.action_dist
    heads = tuple(
        (network.name, tuple(head.out_features for head in network.heads))
        for stack in layout.stacks
        for network in stack.networks
    )
    stacks = tuple((stack.activation, stack.blocks) for stack in layout.stacks)
    networks = (layout.size, layout.log_std, stacks, heads, str(model.policy.action_space))
    # What tells one action distribution from another.
    plain = {
        name: item for name, item in vars(distribution).items() if isinstance(item, bool | int | float | str | tuple)
    }
    return (model.device, networks, type(distribution), tuple(sorted(plain.items(), key=lambda item: item[0])))


class PackedActor:
    """The actor's network alone, for the rollout, where nothing else is needed.

    Args:
        mlp: the stack that holds it.
        index: its place there.
        outputs: number of its outputs.
        model: the model.
        columns: environments ``B``.
    """

    def __init__(self, mlp: StackedMLP, index: int, outputs: int, model: PackedModel, columns: int) -> None:
        arrays, zero = model.arrays, model.scalar(0.0)
        self._matmul = arrays.matmul
        if mlp.stack.activation == "tanh":
            self._activate = lambda output: arrays.tanh(output, out=output)
        else:
            self._activate = lambda output: arrays.maximum(output, zero, out=output)
        weights = [block.view(model.parameters.flat)[..., index, :, :] for block in mlp.stack.blocks]
        weights[-1] = weights[-1][..., :outputs, :]
        inputs = torch.ones(weights[0].shape[-1], columns, device=model.device)
        self._observation = arrays.view(inputs[:-1].mT)
        layers = []
        for weight in weights:
            padded = torch.ones(weight.shape[-2] + 1, columns, device=model.device)
            layers.append((arrays.view(weight), arrays.view(inputs), arrays.view(padded[:-1])))
            inputs = padded
        *self._hidden, self._last = layers

    def __call__(self, observation: Array) -> Array:
        """Return the distribution's parameters ``[O, B]`` for observations ``[B, in]``; valid until the next call."""
        self._observation[...] = observation
        for weight, inputs, output in self._hidden:
            self._matmul(weight, inputs, out=output)
            self._activate(output)
        weight, inputs, output = self._last
        self._matmul(weight, inputs, out=output)
        return output
