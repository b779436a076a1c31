"""Controllers of an update: clip ranges, learning rates and entropy coefficients that adapt while a model trains.

Rules are functions of numbers in :mod:`~maxent_onpolicy.controllers.formulas`, and of tensors in
:mod:`maxent_onpolicy.estimators.control`; a controller is a dataclass that holds their arguments and state.
"""

from maxent_onpolicy.controllers.base import (
    Balance,
    Controller,
    EntropyBounds,
    ModelFacts,
    RolloutStatistics,
    UpdateSettings,
)
from maxent_onpolicy.controllers.clipping import BAPO, PPOBR, EntropyRatioClip
from maxent_onpolicy.controllers.coefficient import EntropyCoefSchedule, TargetEntropy
from maxent_onpolicy.controllers.learning_rate import KLAdaptiveLR
from maxent_onpolicy.controllers.registry import CONTROLLERS, Controllers, describe_controllers, make_controllers

__all__ = [
    "BAPO",
    "CONTROLLERS",
    "PPOBR",
    "Balance",
    "Controller",
    "Controllers",
    "EntropyBounds",
    "EntropyCoefSchedule",
    "EntropyRatioClip",
    "KLAdaptiveLR",
    "ModelFacts",
    "RolloutStatistics",
    "TargetEntropy",
    "UpdateSettings",
    "describe_controllers",
    "make_controllers",
]
