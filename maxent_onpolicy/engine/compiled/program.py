"""One minibatch step (forward, loss, backward, clipping, Adam) as a single traced function of tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from maxent_onpolicy.engine.buffer import Minibatch
from maxent_onpolicy.engine.compiled.observed import Guard, NotTraceableError, Observed, without_traces
from maxent_onpolicy.engine.compiled.parameters import FlatParameters

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO

# What every program takes as numbers, beside the attributes that the loss reads.
NUMBERS = ("clip_range", "clip_range_high", "clip_range_vf", "max_grad_norm", "kl_limit")


@dataclass
class Accumulators:
    """What the steps of an epoch write down on the device.

    Attributes:
        sums: ``[K + 1]``; over the minibatches that count, of each metric; the last element counts them.
        last: ``[K]``; metrics of the last minibatch that counted.
        active: scalar; 1 until the KL divergence is too large, then 0, which makes the remaining steps do nothing.
    """

    sums: Tensor
    last: Tensor
    active: Tensor

    @classmethod
    def zeros(cls, metrics: int, device: torch.device) -> "Accumulators":
        """Allocate those for ``K`` metrics, inactive."""
        return cls(*(torch.zeros(shape, device=device) for shape in ((metrics + 1,), (metrics,), ())))

    def start(self) -> None:
        """Begin an epoch."""
        self.sums.zero_()
        self.active.fill_(1.0)


class Probe:
    """What one eager evaluation of the loss shows of a model, before anything is traced.

    Args:
        algorithm: the model.
        batch: some minibatch.
        clip: the clip ranges in force.

    Attributes:
        names: the parameters that the loss reaches.
        metrics: the names of what it reports.
        numbers: the floats among the algorithm's attributes that it reads: inputs of the program.
        guard: all else that it reads.

    Raises:
        NotTraceableError: if the loss or the policy does more than tensor operations.
    """

    def __init__(self, algorithm: "PPO", batch: Minibatch, clip: "ClipRanges") -> None:
        policy = algorithm.policy
        observed = Observed(algorithm)
        trainable = {name: value for name, value in policy.named_parameters() if value.requires_grad}
        buffers = {value: value.clone() for value in policy.buffers()}
        # The parameters are the policy's own: were one beyond the reach of `replaced`, tracing would fail, not pass.
        with side_effects_undone(algorithm), replaced(policy, buffers), torch.enable_grad():
            loss, metrics = observed.stand_in._loss(batch, clip)
            gradients = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
        observed.check_unchanged()
        if "approx_kl" not in metrics:
            raise NotTraceableError(f"{type(algorithm).__name__}'s loss, which does not report `approx_kl`")
        self.names = [name for name, gradient in zip(trainable, gradients, strict=True) if gradient is not None]
        self.metrics = list(metrics)
        self.numbers = sorted(name for name, value in observed.reads.items() if isinstance(value, float))
        self.guard = Guard(algorithm, {k: v for k, v in observed.reads.items() if k not in self.numbers})


@contextmanager
def replaced(policy: nn.Module, tensors: dict[Tensor, Tensor]) -> Iterator[None]:
    """Put other tensors in the place of a policy's parameters and buffers, wherever its modules share them."""
    owners: list[dict[str, Any]] = [
        owner for module in policy.modules() for owner in (module._parameters, module._buffers)
    ]
    originals = [dict(owner) for owner in owners]
    try:
        for owner, original in zip(owners, originals, strict=True):
            owner.update({name: tensors[value] for name, value in original.items() if value in tensors})
        yield
    finally:
        for owner, original in zip(owners, originals, strict=True):
            owner.update(original)


@contextmanager
def side_effects_undone(algorithm: "PPO") -> Iterator[None]:
    """Let a loss be computed for inspection: no random number is used up, nothing is left in the policy."""
    device = algorithm.device
    validate = torch.distributions.Distribution._validate_args
    # Whether parameters are valid is a question about their values, which a trace does not have.
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), without_traces(algorithm.policy):
            yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(validate)


class StepFunction:
    """The minibatch step as a function of tensors only, to be traced.

    Its arguments are ``(flat, mean, square, sums, last, active, numbers, adam, *buffers, *batch)``, of which the first
    six and the buffers are updated in place. ``adam`` holds the step size and the root of the second moment's bias
    correction; ``numbers`` holds ``NUMBERS`` and those of the probe.

    Args:
        algorithm: the model.
        probe: of it.
        parameters: its flat vectors.
        like: a minibatch, which says what fields there are.
        clip: says whether values are clipped.
    """

    def __init__(
        self, algorithm: "PPO", probe: Probe, parameters: FlatParameters, like: Minibatch, clip: "ClipRanges"
    ) -> None:
        self.algorithm, self.probe, self.parameters = algorithm, probe, parameters
        self.like, self.clip = like, clip
        self.buffers = [name for name, _ in algorithm.policy.named_buffers()]
        group = algorithm.policy.optimizer.param_groups[0]
        self.betas, self.epsilon, self.weight_decay = group["betas"], group["eps"], group["weight_decay"]

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Make the step; returns whether it was made."""
        flat, mean, square, sums, last, active, numbers, adam, *rest = tensors
        old_buffers = dict(zip(self.buffers, rest, strict=False))
        new_buffers = {name: value.clone() for name, value in old_buffers.items()}
        batch = unflatten(self.like, rest[len(self.buffers) :])
        named = dict(zip((*NUMBERS, *self.probe.numbers), numbers.unbind(), strict=True))
        loss_metrics, gradient = self._gradient(flat, new_buffers, batch, named)

        seen = active > 0
        row = torch.stack([loss_metrics[name].detach().float() for name in self.probe.metrics])
        counted = torch.cat([row, row.new_ones(1)])
        sums.add_(torch.where(seen, counted, torch.zeros_like(counted)))
        last.copy_(torch.where(seen, row, last))
        # As the eager loop: the minibatch that shows too large a divergence is reported, but no step is made.
        step = seen & ~(loss_metrics["approx_kl"] > named["kl_limit"])
        for name, new in new_buffers.items():
            # The forward pass may have moved them: batch normalisation's statistics, for instance.
            old_buffers[name].copy_(torch.where(seen, new, old_buffers[name]))
        self._adam(step, flat, mean, square, clip_norm(gradient, named["max_grad_norm"]), adam)
        active.copy_(step.to(active.dtype))
        return step

    def _gradient(
        self, flat: Tensor, buffers: dict[str, Tensor], batch: Minibatch, named: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        places = self.parameters.places
        leaves = {place.name: place.view(flat).detach().requires_grad_() for place in places}
        observed = Observed(self.algorithm, {name: named[name] for name in self.probe.numbers})
        ranges = {"policy": "clip_range", "high": "clip_range_high", "value": "clip_range_vf"}
        given = {field: named[name] for field, name in ranges.items() if getattr(self.clip, field) is not None}
        clip = self.clip._replace(**given)  # type: ignore[arg-type]
        policy = self.algorithm.policy
        tensors: dict[Tensor, Tensor] = {place.parameter: leaves[place.name] for place in places}
        tensors |= {value: buffers[name] for name, value in policy.named_buffers()}
        with replaced(policy, tensors), torch.enable_grad():
            loss, metrics = observed.stand_in._loss(batch, clip)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
        return metrics, self.parameters.flatten(gradients)

    def _adam(self, step: Tensor, flat: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, adam: Tensor) -> None:
        """Make Adam's step (Kingma & Ba 2015, algorithm 1) in the order of torch's own arithmetic, where ``step``."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * flat
        beta1, beta2 = self.betas
        new_mean = torch.lerp(mean, gradient, 1 - beta1)
        new_square = square * beta2 + (1 - beta2) * gradient * gradient
        new_flat = flat - adam[0] * new_mean / (new_square.sqrt() / adam[1] + self.epsilon)
        for old, new in ((flat, new_flat), (mean, new_mean), (square, new_square)):
            old.copy_(torch.where(step, new, old))


def clip_norm(gradient: Tensor, max_norm: Tensor) -> Tensor:
    """Scale a vector down to a norm, as ``torch.nn.utils.clip_grad_norm_`` does."""
    norm = torch.linalg.vector_norm(gradient)
    return gradient * torch.clamp(max_norm / (norm + 1e-6), max=1.0)


def adam_coefficients(first: int, count: int, learning_rate: float, betas: tuple[float, float]) -> Tensor:
    """Return ``[count, 2]``: step size and root of the second moment's bias correction after ``first`` steps."""
    steps = torch.arange(first + 1, first + count + 1, dtype=torch.float64)
    step_size = learning_rate / (1 - betas[0] ** steps)
    return torch.stack([step_size, (1 - betas[1] ** steps).sqrt()], dim=1).float()


def flatten(batch: Minibatch) -> list[Tensor]:
    """Return a minibatch's tensors in a fixed order."""
    observation = batch.observation
    first = list(observation.values()) if isinstance(observation, dict) else [observation]
    return [*first, *(value for value in batch[1:] if isinstance(value, Tensor))]


def unflatten(like: Minibatch, tensors: list[Tensor]) -> Minibatch:
    """Undo :func:`flatten`."""
    values = iter(tensors)
    observation: Any = (
        {key: next(values) for key in like.observation} if isinstance(like.observation, dict) else next(values)
    )
    return Minibatch(observation, *(None if value is None else next(values) for value in like[1:]))  # type: ignore[arg-type]


def trace(step: StepFunction, arguments: list[Tensor]) -> GraphModule:
    """Record the tensor operations of a step; nothing is changed by it.

    Raises:
        Exception: whatever a step raises that asks for a tensor's value.
    """
    with side_effects_undone(step.algorithm), torch.no_grad():
        return make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)


def compile_graph(graph: GraphModule, backend: str | None, device: torch.device) -> Callable[..., Tensor]:
    """Return the traced step as one compiled call.

    Args:
        graph: from :func:`trace`.
        backend: of ``torch.compile``; ``None`` interprets the graph operator by operator.
        device: of the tensors.
    """
    if backend is None:
        return graph
    options: dict[str, Any] | None = None
    if backend == "inductor":
        options = {
            # Shapes, devices and modes never change: asking whether they have costs as much as the matrix products.
            "guard_filter_fn": lambda guards: [False] * len(guards),
            # Eager's random numbers, so that dropout draws the same ones.
            "fallback_random": True,
            # The calls of the kernels in C++ too: a quarter of a small minibatch. On a GPU a CUDA graph holds them.
            "cpp_wrapper": device.type == "cpu",
        }
    # Of the bound method: its code belongs to this graph alone, while all modules share that of `Module.__call__`.
    compiled: Callable[..., Tensor] = torch.compile(
        graph.forward, backend=backend, fullgraph=True, dynamic=False, options=options
    )
    return compiled
