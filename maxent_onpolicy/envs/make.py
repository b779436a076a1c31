"""Make vectorised environments by id, with the fastest backend that serves them."""

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.env_ids import SELF_PLAY
from maxent_onpolicy.envs import minigrid
from maxent_onpolicy.envs.discretize import DiscretizeActions
from maxent_onpolicy.envs.gym_vec_env import GymVecEnv
from maxent_onpolicy.envs.mjx import MJX_TASKS, make_mjx_vec_env, serves_mjx
from maxent_onpolicy.envs.procgen import PREFIX, id_hint, make_procgen_vec_env, serves_procgen
from maxent_onpolicy.envs.torch_native import TORCH_ENVS, make_torch_vec_env, serves_torch
from maxent_onpolicy.validation import check_choice, check_integer, did_you_mean

EnvFactory = Callable[..., gym.Env]

MUJOCO_TASKS = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
)
_OLD_MUJOCO = re.compile(rf"({'|'.join(MUJOCO_TASKS)})-v([234])")
# What to install when a name like this cannot be imported.
_INSTALL = {
    "mujoco": "maxent-onpolicy[mujoco]",
    "ale": "gymnasium[atari]",
    "box2d": "maxent-onpolicy[box2d]",
    "minigrid": "maxent-onpolicy[minigrid]",
    "babyai": "maxent-onpolicy[minigrid]",
    "jax": "gymnasium[jax]",
    "pygame": "gymnasium[classic-control]",
}


@dataclass(frozen=True)
class EnvRequest:
    """What the user asked :func:`make_vec_env` for.

    Attributes:
        env_id: a Gymnasium id, or a function or class that returns an environment.
        n_envs: how many of them.
        seed: environment ``i`` starts from ``seed + i``; ``None`` draws one from numpy's global generator.
        wrapper: put around each environment.
        discretize_bins: choices per action dimension, or ``None`` to leave actions as they are.
        monitor: whether infos report the return and length of each episode.
        env_kwargs: for the environment's constructor.
    """

    env_id: str | EnvFactory
    n_envs: int = 1
    seed: int | None = None
    wrapper: Callable[[gym.Env], gym.Env] | None = None
    discretize_bins: int | None = None
    monitor: bool = True
    env_kwargs: dict[str, Any] = field(default_factory=dict)


class Backend(NamedTuple):
    """A way to build vectorised environments.

    Attributes:
        make: builds what was requested, seeded for its first reset.
        serves: whether this backend can build it *exactly* as requested, with what is installed.
        preference: ``"auto"`` takes the serving backend with the highest.
        needs: what must be given for it to serve, as error messages put it.
        on_device: whether its environments live on a device, named by a keyword ``device``.
    """

    make: Callable[[EnvRequest], VecEnv]
    serves: Callable[[EnvRequest], bool]
    preference: int
    needs: str = ""
    on_device: bool = False


BACKENDS: dict[str, Backend] = {}


def make_vec_env(
    env_id: str | EnvFactory,
    n_envs: int = 1,
    seed: int | None = None,
    backend: str = "auto",
    *,
    wrapper: Callable[[gym.Env], gym.Env] | None = None,
    discretize_bins: int | None = None,
    monitor: bool = True,
    **env_kwargs: Any,
) -> VecEnv:
    """Make ``n_envs`` environments that are stepped together.

    The layers of each are, from the inside: the environment as Gymnasium makes it, SB3's ``Monitor``, ``wrapper``,
    :class:`DiscretizeActions`. So reported returns are those of the environment itself.

    Args:
        env_id: any registered Gymnasium id (``"HalfCheetah-v5"``, ``"module:Id-v0"``), a game of Procgen
            (``"procgen:coinrun"``), a game for self-play (``"openspiel:leduc_poker"``,
            ``"pettingzoo:connect_four_v3"``), or a class or function that returns a new environment.
        n_envs: number of environments, at least 1.
        seed: environment ``i`` starts from ``seed + i``, as in SB3; the same seed gives the same episodes.
            ``None`` draws a seed from numpy's global generator.
        backend: ``"auto"``, or a name in ``BACKENDS``. ``"gymnasium"`` serves everything, in this process;
            ``"mujoco_batch"`` steps Gymnasium's MuJoCo ``-v5`` tasks on all cores, with the same results;
            ``"procgen"`` serves all ids that begin with ``procgen:``, and ``"selfplay"`` all that begin with
            ``openspiel:`` or ``pettingzoo:``, and no others.
            ``"torch"`` and ``"mjx"`` simulate on a device, thousands at once, and must be asked for; there
            ``device="cuda"`` is a keyword of the environment.
        wrapper: a function that wraps one environment.
        discretize_bins: turn bounded continuous actions into this many choices per dimension.
        monitor: report return and length of each episode in ``info["episode"]``, as SB3's callbacks expect.
        **env_kwargs: for the environment's constructor (``ctrl_cost_weight=0.5``).

    Raises:
        ValueError: for an unknown id, backend, keyword or an invalid number; names what is allowed.
        ImportError: if the environment needs a package that is not installed; names what to install.
    """
    if isinstance(n_envs, bool) or not isinstance(n_envs, int) or n_envs < 1:
        raise ValueError(f"`n_envs` must be an integer of at least 1, got {n_envs!r}")
    if seed is not None and check_integer("seed", seed, 0) > 2**32 - n_envs:
        raise ValueError(f"`seed` must be in [0, 2**32 - n_envs], got {seed!r}")
    if isinstance(env_id, gym.Env):
        raise ValueError("`env_id` is an environment; pass its id, its class, or a function that returns a new one")
    check_choice("backend", backend, ("auto", *BACKENDS))
    request = EnvRequest(env_id, n_envs, seed, wrapper, discretize_bins, monitor, env_kwargs)
    if backend == "auto":
        serving = [candidate for candidate in BACKENDS.values() if candidate.serves(request)]
        return max(serving, key=lambda candidate: candidate.preference).make(request)
    if not BACKENDS[backend].serves(request):
        serving_names = [name for name, candidate in BACKENDS.items() if candidate.serves(request)]
        needs = f" (it needs {BACKENDS[backend].needs})" if BACKENDS[backend].needs else ""
        raise ValueError(
            f"`backend={backend!r}` cannot make {env_id!r} as asked{needs}; {', '.join(serving_names)} can"
        )
    return BACKENDS[backend].make(request)


def make_gym_vec_env(request: EnvRequest) -> GymVecEnv:
    """Make the requested environments in this process, from Gymnasium's registry or the user's function."""
    factory = _factory(request.env_id, request.env_kwargs) if isinstance(request.env_id, str) else request.env_id

    def make_env(rank: int) -> gym.Env:
        env = factory(**request.env_kwargs)
        if request.monitor:
            env = Monitor(env)
        if request.wrapper is not None:
            env = request.wrapper(env)
        if request.discretize_bins is not None:
            env = DiscretizeActions(env, request.discretize_bins)
        if request.seed is not None:
            env.action_space.seed(request.seed + rank)
        return env

    with _without_known_mujoco_warnings():
        vec_env = GymVecEnv([lambda rank=rank: make_env(rank) for rank in range(request.n_envs)])  # type: ignore[misc]
    vec_env.seed(request.seed)
    return vec_env


def make_mujoco_batch_vec_env(request: EnvRequest) -> VecEnv:
    """Make one of Gymnasium's MuJoCo ``-v5`` tasks on ``mujoco.batch``."""
    from maxent_onpolicy.envs.mujoco_batch import MujocoBatchVecEnv

    assert isinstance(request.env_id, str)
    with _without_known_mujoco_warnings():
        env = _factory(request.env_id, request.env_kwargs)(**request.env_kwargs)
        bins = request.discretize_bins
        vec_env = MujocoBatchVecEnv(env, request.n_envs, discretize_bins=bins, monitor=request.monitor)
    if request.seed is not None:
        for rank, action_space in enumerate(vec_env.get_attr("action_space")):
            action_space.seed(request.seed + rank)
    vec_env.seed(request.seed)
    return vec_env


def _mujoco_batch_serves(request: EnvRequest) -> bool:
    if not isinstance(request.env_id, str) or request.wrapper is not None or not _gymnasium_serves(request):
        return False
    try:
        spec = _find(request.env_id)
    except (ValueError, ImportError):
        return False  # the other backend says what is wrong
    if not str(spec.entry_point).startswith("gymnasium.envs.mujoco."):
        return False
    try:
        from maxent_onpolicy.envs.mujoco_batch.gymnasium_tasks import serves
    except (ImportError, error.DependencyNotInstalled):
        return False
    return serves(spec, request.env_kwargs)


def _serves_self_play(request: EnvRequest) -> bool:
    return isinstance(request.env_id, str) and request.env_id.startswith(SELF_PLAY)


def _make_self_play_vec_env(request: EnvRequest) -> VecEnv:
    # by name, for games build on environments, and not the other way round
    make: Callable[[EnvRequest], VecEnv] = import_module(
        "maxent_onpolicy.games.selfplay.backend"
    ).make_self_play_vec_env
    return make(request)


def _gymnasium_serves(request: EnvRequest) -> bool:
    return not serves_procgen(request) and not _serves_self_play(request)


_LAYERS = "`wrapper` nor `discretize_bins`"
BACKENDS["gymnasium"] = Backend(make_gym_vec_env, _gymnasium_serves, preference=0)
BACKENDS["mujoco_batch"] = Backend(
    make_mujoco_batch_vec_env,
    _mujoco_batch_serves,
    preference=10,
    needs="MuJoCo of at least 3.17, one of Gymnasium's MuJoCo -v5 tasks, and no `wrapper`",
)
BACKENDS["procgen"] = Backend(make_procgen_vec_env, serves_procgen, preference=10, needs="an id like 'procgen:coinrun'")
BACKENDS["selfplay"] = Backend(
    _make_self_play_vec_env, _serves_self_play, preference=10, needs=f"an id like '{SELF_PLAY[0]}kuhn_poker'"
)
# Other generators of start states, and other arithmetic: only for who asks for them.
BACKENDS["torch"] = Backend(
    make_torch_vec_env,
    serves_torch,
    preference=-1,
    needs=f"{' or '.join(TORCH_ENVS)}, and neither {_LAYERS}",
    on_device=True,
)
BACKENDS["mjx"] = Backend(
    make_mjx_vec_env,
    serves_mjx,
    preference=-1,
    needs=f"one of {', '.join(MJX_TASKS)}, and neither {_LAYERS}",
    on_device=True,
)


@contextmanager
def _without_known_mujoco_warnings() -> Iterator[None]:
    """Silence what MuJoCo 4 says of Gymnasium's own models; pass on everything else as Python warnings.

    It would print a line for each environment and write ``MUJOCO_LOG.TXT`` in the working directory.
    """
    mujoco = sys.modules.get("mujoco")
    if mujoco is None:
        yield
        return

    def receive(message: str) -> None:
        if "attribute 'settotalmass' is deprecated" not in message:
            warnings.warn(f"MuJoCo: {message}", stacklevel=2)

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(receive)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


def _factory(env_id: str, env_kwargs: dict[str, Any]) -> EnvFactory:
    """Return a function that makes ``env_id``; raise an error that helps if it cannot be made."""
    old = _OLD_MUJOCO.fullmatch(env_id)
    if old is not None and old[2] in "23":
        raise ValueError(f"{env_id!r} needs the mujoco-py package, which is no longer maintained; use '{old[1]}-v5'")
    if old is not None:
        warnings.warn(
            f"{env_id!r} is kept for old results only: it has known errors that '{old[1]}-v5' corrects", stacklevel=4
        )
    try:
        spec = _find(env_id)
        if minigrid.serves(spec):
            spec = minigrid.adapted(spec)
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    except (ImportError, error.DependencyNotInstalled) as cause:
        raise _missing(env_id, cause) from cause
    # As in SB3: costs nothing until something renders, and VecVideoRecorder works without being asked for.
    renders = "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ())
    defaults = {"render_mode": "rgb_array"} if renders else {}

    def make(**kwargs: Any) -> gym.Env:
        try:
            return gym.make(spec, **{**defaults, **kwargs})
        except (ImportError, error.DependencyNotInstalled) as cause:
            if old is not None:
                raise ValueError(f"{env_id!r} does not work with this MuJoCo; use '{old[1]}-v5'") from cause
            raise _missing(env_id, cause) from cause
        except TypeError as cause:
            raise ValueError(f"{env_id!r} cannot be made with {kwargs}{_unknown_keywords(creator, kwargs)}") from cause

    return make


def _find(env_id: str) -> EnvSpec:
    """Return the registered spec: the latest version for an id without one, after importing the module before ``:``."""
    module, _, name = env_id.rpartition(":")
    if module and f"{module.lower()}:" != PREFIX:
        import_module(module)
    if minigrid.is_id(name):
        minigrid.register()
    if name in gym.registry:
        return gym.registry[name]
    versions = [other for other in gym.registry if re.fullmatch(rf"{re.escape(name)}-v\d+", other)]
    if versions:
        return gym.registry[max(versions, key=lambda other: int(other.rpartition("-v")[2]))]
    close = get_close_matches(name, [other for other in gym.registry if not _OLD_MUJOCO.fullmatch(other)], n=3)
    hint = f"; the closest are {', '.join(map(repr, close))}" if close else ""
    package = next((package for word, package in _INSTALL.items() if name.lower().startswith(word)), None)
    install = f"; such environments come with: pip install '{package}'" if package else ""
    raise ValueError(f"`env_id`: no environment {env_id!r} is registered{hint}{install}{id_hint(env_id)}")


def _unknown_keywords(creator: Any, kwargs: dict[str, Any]) -> str:
    constructors = [vars(cls).get("__init__") for cls in creator.__mro__] if isinstance(creator, type) else [creator]
    known = {name for each in filter(None, constructors) for name in inspect.signature(each).parameters} - {"self"}
    wrong = [f"{name!r}{did_you_mean(name, known)}" for name in kwargs if name not in known]
    return f": it takes no {', '.join(wrong)}" if wrong else ""


def _missing(env_id: str, cause: Exception) -> ImportError:
    text = f"{env_id} {cause}".lower()
    package = next((package for name, package in _INSTALL.items() if name in text), None)
    advice = f"install it with: pip install '{package}'" if package else str(cause)
    return ImportError(f"{env_id!r} needs a package that is not installed; {advice}")
