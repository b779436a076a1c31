"""MuJoCo on a GPU: Gymnasium's v5 tasks simulated by MJX, exchanged with PyTorch without copies."""

from typing import TYPE_CHECKING

from stable_baselines3.common.vec_env import VecEnv

if TYPE_CHECKING:
    from maxent_onpolicy.envs.make import EnvRequest

MJX_TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")


def serves_mjx(request: "EnvRequest") -> bool:
    """Return whether there is such a task, and no wrapper of single environments is asked for."""
    return request.env_id in MJX_TASKS and request.wrapper is None and request.discretize_bins is None


def make_mjx_vec_env(request: "EnvRequest") -> VecEnv:
    """Make the requested environments; keywords are those of Gymnasium's task, ``device`` and ``max_episode_steps``.

    Raises:
        ImportError: if JAX, MJX or MuJoCo is not installed.
        ValueError: for an unknown keyword or device.
    """
    try:
        from maxent_onpolicy.envs.mjx.vec_env import MjxVecEnv
    except ImportError as error:
        raise ImportError(
            f"`backend='mjx'` needs a package that is not installed ({error}); "
            "install it with: pip install 'maxent-onpolicy[mjx]'"
        ) from error
    from maxent_onpolicy.envs.make import _without_known_mujoco_warnings

    assert isinstance(request.env_id, str)
    with _without_known_mujoco_warnings():
        vec_env = MjxVecEnv(
            request.env_id, request.n_envs, seed=request.seed, monitor=request.monitor, **request.env_kwargs
        )
    vec_env.action_space.seed(request.seed)
    return vec_env
