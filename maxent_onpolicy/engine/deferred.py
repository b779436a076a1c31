"""Tensors and arrays that are computed only if someone looks at them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from maxent_onpolicy.envs.tensor import Observation, to_device


class Deferred:
    """Stands for a tensor or array that a function returns; the first use calls it.

    Callbacks read ``locals["values"]`` rarely, but the engine must offer it each step.
    Any attribute, operator, indexing or torch function works on the value itself.

    Args:
        compute: returns the value; called at most once.
    """

    __slots__ = ("_compute", "_value")

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute = compute
        self._value: Any = None

    def __call__(self) -> Any:
        """Return the value."""
        if self._value is None:
            self._value = self._compute()
        return self._value

    def __getattr__(self, name: str) -> Any:
        return getattr(self(), name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self()
        return np.array(value.cpu().numpy() if isinstance(value, Tensor) else value, dtype=dtype)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*_resolve(args), **_resolve(kwargs or {}))

    def __repr__(self) -> str:
        return repr(self())


def _resolve(value: Any) -> Any:
    return tree_map(lambda leaf: leaf() if isinstance(leaf, Deferred) else leaf, value)


def _operator(name: str) -> Callable[..., Any]:
    def apply(self: Deferred, *args: Any) -> Any:
        return getattr(self(), name)(*_resolve(args))

    return apply


# Python looks operators up on the class, past __getattr__.
for _name in (
    *("__len__", "__iter__", "__getitem__", "__float__", "__int__", "__bool__", "__neg__", "__abs__"),
    *(f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "pow") for side in ("", "r")),
    *("__matmul__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"),
):
    setattr(Deferred, _name, _operator(_name))


class StepEvaluation:
    """What the policy says about one step: the functions behind a rollout's :class:`Deferred` locals.

    The networks run once, when values or log-probabilities are first used, with the
    parameters of that moment: a callback should read them in its own step.

    Args:
        policy: an ``ActorCriticPolicy``.
        observation: ``[B, ...]``, arrays or tensors, or a dictionary of such.
        actions: ``[B, A]`` or ``[B]`` as sampled.
    """

    __slots__ = ("_actions", "_observation", "_policy", "_result")

    def __init__(self, policy: Any, observation: Any, actions: np.ndarray | Tensor) -> None:
        self._policy, self._observation, self._actions = policy, observation, actions
        self._result: tuple[Tensor, Tensor] | None = None

    def observation(self) -> Observation:
        """Return the observations ``[B, ...]``."""
        return to_device(self._observation, self._policy.device)

    def values(self) -> Tensor:
        """Return the critic's values ``[B, 1]``."""
        return self._evaluate()[0]

    def log_probs(self) -> Tensor:
        """Return the log-probabilities ``[B]`` of the actions."""
        return self._evaluate()[1]

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        if self._result is None:
            with torch.no_grad():
                actions = torch.as_tensor(self._actions, device=self._policy.device)
                self._result = self._policy.evaluate_actions(self.observation(), actions)[:2]
        assert self._result is not None
        return self._result
