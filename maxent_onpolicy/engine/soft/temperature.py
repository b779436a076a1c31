"""The weight of the entropy in soft actor-critic: fixed, or adjusted to a target entropy."""

from typing import Any

import torch
from torch import Tensor

from maxent_onpolicy.engine.soft.parameters import Rate, adam_constants, adam_step


class Temperature:
    """The entropy's weight, trained as SB3 does: ``loss = -mean(log_ent_coef·(log_prob + target_entropy))``.

    Args:
        fixed: the weight, if it is not trained.
        log_weight: the logarithm that is trained, a tensor of one element.
        optimizer: its Adam.
        target_entropy: mean entropy to reach.
    """

    def __init__(
        self,
        fixed: Tensor | None,
        log_weight: Tensor | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        target_entropy: float = 0.0,
    ) -> None:
        self._fixed, self._optimizer, self._target = fixed, optimizer, target_entropy
        self._state: dict[str, Any] = {}
        if log_weight is None or optimizer is None:
            return
        self._key = log_weight
        self._log = log_weight.detach()  # shares its memory
        self._loss = torch.zeros((), device=self._log.device)
        self._gradient = torch.zeros_like(self._log)
        self._step = torch.zeros((), device=self._log.device)
        self._state = optimizer.state[log_weight]
        for name in ("exp_avg", "exp_avg_sq"):
            self._state.setdefault(name, torch.zeros_like(self._log))
        self._state.setdefault("step", torch.tensor(0.0))
        self._steps_made = float(self._state["step"])
        self._step.fill_(self._steps_made)
        self._rate = Rate(self._log.device)
        moments = [self._state["exp_avg"]], [self._state["exp_avg_sq"]]
        self._moments = moments[0][0], moments[1][0]
        self._lists: tuple[list[Tensor], ...] = ([self._log], [self._gradient], *moments, [], [self._step])

    def is_current(
        self, fixed: Tensor | None, log_weight: Tensor | None, optimizer: torch.optim.Optimizer | None, target: float
    ) -> bool:
        """Whether this still is what an algorithm with these attributes needs."""
        if optimizer is None or log_weight is None:
            return self._optimizer is None and self._fixed is fixed
        if self._optimizer is not optimizer or self._key is not log_weight or self._target != target:
            return False
        state = optimizer.state[log_weight]
        return (
            state is self._state
            and self._log.data_ptr() == log_weight.data_ptr()
            and all(state.get(n) is m for n, m in zip(("exp_avg", "exp_avg_sq"), self._moments, strict=True))
        )

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What a step changes."""
        return () if self._optimizer is None else (self._log, *self._moments, self._step, self._loss)

    @property
    def constants(self) -> tuple[Any, ...]:
        """Python values that a step reads."""
        return () if self._optimizer is None else adam_constants(self._optimizer.param_groups[0])

    def begin(self, on_device: bool) -> None:
        """Start a series of steps.

        Args:
            on_device: whether steps are to find the learning rate in a tensor, where recorded steps see it change.
        """
        if self._optimizer is not None:
            self._loss.zero_()
            self._rate.take(self._optimizer.param_groups[0], on_device)

    def step(self, log_prob: Tensor) -> Tensor:
        """Return the weight, a tensor of one element, and adjust what the next step will get.

        Args:
            log_prob: of the actor's actions, ``[N, 1]``.
        """
        if self._optimizer is None:
            assert self._fixed is not None
            return self._fixed
        weight = torch.exp(self._log)
        torch.add(log_prob.mean().reshape(1), self._target, out=self._gradient).neg_()
        self._loss += (self._log * self._gradient).squeeze()
        self._step += 1
        adam_step(self._lists, self._optimizer.param_groups[0], self._rate)
        return weight

    def end(self, steps: int) -> dict[str, float]:
        """Tell the optimiser how many steps were made; return the mean loss if there is one."""
        if self._optimizer is None:
            return {}
        self._steps_made += steps
        self._state["step"].fill_(self._steps_made)
        return {"ent_coef_loss": self._loss.item() / steps}
