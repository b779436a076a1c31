"""From a run's settings to its environments and model."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.cli.config import RunConfig, has_test
from maxent_onpolicy.cli.registry import build_hyperparameters, check_hyperparameters, is_stock, load_class
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.engine.distributed import world
from maxent_onpolicy.env_ids import is_text
from maxent_onpolicy.envs.make import BACKENDS, make_vec_env
from maxent_onpolicy.envs.normalize import VecNormalize


def make_training_env(config: RunConfig) -> VecEnv:
    """Make the environments a run trains in, normalised as it says: this process's part of them, if several train.

    Raises:
        ValueError: if they cannot be divided among the processes.
    """
    ranks = world()
    share = ranks.share(config.n_envs)
    return _normalized(_make_env(config, share, config.seed + ranks.rank * share), config, training=True)


def make_evaluation_env(
    config: RunConfig, episodes: int | None = None, split: str = "train", n_envs: int | None = None
) -> VecEnv:
    """Make the environments a run is evaluated in: wrapped as the training's, frozen, paying the raw reward.

    Args:
        config: the run.
        episodes: how many are played at a time; default is the run's.
        split: ``"train"``, or ``"test"`` for a run that has a test distribution.
        n_envs: how many environments share the episodes; default is what the run says, or else as many as divide
            them evenly, up to eight. There are never more than episodes.
    """
    count = episodes or int(config.evaluation["episodes"])
    n_envs = n_envs or config.evaluation.get("n_envs")
    if n_envs is None:
        n_envs = max(number for number in range(1, 9) if count % number == 0)
    changes = config.evaluation["test_kwargs"] if split == "test" else {}
    return _normalized(_make_env(config, min(n_envs, count), 0, changes), config, training=False)


def make_model(config: RunConfig, env: VecEnv) -> BaseAlgorithm:
    """Make the untrained model of a run.

    Raises:
        ValueError: for a hyperparameter outside its range, or if several processes would train what only one can.
    """
    cls = load_class(config.algorithm)
    if is_stock(cls) and world().size > 1:
        raise ValueError(f"{config.algorithm} cannot be trained by several processes; start a single one")
    make: Callable[..., BaseAlgorithm] = cls
    return make(config.policy, env, seed=config.seed, verbose=0, **build_hyperparameters(config.hyperparameters))


def check_runs(runs: Iterable[RunConfig], place: str) -> None:
    """Build every distinct combination once, so that what cannot work fails before anything runs.

    Args:
        runs: the runs; seeds do not make a difference.
        place: the file or command the settings come from, for messages.

    Raises:
        UsageError: naming the place, the run, the argument and what is allowed.
    """
    checked: set[tuple[str, str]] = set()
    for config in runs:
        key = (config.label, config.env_id)
        if key in checked:
            continue
        checked.add(key)
        where = f"{place}: {config.label} on {config.env_id}"
        check_hyperparameters(config.algorithm, config.hyperparameters, where)
        if is_text(config.env_id) or config.algorithm == "GRPO":
            from maxent_onpolicy.cli.llm.settings import check_run

            check_run(config, where)
            continue
        try:
            env = make_training_env(config)
            try:
                make_model(config, env)
                _check_test_env(config, env)
            finally:
                env.close()
        # RuntimeError is how PyTorch refuses a device
        except (ValueError, TypeError, AssertionError, ImportError, KeyError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]  # what follows in SB3's is advice on other cases
            raise UsageError(f"{where}: {reason}") from error


def _check_test_env(config: RunConfig, training: VecEnv) -> None:
    """Build the environment of the test distribution, if there is one.

    Raises:
        ValueError: if it refuses its keywords, or what is seen or done there is not what is seen or done in training.
    """
    if not has_test(config):
        return
    name = "evaluation.test_kwargs"
    try:
        test = make_evaluation_env(config, 1, "test")
    except (ValueError, TypeError, AssertionError, ImportError, KeyError) as error:
        raise ValueError(f"{name}: {error}") from error
    try:
        for kind in ("observation_space", "action_space"):
            ours, theirs = getattr(training, kind), getattr(test, kind)
            if ours != theirs:
                noun = kind.replace("_", " ")
                raise ValueError(f"{name}: must leave the {noun} as it is, {ours}; it becomes {theirs}")
    finally:
        test.close()


def device_of(config: RunConfig) -> str:
    """Return where the run computes, as the algorithms' ``device``."""
    return str(config.hyperparameters.get("device", "auto"))


def _make_env(config: RunConfig, n_envs: int, seed: int, changes: Mapping[str, Any] = MappingProxyType({})) -> VecEnv:
    settings = config.environment
    kwargs = {**settings["kwargs"], **changes}
    if config.backend in BACKENDS and BACKENDS[config.backend].on_device:
        kwargs = {"device": device_of(config)} | kwargs
    return make_vec_env(
        config.env_id,
        n_envs,
        seed,
        config.backend,
        discretize_bins=settings["discretize_bins"],
        **kwargs,
    )


def _normalized(env: VecEnv, config: RunConfig, *, training: bool) -> VecEnv:
    settings: dict[str, Any] = config.environment
    if not (settings["normalize_observation"] or settings["normalize_reward"]):
        return env
    return VecNormalize(
        env,
        training=training,
        norm_obs=settings["normalize_observation"],
        norm_reward=settings["normalize_reward"] and training,
        clip_obs=settings["clip_observation"],
        clip_reward=settings["clip_reward"],
        gamma=config.hyperparameters.get("gamma", 0.99),
        device=device_of(config),
    )


def restored_normalization(env: VecEnv, path: Path, config: RunConfig, trust_pickle: bool = False) -> VecEnv:
    """Return ``env`` with the statistics saved at ``path`` in place of its own; as it is if it does not normalise.

    Args:
        env: environments.
        path: a file of our ``VecNormalize``, or of SB3's.
        config: the run.
        trust_pickle: whether SB3's file may be unpickled.

    Raises:
        UsageError: if it is SB3's, and may not.
        ValueError: if it is no such file, or does not fit.
    """
    if not isinstance(env, VecNormalize):
        return env
    training, norm_reward = env.training, env.norm_reward
    device = device_of(config)
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"
    if pickled and not trust_pickle:
        raise UsageError(f"{path} is a pickle, which can run any code; if you trust its author, add --trust-pickle")
    if pickled:
        restored = VecNormalize.from_sb3_pickle(path, env.venv, trust=True, device=device)
    else:
        restored = VecNormalize.load(path, env.venv, device=device)
    restored.training, restored.norm_reward = training, norm_reward
    return restored
