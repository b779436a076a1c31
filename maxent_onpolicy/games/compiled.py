"""numba's compiler, or an error that says what to install."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

try:
    import numba
except ImportError as error:
    raise ImportError("games in sequence form need numba: pip install 'maxent-onpolicy[games]'") from error

Function = TypeVar("Function", bound=Callable[..., Any])


def njit(function: Function) -> Function:
    """Compile ``function`` on its first call, and keep the result on disk."""
    return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
