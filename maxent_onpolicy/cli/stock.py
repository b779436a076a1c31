"""Going on with a run of another library's class, whose files hold neither generators nor environments."""

from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.cli.build import device_of, restored_normalization
from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.registry import hyperparameters
from maxent_onpolicy.evaluation.runs import RunDirectory


def continue_stock(cls: Any, run: RunDirectory, config: RunConfig, env: VecEnv) -> tuple[BaseAlgorithm, str]:
    """Load the checkpoint of a class that cannot be resumed exactly.

    Its parameters, optimisers and normalisation statistics go on, with new episodes and
    other seeds than at the start. An off-policy algorithm has lost its replay buffer: it
    acts at random for ``learning_starts`` steps, as at the start, before it trains again.

    Args:
        cls: the class.
        run: the directory, with a checkpoint.
        config: of the run.
        env: the environments to go on in.

    Returns:
        The model, and what is not as it was, for the user.
    """
    if run.normalization.exists():
        env = restored_normalization(env, run.normalization, config)
    model: BaseAlgorithm = cls.load(run.checkpoint, env, device_of(config))
    # Not the seed of the start: the run would see its first episodes again.
    sequence = np.random.SeedSequence([config.seed, model.num_timesteps])
    model.set_random_seed(int(sequence.generate_state(1)[0] >> 1))
    library = cls.__module__.partition(".")[0]
    text = f"files of {library}'s {cls.__name__} hold neither random generators nor environments"
    if isinstance(model, OffPolicyAlgorithm):
        starts = config.hyperparameters.get("learning_starts", hyperparameters(cls)["learning_starts"].default)
        model.learning_starts = model.num_timesteps + starts
        text += f", and no replay buffer, which {starts:,} steps of random actions fill before it trains again"
    return model, text
