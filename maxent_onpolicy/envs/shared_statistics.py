"""Normalisation statistics of environments that are split over several processes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

if TYPE_CHECKING:
    from maxent_onpolicy.envs.normalize import VecNormalize


def learn_together(env: "VecNormalize", observation: Any, returns: Any = None) -> None:
    """Update the statistics with the samples of all processes, in one exchange.

    Args:
        env: whose ``gather_rows`` returns ``[n, ...]`` of every process's ``[B, ...]``.
        observation: raw, ``[B, ...]`` or a dictionary of such.
        returns: discounted returns ``[B]``, or ``None`` after a reset.
    """
    assert env.gather_rows is not None
    samples = [
        (moments, torch.as_tensor(observation if key is None else observation[key]))
        for key, moments in env._obs_moments().items()
    ]
    if returns is not None:
        samples.append((env.ret_rms, torch.as_tensor(returns)))
    if not samples:
        return
    columns = [sample.double().reshape(len(sample), -1) for _, sample in samples]
    parts = env.gather_rows(torch.cat(columns, dim=1)).split([part.shape[1] for part in columns], dim=1)
    for (moments, sample), part in zip(samples, parts, strict=True):
        rows = part.reshape(-1, *sample.shape[1:])
        moments.update(rows.numpy() if env.works_in_numpy else rows)


def reset_together(env: "VecNormalize") -> Any:
    """Reset as SB3's ``VecNormalize`` does, with the statistics of all processes."""
    observation = env.venv.reset()
    env.old_obs = observation
    env.returns = np.zeros(env.num_envs)
    if env.training:
        learn_together(env, observation)
    return env.normalize_obs(observation)  # type: ignore[arg-type]


def step_together(env: "VecNormalize") -> VecEnvStepReturn:
    """Return a step as SB3's ``VecNormalize`` does, with the statistics of all processes."""
    observation, reward, done, infos = env.venv.step_wait()
    env.old_obs, env.old_reward = observation, reward
    returns = env.returns
    if env.training:
        returns = returns * env.gamma + reward
        learn_together(env, observation, returns)
    for index in np.flatnonzero(done):
        if "terminal_observation" in infos[index]:
            infos[index]["terminal_observation"] = env.normalize_obs(infos[index]["terminal_observation"])
    env.returns = np.where(done, 0.0, returns)
    return env.normalize_obs(observation), env.normalize_reward(reward), done, infos  # type: ignore[arg-type]
