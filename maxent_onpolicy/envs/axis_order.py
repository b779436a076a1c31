"""The order of an observation's axes in memory, which NumPy before version 2 does not pickle.

Images whose channels were moved to the front lie in memory with the channels last. A convolution rounds otherwise
where they lie otherwise, so an exact continuation needs the order.
"""

from typing import Any

import numpy as np


def axis_order(observation: Any) -> Any:
    """Return each array's axes, from the slowest in memory to the fastest; ``None`` for what is no array."""
    if isinstance(observation, dict):
        return {key: axis_order(value) for key, value in observation.items()}
    if not isinstance(observation, np.ndarray):
        return None
    return np.argsort([-abs(stride) for stride in observation.strides], kind="stable").tolist()


def in_axis_order(observation: Any, order: Any) -> Any:
    """Return an observation whose arrays lie in memory in an order that :func:`axis_order` returned."""
    if isinstance(observation, dict) and isinstance(order, dict):
        return {key: in_axis_order(value, order.get(key)) for key, value in observation.items()}
    if not isinstance(observation, np.ndarray) or order is None or len(order) != observation.ndim:
        return observation
    return np.ascontiguousarray(observation.transpose(order)).transpose(np.argsort(order))
