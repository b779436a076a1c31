"""The packed engine of soft actor-critic, as the algorithm uses it."""

from typing import TYPE_CHECKING

import torch

from maxent_onpolicy.engine.packed.threads import few_threads
from maxent_onpolicy.engine.soft.fits import why_not_optimizer, why_not_packed
from maxent_onpolicy.engine.soft.model import SoftModel
from maxent_onpolicy.engine.soft.temperature import Temperature
from maxent_onpolicy.engine.soft.update import SoftUpdate

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.sac import SAC


def why_not_soft(algorithm: "SAC") -> str | None:
    """Return why the packed engine cannot train an algorithm, or ``None`` if it can."""
    for name in ("train", "predict"):
        home = getattr(type(algorithm), name).__module__
        if not home.startswith(("maxent_onpolicy.", "stable_baselines3.")):
            return f"{type(algorithm).__name__}'s own `{name}`"
    optimizer = algorithm.ent_coef_optimizer
    if optimizer is not None:
        assert algorithm.log_ent_coef is not None
        reason = why_not_optimizer(optimizer, [algorithm.log_ent_coef])  # type: ignore[list-item]
        if reason is not None:
            return reason
    return why_not_packed(algorithm.policy)


class EagerEngine:
    """Stands for SB3's own computation.

    Attributes:
        name: of the engine.
    """

    name = "eager"


class SoftEngine:
    """Acts and updates with flat vectors.

    Args:
        algorithm: its policy must fit; see :func:`why_not_soft`.

    Attributes:
        name: of the engine.
    """

    name = "packed"

    def __init__(self, algorithm: "SAC") -> None:
        self.model = SoftModel(algorithm.policy)
        self._temperature = _temperature_of(algorithm)
        self._update: SoftUpdate | None = None

    def is_current(self, algorithm: "SAC") -> bool:
        """Whether the algorithm still has the policy, optimisers and memory that this was made for."""
        model = self.model
        return (
            model.policy is algorithm.policy
            and model.device == algorithm.policy.device
            and model.actor.optimizer is algorithm.actor.optimizer
            and model.critic.optimizer is algorithm.critic.optimizer
            and model.is_attached()
            and self._temperature.is_current(*_temperature_arguments(algorithm))
        )

    def update(self, algorithm: "SAC", gradient_steps: int, batch_size: int) -> dict[str, float]:
        """Make gradient steps; return means of what is to be logged."""
        if self._update is None or self._update.batch_size != batch_size:
            self._update = SoftUpdate(self.model, self._temperature, batch_size)
        if self.model.device.type != "cpu" or torch.get_num_threads() == 1:
            return self._update.run(algorithm, gradient_steps)
        widest = max(self.model.actor.shape.operations, self.model.critic.shape.operations)
        with few_threads(widest * batch_size):
            return self._update.run(algorithm, gradient_steps)


def _temperature_arguments(algorithm: "SAC") -> tuple:
    fixed = None if algorithm.ent_coef_optimizer is not None else algorithm.ent_coef_tensor
    return fixed, algorithm.log_ent_coef, algorithm.ent_coef_optimizer, float(algorithm.target_entropy)


def _temperature_of(algorithm: "SAC") -> Temperature:
    return Temperature(*_temperature_arguments(algorithm))
