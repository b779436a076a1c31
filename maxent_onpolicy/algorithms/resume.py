"""Capture and restore everything outside the model that determines how training continues."""

import random
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from maxent_onpolicy.envs.state import (
    StateNotRestorableError,
    get_env_state,
    set_env_state,
    state_from_bytes,
    state_to_bytes,
)


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
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
