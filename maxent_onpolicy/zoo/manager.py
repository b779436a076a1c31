"""The Zoo's experiment, with this package's settings and a schedule for the temperature."""

from typing import Any

import gymnasium
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import SimpleLinearSchedule
from stable_baselines3.common.base_class import BaseAlgorithm

from maxent_onpolicy.algorithms.maxent import EntropyCriticMixin
from maxent_onpolicy.zoo.registration import algorithms, settings_file


class SettingsError(ValueError):
    """An experiment cannot be set up as it was asked for."""


_MISTAKES = (
    ValueError,
    TypeError,  # a keyword that the algorithm does not have
    KeyError,
    AssertionError,
    OSError,
    ImportError,
    RuntimeError,  # how PyTorch refuses a device
    gymnasium.error.Error,
    yaml.YAMLError,
)


class Experiment(ExperimentManager):
    """The Zoo's ``ExperimentManager``, which finds the settings of our algorithms beside this file.

    Args:
        args: the command line.
        algo: the algorithm's name.
        env_id: the environment's id.
        *rest: as in the Zoo.
        **kwargs: as in the Zoo; without ``config``, a file of settings, our algorithms take ours.

    Raises:
        SettingsError: if there are no settings for the algorithm.
    """

    def __init__(self, args: Any, algo: str, env_id: str, *rest: Any, **kwargs: Any) -> None:
        if kwargs.get("config") is None and algo in algorithms():
            try:
                kwargs["config"] = str(settings_file(algo))
            except ValueError:
                raise SettingsError(f"there are no settings for {algo}: write some, and pass --conf-file") from None
        super().__init__(args, algo, env_id, *rest, **kwargs)

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """Make environments and model; as in the Zoo.

        Raises:
            SettingsError: if a setting, the environment or the model to go on with does not fit.
        """
        try:
            return super().setup_experiment()
        except _MISTAKES as error:
            raise SettingsError(f"{self.algo} on {self.env_name.gym_id}: {error}") from error

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        tau = hyperparams.get("tau")
        ours = issubclass(algorithms().get(self.algo, object), EntropyCriticMixin)
        if ours and isinstance(tau, str) and tau.startswith("lin_"):
            hyperparams["tau"] = SimpleLinearSchedule(tau.removeprefix("lin_"))
        return super()._preprocess_schedules(hyperparams)
