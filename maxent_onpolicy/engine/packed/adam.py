"""Gradient clipping and Adam on flat vectors."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.arrays import Arrays

if TYPE_CHECKING:
    from maxent_onpolicy.engine.packed.ppo import PPOSettings


class AdamSettings(Protocol):
    """What a step of Adam takes from the settings of an update."""

    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    @property
    def betas(self) -> tuple[float, float]: ...  # noqa: D102

    @property
    def adam_epsilon(self) -> float: ...  # noqa: D102


class ClippedAdam:
    """Clips a gradient's norm and makes one step of Adam, as torch's own on each parameter would.

    Args:
        flat: parameters ``[P]``, changed in place, as are the moments and the step.
        gradient: ``[P]``.
        mean: first moment ``[P]``.
        square: second moment ``[P]``.
        step: number of steps made, a scalar.
        arrays: the array library.
    """

    def __init__(
        self, flat: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor, arrays: Arrays
    ) -> None:
        self._gradient = arrays.view(gradient)
        self._step = step
        self._scale = torch.ones((), device=flat.device)
        # Parameters, gradients, moments, the moments' maxima (unused) and steps, as the fused operator takes them.
        self._lists: tuple[list[Tensor], ...] = ([flat], [gradient], [mean], [square], [], [step])

    def apply(self, settings: "PPOSettings") -> None:
        """Make a step with the gradient that lies there."""
        gradient, scale = self._gradient, self._scale
        # The fused step divides by this. A NaN stays one, and is reported after the update.
        if isinstance(gradient, np.ndarray):
            scale.fill_(_at_least_one((math.sqrt(gradient.dot(gradient)) + 1e-6) / settings.max_grad_norm))
        else:
            norm = torch.linalg.vector_norm(gradient)
            scale.copy_(((norm + 1e-6) / settings.max_grad_norm).clamp(min=1.0))
        self._step += 1
        _fused_step(self._lists, settings, scale)


class PlainAdam:
    """One step of Adam as torch's own on each parameter would make it, without clipping.

    Args:
        flat: parameters ``[P]``, changed in place, as are the moments and the step.
        gradient: ``[P]``.
        mean: first moment ``[P]``.
        square: second moment ``[P]``.
        step: number of steps made, a scalar.
    """

    def __init__(self, flat: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor) -> None:
        self._step = step
        self._lists: tuple[list[Tensor], ...] = ([flat], [gradient], [mean], [square], [], [step])

    def apply(self, settings: "AdamSettings") -> None:
        """Make a step with the gradient that lies there."""
        self._step += 1
        _fused_step(self._lists, settings)


class HostAdam:
    """:class:`ClippedAdam` for ``S`` stacked models on the CPU, bit for bit; models that share their rates in one call.

    Args:
        flat: parameters ``[S, P]``, changed in place, as are the moments and the steps.
        gradient: ``[S, P]``, scaled in place.
        mean: first moments ``[S, P]``.
        square: second moments ``[S, P]``.
        step: number of steps made, ``[S]``.
    """

    def __init__(self, flat: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor) -> None:
        self._rows = [list(each) for each in (flat, gradient, mean, square, step)]
        self._gradient = gradient.numpy()
        self._scale = np.ones((len(flat), 1), dtype=np.float32)
        self._groups: list[tuple[list[list[Tensor]], PPOSettings]] = []
        self._clips: list[tuple[int, np.ndarray, float]] = []

    def choose(self, settings: "Sequence[PPOSettings]", active: "Sequence[int]") -> None:
        """Say which models make the next steps, and with which settings."""
        groups: dict[float, list[int]] = {}
        for model in active:
            groups.setdefault(settings[model].learning_rate, []).append(model)
        self._groups = [
            ([[row[model] for model in models] for row in self._rows], settings[models[0]])
            for models in groups.values()
        ]
        self._clips = [(model, self._gradient[model], settings[model].max_grad_norm) for model in active]

    def apply(self) -> None:
        """Make a step with the gradients that lie there."""
        scale = self._scale
        for model, gradient, max_grad_norm in self._clips:
            scale[model] = _at_least_one((math.sqrt(gradient.dot(gradient)) + 1e-6) / max_grad_norm)
        np.divide(self._gradient, scale, out=self._gradient)
        for (flat, gradients, mean, square, step), settings in self._groups:
            torch._foreach_add_(step, 1.0)
            _fused_step((flat, gradients, mean, square, [], step), settings)


class Rates(NamedTuple):
    """What may differ between stacked models, ``[S, 1]``, and what they share."""

    learning_rate: Tensor
    max_grad_norm: Tensor
    betas: tuple[float, float]
    epsilon: float


class DeviceAdam:
    """:class:`ClippedAdam` for ``S`` stacked models in a fixed number of operations, without reading a tensor back.

    Args:
        flat: parameters ``[S, P]``, changed in place, as are the moments and the steps.
        gradient: ``[S, P]``.
        mean: first moments ``[S, P]``.
        square: second moments ``[S, P]``.
        step: number of steps made, ``[S]``.

    Attributes:
        vectors: what :meth:`apply` changes.
    """

    def __init__(self, flat: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor) -> None:
        self._flat, self._gradient, self._mean, self._square = flat, gradient, mean, square
        self._step = step[:, None]
        self.vectors = (flat, mean, square, step)

    def rates(self, settings: "Sequence[PPOSettings]") -> Rates:
        """Return the settings of each model as tensors; Adam's betas and epsilon are the same in all."""

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=self._flat.device)[:, None]

        return Rates(
            column([each.learning_rate for each in settings]),
            column([each.max_grad_norm for each in settings]),
            settings[0].betas,
            settings[0].adam_epsilon,
        )

    def apply(self, rates: Rates, active: Tensor) -> None:
        """Make a step where ``active`` ``[S]`` is true; elsewhere nothing changes."""
        chosen = active[:, None]
        beta1, beta2 = rates.betas
        norm = torch.linalg.vector_norm(self._gradient, dim=1, keepdim=True)
        gradient = self._gradient / ((norm + 1e-6) / rates.max_grad_norm).clamp(min=1.0)
        step = self._step + 1
        mean = torch.lerp(self._mean, gradient, 1 - beta1)
        square = torch.lerp(self._square, gradient.square(), 1 - beta2)
        divisor = square.sqrt() / (1 - beta2**step).sqrt() + rates.epsilon
        flat = self._flat - rates.learning_rate / (1 - beta1**step) * mean / divisor
        for old, new in ((self._step, step), (self._mean, mean), (self._square, square), (self._flat, flat)):
            # A model that has stopped may hold anything, NaN too: a product with zero would not do.
            old.copy_(torch.where(chosen, new, old))


def _fused_step(lists: tuple[list[Tensor], ...], settings: "AdamSettings", scale: Tensor | None = None) -> None:
    """Make Adam's step in one call.

    Args:
        lists: parameters, gradients, moments, the moments' maxima (unused) and steps.
        settings: learning rate, betas and epsilon.
        scale: what gradients are divided by first, or ``None``.
    """
    torch._fused_adam_(
        *lists,
        lr=settings.learning_rate,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        weight_decay=0.0,
        eps=settings.adam_epsilon,
        amsgrad=False,
        maximize=False,
        grad_scale=scale,
    )


def _at_least_one(scale: float) -> float:
    return 1.0 if scale < 1.0 else scale
