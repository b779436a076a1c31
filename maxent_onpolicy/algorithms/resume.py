"""Capture and restore everything outside the model that determines how training continues."""

import io
import pathlib
import random
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from maxent_onpolicy.envs.axis_order import axis_order, in_axis_order
from maxent_onpolicy.envs.capture import spaces_in
from maxent_onpolicy.envs.state import (
    StateNotRestorableError,
    get_env_state,
    set_env_state,
    state_from_bytes,
    state_to_bytes,
)
from maxent_onpolicy.validation import check_choice

Resume = bool | Literal["new_episodes"]

# where SB3's logger keeps what was recorded and not yet written
_LOGGED = ("name_to_value", "name_to_count", "name_to_excluded")


class Resumable(BaseAlgorithm):
    """An algorithm whose files hold everything that an exact continuation needs; put before SB3's class."""

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        prepared = super()._setup_learn(*args, **kwargs)
        # what the update before the interruption recorded is written with the next rollout's row
        for name, values in self.__dict__.pop("_unwritten", {}).items():
            getattr(self.logger, name).update(values)
        return prepared

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_unwritten"]

    def _capture_training_state(self) -> dict[str, Any]:
        """Return what ``save`` adds to SB3's file."""
        return capture_training_state(self.env) | {
            "spaces": [space._np_random for space in self._own_spaces()],
            "unwritten": unwritten_log(self),
            "axis_order": axis_order(self._last_obs),
        }

    def _restore_training_state(self, state: dict[str, Any], resume: Resume) -> None:
        """Put back what :meth:`_capture_training_state` returned.

        Raises:
            StateNotRestorableError: unless new episodes are begun, if the environments' state was not captured or does
                not fit.
        """
        assert self.env is not None
        if resume == "new_episodes":
            restore_normalization(self.env, state.get("normalization", []))
            if self.seed is not None:  # not the seed of the start: its first episodes were seen already
                sequence = np.random.SeedSequence([self.seed, self.num_timesteps])
                self._seed_environments(int(sequence.generate_state(1)[0] >> 1))
            restore_generators(state)
        else:
            restore_training_state(self.env, state)
        for space, generator in zip(self._own_spaces(), state.get("spaces", []), strict=False):
            space._np_random = generator
        self._unwritten = state.get("unwritten", {})

    def _seed_environments(self, seed: int) -> None:
        assert self.env is not None
        self.env.seed(seed)

    def _own_spaces(self) -> Iterator[Any]:
        """Spaces draw random numbers too: an off-policy algorithm samples its first actions from them."""
        for space in (self.action_space, self.observation_space):
            yield from spaces_in(space)

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save as SB3 does, with everything that an exact continuation needs.

        Beside the parameters and optimisers the file holds the random generators, the last observation, what was
        recorded for the log and not yet written, the normalisation statistics and, where it can be captured, the
        environments' state. ``load(path, env=env, resume=True)`` restores them. A continuation is exact from a
        rollout's boundary: after ``learn()``, or from a callback's ``_on_rollout_start``. From a file saved in the
        middle of a rollout the environments go on where they were, but that rollout's steps are lost.

        Args:
            path: file or file-like object.
            exclude: as SB3.
            include: as SB3.
        """
        self._training_state = self._capture_training_state()
        try:
            super().save(path, exclude, include)
        finally:
            del self._training_state

    def save_checkpoint(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """Save for an exact continuation, whatever it takes."""
        self.save(path)

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        resume: Resume = False,
        **kwargs: Any,
    ) -> Self:
        """Load a model; as SB3, the file is unpickled, so load only files you trust.

        Args:
            path: file or file-like object.
            env: environment to train in; as SB3.
            device: as SB3.
            custom_objects: as SB3.
            print_system_info: as SB3.
            force_reset: as SB3; ignored with ``resume``.
            resume: restore the random generators, normalisation statistics and the environments' state too, so that
                ``learn(remaining_steps, reset_num_timesteps=False)`` continues bit for bit. ``"new_episodes"`` restores
                all but the environments, which begin new episodes with other seeds than at the start: for
                environments whose state cannot be captured. Both restore the replay buffer of an off-policy algorithm
                where the file holds it; without it training continues with an empty one, and a warning says so.
            **kwargs: as SB3.

        Raises:
            ValueError: if ``resume`` is set without ``env``, or the file holds no training state.
            StateNotRestorableError: if ``resume=True`` and the environments' state could not be saved.
        """
        check_choice("resume", resume, (False, True, "new_episodes"))
        if resume and env is None:
            raise ValueError(f"`resume={resume!r}` needs `env`: the environment in which training continues")
        reset = resume == "new_episodes" or (force_reset and not resume)
        model = super().load(path, env, device, custom_objects, print_system_info, reset, **kwargs)
        state = model.__dict__.pop("_training_state", None)
        if not resume:
            return model
        if state is None:
            raise ValueError(
                f"`resume={resume!r}` needs a file saved by this package; {path!r} holds no training state"
            )
        model._restore_training_state(state, resume)
        model._last_obs = in_axis_order(model._last_obs, state.get("axis_order"))
        model._restore_from_file(path, state)
        return model

    def _restore_from_file(self, path: str | pathlib.Path | io.BufferedIOBase, state: dict[str, Any]) -> None:
        """Put back what the file holds beside the model; ``state`` is what :meth:`_capture_training_state` returned."""


def capture_training_state(env: VecEnv | None) -> dict[str, Any]:
    """Return the random generators' and the environments' state.

    Where an environment cannot be captured, the reason is kept instead, so that
    saving never fails and resuming says why it cannot be exact.
    """
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - SB3 draws from the global generator
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "normalization": normalization_of(env),
        "env": None,
        "env_error": "the model was saved without an environment" if env is None else None,
    }
    if env is not None:
        try:
            # As an array: SB3 writes the text form of everything it saves beside it, and an array's is short.
            state["env"] = np.frombuffer(state_to_bytes(get_env_state(env)), dtype=np.uint8)
        except StateNotRestorableError as error:
            state["env_error"] = str(error)
        except Exception as error:  # whatever a foreign environment's own `get_state` raises or returns
            state["env_error"] = f"the environments' state cannot be saved: {type(error).__name__}: {error}"
    return state


def of_rank(state: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    """Return what concerns one of the processes that go on.

    Args:
        state: from :func:`capture_training_state`; ``"size"`` and ``"ranks"`` were added where several processes
            trained.
        rank: number of the process.
        size: how many there are.

    Raises:
        StateNotRestorableError: if as many processes cannot go on from there.
    """
    saved = state.get("size", 1)
    if saved != size:
        raise StateNotRestorableError(
            f"training cannot be resumed exactly: the file was saved by {saved} process(es), and {size} would go on"
        )
    if size == 1:
        return state
    if state["ranks"] is None:
        raise StateNotRestorableError(
            "training cannot be resumed exactly: the file was saved within a rollout, or without the environments of "
            "the other processes; save after `learn()`, or call `gather_training_state()` in all of them before"
        )
    return state | state["ranks"][rank]


def restore_training_state(env: VecEnv, state: dict[str, Any]) -> None:
    """Put back what :func:`capture_training_state` returned.

    Raises:
        StateNotRestorableError: if the environments' state was not captured or does not fit ``env``.
    """
    if state["env_error"] is not None:
        raise StateNotRestorableError(f"training cannot be resumed exactly: {state['env_error']}")
    set_env_state(env, state_from_bytes(state["env"].tobytes()))
    restore_generators(state)


def restore_generators(state: dict[str, Any]) -> None:
    """Put the global random generators into the state that :func:`capture_training_state` found them in."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def normalization_of(env: VecEnv | None) -> list[dict[str, Any]]:
    """Return the statistics of every ``VecNormalize`` around ``env``, outermost first, as numbers and arrays."""
    return [
        {"observation": _plain(getattr(wrapper, "obs_rms", None)), "return": _plain(wrapper.ret_rms)}
        for wrapper in _normalizers(env)
    ]


def restore_normalization(env: VecEnv, statistics: list[dict[str, Any]]) -> None:
    """Put back what :func:`normalization_of` returned.

    Raises:
        StateNotRestorableError: if ``env`` is normalised otherwise.
    """
    wrappers = _normalizers(env)
    if len(wrappers) != len(statistics):
        raise StateNotRestorableError(
            f"the model was saved with {len(statistics)} VecNormalize around its environments, but there are "
            f"{len(wrappers)} now"
        )
    for wrapper, saved in zip(wrappers, statistics, strict=True):
        _fill(getattr(wrapper, "obs_rms", None), saved["observation"])
        _fill(wrapper.ret_rms, saved["return"])


def unwritten_log(model: BaseAlgorithm) -> dict[str, dict[str, Any]]:
    """Return what was recorded for the log since its last row, as far as it is numbers and text."""
    logger = getattr(model, "_logger", None)
    if logger is None:
        return model.__dict__.get("_unwritten", {})
    values = {
        key: value for key, value in logger.name_to_value.items() if isinstance(value, int | float | str | np.number)
    }
    return {name: {key: getattr(logger, name)[key] for key in values} for name in _LOGGED}


def _normalizers(env: Any) -> list[VecNormalize]:
    found = []
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize):
            found.append(env)
        env = env.venv
    return found


def _plain(moments: Any) -> Any:
    if moments is None:  # SB3 keeps none of observations that are not normalised
        return None
    if isinstance(moments, dict):
        return {key: _plain(value) for key, value in moments.items()}
    return {"mean": np.copy(moments.mean), "var": np.copy(moments.var), "count": float(moments.count)}


def _fill(moments: Any, saved: Any) -> None:
    if (moments is None) != (saved is None):
        raise StateNotRestorableError("the model was saved with observations normalised otherwise than they are now")
    if moments is None:
        return
    if isinstance(moments, dict):
        for key, value in moments.items():
            _fill(value, saved[key])
        return
    moments.mean, moments.var, moments.count = saved["mean"], saved["var"], saved["count"]
