"""Data-parallel training: what an on-policy algorithm does differently where several ranks train one model."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env import VecNormalize as NumpyVecNormalize
from torch import Tensor

from maxent_onpolicy.engine import distributed
from maxent_onpolicy.engine.rollout import steps_on_tensors
from maxent_onpolicy.engine.shared_buffer import SharedRolloutBuffer, has_images
from maxent_onpolicy.envs.normalize import VecNormalize

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm

# What must be the same on every rank for their updates to be one.
_AGREED = (
    *("n_envs", "n_steps", "batch_size", "n_epochs", "num_timesteps"),
    *("gamma", "gae_lambda", "target_kl", "rpo_alpha", "controllers", "engine"),
)


def start_together(algorithm: "OnPolicyAlgorithm") -> None:
    """Connect to the other ranks and take over rank 0's parameters, optimisers and normalisation statistics.

    Raises:
        ValueError: if the ranks were set up differently, or statistics cannot be shared.
    """
    ranks = distributed.connect()
    settings = {name: getattr(algorithm, name, None) for name in _AGREED} | {"class": type(algorithm).__name__}
    for rank, other in enumerate(distributed.gather_objects(settings)):
        differing = [name for name in settings if settings[name] != other[name]]
        if differing:
            name = differing[0]
            raise ValueError(
                f"all processes must train the same model: `{name}` is {settings[name]!r} in rank {ranks.rank}, but "
                f"{other[name]!r} in rank {rank}"
            )
    _, variables = algorithm._get_torch_save_params()
    first = distributed.broadcast_object(algorithm.get_parameters())
    if ranks.rank > 0:
        algorithm.set_parameters(first, exact_match=True, device=algorithm.device)
    distributed.broadcast(getattr(algorithm, name) for name in variables)
    for wrapper in _normalizers(algorithm.env):
        wrapper.obs_rms, wrapper.ret_rms = distributed.broadcast_object((wrapper.obs_rms, wrapper.ret_rms))


def collect_together(
    algorithm: "OnPolicyAlgorithm", env: VecEnv, callback: BaseCallback, buffer: SharedRolloutBuffer, n_steps: int
) -> bool:
    """Collect each rank's part of a rollout and exchange them.

    Returns:
        Whether training goes on: a callback of any rank may stop it, which takes effect on all of them at the end of
        the rollout.
    """
    # Equal machines compute equal numbers; others, and kernels that add up in any order, may differ in the last digit.
    distributed.broadcast(learnt_tensors(algorithm))
    info_buffer = algorithm.ep_info_buffer
    success_buffer = algorithm.ep_success_buffer
    assert info_buffer is not None
    assert success_buffer is not None
    before = list(info_buffer), list(success_buffer)
    recorders = Recorder(info_buffer), Recorder(success_buffer)
    algorithm.ep_info_buffer, algorithm.ep_success_buffer = recorders
    rank_callback = RankCallback(callback, algorithm, env, buffer, recorders)
    try:
        algorithm.current_engine.collect(algorithm, env, rank_callback, buffer.local, n_steps)
    finally:
        stop_sharing_statistics(env)
    news = distributed.gather_objects((rank_callback.stopped, *(recorder.new for recorder in recorders)))
    merged = [merge(before[index], [new[1 + index] for new in news], info_buffer.maxlen) for index in range(2)]
    algorithm.ep_info_buffer, algorithm.ep_success_buffer = merged
    if any(stopped for stopped, *_ in news):
        return False
    buffer.share()
    # Callbacks of rank 0 may have drawn numbers during the rollout.
    distributed.share_generators()
    return True


def learnt_tensors(algorithm: "OnPolicyAlgorithm") -> Iterator[Tensor]:
    """Yield everything that training changes: parameters, buffers and the optimisers' state."""
    names, variables = algorithm._get_torch_save_params()
    for owner in (attrgetter(name)(algorithm) for name in names):
        if isinstance(owner, torch.optim.Optimizer):
            yield from (
                value for state in owner.state.values() for value in state.values() if isinstance(value, Tensor)
            )
        else:
            yield from (*owner.parameters(), *owner.buffers())
    yield from (getattr(algorithm, name) for name in variables)


class Recorder(deque):
    """A deque that also notes what was appended in which step of the rollout.

    Args:
        content: what it holds from the start.
    """

    def __init__(self, content: deque) -> None:
        super().__init__(content, content.maxlen)
        self.step = 0
        self.new: list[tuple[int, Any]] = []

    def append(self, item: Any) -> None:
        """Append an item."""
        self.new.append((self.step, item))
        super().append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """Append several items."""
        for item in items:
            self.append(item)

    def __reduce__(self) -> Any:
        return deque, (list(self), self.maxlen)


def merge(before: list[Any], news: list[list[tuple[int, Any]]], maxlen: int | None) -> deque:
    """Return a deque of what was there before and what the ranks' recorders noted, as one process would have seen it.

    Args:
        before: oldest first.
        news: of each rank, its items with the step they came in.
        maxlen: of the deque.
    """
    # A stable sort: within a step, environments are in the order of the ranks.
    items = sorted((each for new in news for each in new), key=lambda each: each[0])
    return deque([*before, *(item for _, item in items)], maxlen)


class RankCallback(BaseCallback):
    """Passes a rollout's events to the user's callback, in a way that keeps the ranks together.

    Args:
        callback: the user's. When it asks to stop, that is noted, and the rollout goes on to its end.
        algorithm: whose noise must be the same as, or other than, that of the other ranks.
        env: whose statistics all ranks share from the rollout's first step.
        buffer: of all ranks.
        recorders: are told of every step.

    Attributes:
        stopped: whether the callback asked to stop.
    """

    def __init__(
        self,
        callback: BaseCallback,
        algorithm: "OnPolicyAlgorithm",
        env: VecEnv,
        buffer: SharedRolloutBuffer,
        recorders: Iterable[Recorder],
    ) -> None:
        super().__init__()
        self._callback = callback
        self._algorithm = algorithm
        self._env = env
        self._buffer = buffer
        self._recorders = tuple(recorders)
        self.stopped = False

    def on_rollout_start(self) -> None:
        """See SB3; what the callback saves here continues exactly."""
        self._callback.on_rollout_start()
        distributed.share_generators()
        replay = replays_noise(self._algorithm, self._env)
        self._buffer.local.noise_rows = self._buffer.noise_rows_of_all() if replay else None
        if not replay:
            distributed.separate_generators()
        share_statistics(self._env)

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """See SB3."""
        self._callback.update_locals(locals_)

    def on_step(self) -> bool:
        """See SB3."""
        for recorder in self._recorders:
            recorder.step += 1
        self.stopped |= not self._callback.on_step()
        return True

    def _on_step(self) -> bool:
        return True


def own_callback(callback: MaybeCallback, rank: int) -> MaybeCallback:
    """Return what of the user's callbacks a rank runs: rank 0 all, the others those with ``every_rank = True``."""
    if rank == 0 or callback is None:
        return callback
    parts = callback.callbacks if isinstance(callback, CallbackList) else callback
    if isinstance(parts, list):
        return [part for part in parts if getattr(part, "every_rank", False)]
    return parts if getattr(parts, "every_rank", False) else ConvertCallback(None)


def replays_noise(algorithm: "OnPolicyAlgorithm", env: VecEnv) -> bool:
    """Whether every rank draws the noise of all environments and uses its part, so that ``N`` ranks act as one.

    For images and for environments on a device that would cost more than it is worth: there, each rank has a stream of
    random numbers of its own.
    """
    images = has_images(algorithm.observation_space)
    return algorithm.device.type == "cpu" and not images and not steps_on_tensors(env)


def share_statistics(env: VecEnv | None) -> None:
    """Make normalisation statistics those of all ranks' environments, until :func:`stop_sharing_statistics`.

    Raises:
        ValueError: if SB3's own ``VecNormalize`` keeps them.
    """
    for wrapper in _normalizers(env):
        wrapper.gather_rows = distributed.gather_rows


def stop_sharing_statistics(env: VecEnv | None) -> None:
    """Undo :func:`share_statistics`; otherwise an environment stepped by one rank would wait for the others."""
    for wrapper in _normalizers(env):
        wrapper.__dict__.pop("gather_rows", None)


@contextmanager
def sharing_statistics(env: VecEnv | None) -> Iterator[None]:
    """Share statistics within a block."""
    share_statistics(env)
    try:
        yield
    finally:
        stop_sharing_statistics(env)


def _normalizers(env: VecEnv | None) -> list[VecNormalize]:
    found = []
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, VecNormalize):
            found.append(layer)
        elif isinstance(layer, NumpyVecNormalize):
            raise ValueError(
                "stable_baselines3's VecNormalize keeps statistics of its own in every process; "
                "use maxent_onpolicy.envs.VecNormalize"
            )
        layer = layer.venv
    return found
