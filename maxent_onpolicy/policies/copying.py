"""Policies that can be copied and pickled after training."""

import copy
from typing import Any

from torch import Tensor
from torch.distributions import Distribution


class GraphFreeCopies:
    """Leaves the graph of the last computation out of a policy's copies; PyTorch refuses to copy it.

    SB3's action distributions keep the tensors they were last given, so that ``copy.deepcopy(model.policy)`` fails
    after training. Copies hold the numbers alone.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, with an action distribution that knows no graph."""
        state = dict(self.__dict__)
        if "action_dist" in state:
            state["action_dist"] = _with_numbers_alone(state["action_dist"])
        return state


def _with_numbers_alone(owner: Any) -> Any:
    other = copy.copy(owner)
    for name, value in vars(owner).items():
        other.__dict__[name] = _detached(value)
    return other


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_leaf else value.detach()
    if isinstance(value, Distribution):
        return _with_numbers_alone(value)
    return [_detached(item) for item in value] if isinstance(value, list) else value
