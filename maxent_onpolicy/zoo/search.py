"""Search spaces of this package's algorithms for the Zoo's ``-optimize``: the Zoo's own, and what ours have besides."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3.common.base_class import BaseAlgorithm

from maxent_onpolicy.algorithms.maxent import EntropyCriticMixin

Parameters = dict[str, Any]
# The Zoo's own, taken before ours are added.
_FAMILIES = frozenset(HYPERPARAMS_SAMPLER)
# Published values lie within: tau 1e-5 to 0.1, entropy_gamma 0.8 to 0.99, entropy_gae_lambda 0 to 0.8.
_TAU = (1e-5, 0.3)
_ONE_MINUS_ENTROPY_GAMMA = (0.003, 0.3)
_ENTROPY_GAE_LAMBDA = (0.0, 0.95)
_RPO_ALPHA = (0.003, 0.5)


@dataclass(frozen=True)
class SearchSpace:
    """What Optuna varies of one algorithm.

    Attributes:
        family: the Zoo's name of the algorithm whose search space this one contains.
        entropy_critic: whether tau, entropy_gamma and entropy_gae_lambda are varied; ``ent_coef`` then is not, for
            it would pay for the same thing a second time.
        rpo_alpha: whether RPO's perturbation is varied.
    """

    family: str
    entropy_critic: bool
    rpo_alpha: bool

    def sample(self, trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: Parameters) -> Parameters:
        """Return hyperparameters for a trial; the arguments are the Zoo's.

        Args:
            trial: Optuna's.
            n_actions: dimensions of a continuous action.
            n_envs: parallel environments.
            additional_args: on replay buffers with hindsight.
        """
        fixed = {"ent_coef": 0.0} if self.entropy_critic else {}
        sampler = HYPERPARAMS_SAMPLER[self.family]
        parameters: Parameters = sampler(_Holding(trial, fixed), n_actions, n_envs, additional_args)  # type: ignore[arg-type]
        for name in fixed:
            parameters.pop(name, None)  # what the settings say stays
        if self.entropy_critic:
            gamma = 1 - trial.suggest_float("one_minus_entropy_gamma", *_ONE_MINUS_ENTROPY_GAMMA, log=True)
            trial.set_user_attr("entropy_gamma", gamma)
            parameters["tau"] = trial.suggest_float("tau", *_TAU, log=True)
            parameters["entropy_gamma"] = gamma
            parameters["entropy_gae_lambda"] = trial.suggest_float("entropy_gae_lambda", *_ENTROPY_GAE_LAMBDA)
        if self.rpo_alpha:
            parameters["rpo_alpha"] = trial.suggest_float("rpo_alpha", *_RPO_ALPHA, log=True)
        return parameters

    def convert(self, sampled_params: Parameters) -> Parameters:
        """Return the hyperparameters of a finished trial, from the values that its study stores."""
        converter: Callable[[Parameters], Parameters] = HYPERPARAMS_CONVERTER[self.family]
        parameters = converter(sampled_params)
        if "one_minus_entropy_gamma" in parameters:
            parameters["entropy_gamma"] = 1 - parameters.pop("one_minus_entropy_gamma")
        return parameters


class _Holding:
    """A trial that holds some values fixed and does not count them among what it varies."""

    def __init__(self, trial: optuna.Trial, fixed: Parameters) -> None:
        self._trial = trial
        self._fixed = fixed

    def suggest_float(self, name: str, *args: Any, **kwargs: Any) -> float:
        if name in self._fixed:
            held: float = self._fixed[name]
            return held
        return self._trial.suggest_float(name, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def search_space(cls: type[BaseAlgorithm]) -> SearchSpace | None:
    """Return what to vary of ``cls``, or ``None`` if the Zoo knows no algorithm of its kind."""
    families = (base.__name__.lower() for base in cls.__mro__)
    family = next((name for name in families if name in _FAMILIES), None)
    if family is None:
        return None
    alpha = inspect.signature(cls).parameters.get("rpo_alpha")
    shifts = alpha is not None and alpha.default != 0  # MaxEntPPO can, and does not of itself
    return SearchSpace(family, issubclass(cls, EntropyCriticMixin), shifts)
