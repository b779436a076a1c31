"""Many seeds, or many values of a hyperparameter, trained in one process with stacked parameters."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.algorithms.actor_critic import ActorCriticAlgorithm
from maxent_onpolicy.algorithms.ppo import PPO
from maxent_onpolicy.engine.lockstep import Member, run_in_lockstep
from maxent_onpolicy.engine.packed.fits import why_not_packed
from maxent_onpolicy.engine.packed.stacked import MemberEngine, StackedWork
from maxent_onpolicy.engine.shared_buffer import SharedRolloutBuffer
from maxent_onpolicy.envs.make import make_vec_env
from maxent_onpolicy.validation import check_integer, did_you_mean

# What each model has for itself in a stacked step, or uses outside of it.
VARIANTS = (
    "tau",
    "entropy_gamma",
    "entropy_gae_lambda",
    "learning_rate",
    "gamma",
    "gae_lambda",
    "clip_range",
    "vf_coef",
    "entropy_vf_coef",
    "max_grad_norm",
    "target_kl",
    "popart_beta",
    "target_entropy",
    "initial_tau",
    "tau_learning_rate",
    "controllers",
    "rpo_alpha",
    "cg_max_steps",
    "cg_damping",
    "line_search_shrinking_factor",
    "line_search_max_iter",
    "n_critic_updates",
)

Algorithm = TypeVar("Algorithm", bound=ActorCriticAlgorithm)
Result = TypeVar("Result")
Join = Callable[[BaseAlgorithm], str | None]


class SeedsFailedError(RuntimeError):
    """Some models could not be trained to the end; the others were.

    Attributes:
        models: all models in order, those that failed as they were then.
        errors: for each that failed, its place and what it raised.
    """

    def __init__(self, models: list[Any], errors: dict[int, BaseException]) -> None:
        self.models, self.errors = models, errors
        reasons = "; ".join(
            f"model {index} (seed {models[index].seed}): {type(error).__name__}: {error}"
            for index, error in errors.items()
        )
        super().__init__(f"{len(errors)} of {len(models)} models failed, `models` of this error holds all: {reasons}")


def train_seeds(
    algorithm: type[Algorithm],
    policy: Any,
    env: str | Callable[[int], VecEnv],
    seeds: int | Iterable[int],
    total_timesteps: int,
    *,
    n_envs: int | None = None,
    variants: Mapping[str, Sequence[Any]] | None = None,
    callbacks: Callable[[Algorithm], MaybeCallback] | None = None,
    log_interval: int = 1,
    **kwargs: Any,
) -> list[Algorithm]:
    """Train one model a seed, or one a value of some hyperparameters, all at once in this process.

    Each model is what ``algorithm(policy, env, seed=seed, **kwargs).learn(total_timesteps)``
    gives: with environments, random generators, callbacks and a logger of its own. Only
    the minibatch steps are made for all together, on stacked parameters, and the rollouts
    of environments on a device, so that the numbers differ by float32 rounding. Afterwards
    the models are ordinary ones, to be saved, evaluated or continued alone. Models of
    :class:`~maxent_onpolicy.TRPO` and its like, whose steps are not made on stacked
    parameters, are trained one after another.

    Args:
        algorithm: :class:`~maxent_onpolicy.PPO`, :class:`~maxent_onpolicy.TRPO` or a subclass of them.
        policy: as the algorithm's; for PPO one that the packed engine trains.
        env: an id for :func:`~maxent_onpolicy.make_vec_env`, or a function that makes a seed's environments.
        seeds: one for each model; with ``variants`` also a single one for all.
        total_timesteps: of each model, over all its environments.
        n_envs: environments of each model, if ``env`` is an id; default 1.
        variants: keywords of the algorithm that differ, with one value for each model: ``{"tau": [0, 0.01, 0.02]}``.
        callbacks: called with each new model, returns its callbacks.
        log_interval: as in ``learn``.
        **kwargs: keywords of the algorithm that all models share; of controllers each has its own copy.

    Returns:
        The models, in the order of ``seeds`` and of the values.

    Raises:
        ValueError: for arguments that do not go together, and policies that cannot be stacked: it says why.
        SeedsFailedError: if a model failed while it was trained; the others were trained to the end.
    """
    _check_keywords(algorithm, kwargs)
    check_integer("total_timesteps", total_timesteps, 0)
    make_env = _environment_factory(env, n_envs)
    models: list[Algorithm] = []
    refused: list[BaseException] = []

    def make(own: dict[str, Any], join: Join) -> Algorithm:
        try:
            model = algorithm(policy, make_env(own["seed"]), **kwargs, **own)
            reason = join(model)
            # Other algorithms have no stacked steps: their models meet no more, and so are trained in turn.
            if reason is not None and issubclass(algorithm, PPO):
                raise ValueError(
                    f"{algorithm.__name__} models cannot be stacked because of {reason}; train one after the other"
                )
        except BaseException as error:
            refused.append(error)
            raise
        return model

    def training(own: dict[str, Any]) -> Callable[[Join], None]:
        def train(join: Join) -> None:
            model = make(own, join)
            # All models are made before the first is trained, so that nothing is lost by a wrong value of the last.
            if not refused:
                models.append(model)
                model.learn(total_timesteps, None if callbacks is None else callbacks(model), log_interval)

        return train

    members = train_together([training(own) for own in _settings(algorithm, seeds, variants or {}, kwargs)])
    if refused:
        raise refused[0]
    errors = {index: member.error for index, member in enumerate(members) if member.error is not None}
    if errors:
        raise SeedsFailedError(list(models), errors)
    return models


def train_together(trainings: Sequence[Callable[[Join], Any]]) -> list[Member]:
    """Carry out trainings in turn, each as if it were alone, but rollouts and minibatch steps with stacked parameters.

    Args:
        trainings: each is called with a function that it must call with its model before it calls ``learn``. That
            function returns once every training has called it or has ended: with the reason why this model will be
            trained by itself, or ``None``.

    Returns:
        For each training, its ``result`` or its ``error``.
    """

    def member_function(training: Callable[[Join], Any]) -> Callable[[Member], Any]:
        def run(member: Member) -> Any:
            engines: list[MemberEngine] = []

            def join(model: BaseAlgorithm) -> str | None:
                reason = why_not_stacked(model)
                if reason is None:
                    assert isinstance(model, PPO)
                    engines.append(MemberEngine(model, member))
                    model._engine = engines[-1]
                member.meet(None)
                return reason

            try:
                return training(join)
            finally:
                for engine in engines:
                    engine.leave()

        return run

    return run_in_lockstep([member_function(training) for training in trainings], StackedWork())


def why_not_stacked(model: BaseAlgorithm) -> str | None:
    """Return why a model cannot be trained on stacked parameters, or ``None`` if it can."""
    if not isinstance(model, PPO):
        kind = type(model)
        return f"the algorithm {kind.__module__.partition('.')[0]}.{kind.__name__}"
    if model.engine not in ("auto", "packed"):
        return f"`engine={model.engine!r}`"
    if model.compile is True:
        return "`compile=True`"
    if isinstance(model.rollout_buffer, SharedRolloutBuffer):
        return "training in several processes"
    return model.why_not_packed() or why_not_packed(model.policy)


def _check_keywords(algorithm: Any, kwargs: Mapping[str, Any]) -> None:
    if not (isinstance(algorithm, type) and issubclass(algorithm, ActorCriticAlgorithm)):
        raise ValueError(f"`algorithm` must be PPO, TRPO or a subclass of them, got {algorithm!r}")
    if "seed" in kwargs:
        raise ValueError(f"`seed`: pass `seeds`, one for each model; got seed={kwargs['seed']!r}")
    if "callback" in kwargs:
        raise ValueError("`callback`: pass `callbacks`, a function that makes a model's callbacks")
    known = _keywords(algorithm)
    for name in kwargs:
        if name not in known:
            hint = did_you_mean(name, known) or "; `env` may be a function that gives options to `make_vec_env`"
            raise ValueError(f"{algorithm.__name__} takes no `{name}`{hint}")


def _keywords(algorithm: type) -> list[str]:
    """Return the keywords of a class, and of those it passes keywords on to."""
    constructors = [vars(cls)["__init__"] for cls in algorithm.__mro__ if "__init__" in vars(cls)]
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names: list[str] = []
    for constructor in constructors:
        parameters = inspect.signature(constructor).parameters.values()
        names += [each.name for each in parameters if each.kind in kinds]
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
    return [name for name in dict.fromkeys(names) if name not in ("self", "policy", "env", "seed", "_init_setup_model")]


def _settings(
    algorithm: type[ActorCriticAlgorithm],
    seeds: int | Iterable[int],
    variants: Mapping[str, Sequence[Any]],
    kwargs: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return what each model has for itself: its seed, and its values of the variants."""
    allowed = [name for name in VARIANTS if name in _keywords(algorithm)]
    for name, values in variants.items():
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise ValueError(
                f"`variants`: {name!r} cannot differ between models{hint}; these can: {', '.join(allowed)}"
            )
        if name in kwargs:
            raise ValueError(f"`{name}` is given twice: as a keyword of all models and in `variants`")
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
            raise ValueError(f"`variants`: {name!r} must be a list with one value for each model, got {values!r}")
    lengths = {f"`variants[{name!r}]`": len(values) for name, values in variants.items()}
    if isinstance(seeds, int | np.integer):
        chosen = [seeds] * next(iter(lengths.values()), 1)
    else:
        chosen = list(seeds)
        lengths = {"`seeds`": len(chosen), **lengths}
    if not chosen:
        raise ValueError("`seeds` must hold at least one seed")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"there must be one seed and one value for each model, but {listed}")
    for seed in chosen:
        check_integer("seeds", seed, 0)
    return [
        {"seed": int(seed), **{name: values[index] for name, values in variants.items()}}
        for index, seed in enumerate(chosen)
    ]


def _environment_factory(env: str | Callable[[int], VecEnv], n_envs: int | None) -> Callable[[int], VecEnv]:
    if isinstance(env, str):
        return lambda seed: make_vec_env(env, 1 if n_envs is None else n_envs, seed=seed)
    if isinstance(env, VecEnv) or not callable(env):
        raise ValueError(f"`env` must be an id or a function that makes the environments of a seed, got {env!r}")
    if n_envs is not None:
        raise ValueError(f"`n_envs={n_envs!r}` is for environments given by id; the function `env` decides itself")
    return env
