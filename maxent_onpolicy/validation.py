"""Checks of user input that name the argument, the value it got and what is allowed."""

from collections.abc import Collection
from difflib import get_close_matches
from math import isfinite
from operator import index
from typing import Any


def check_range(
    name: str,
    value: float,
    low: float = float("-inf"),
    high: float = float("inf"),
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return ``value`` if it is a finite number in the interval, else raise.

    Args:
        name: the argument's name as the user wrote it.
        value: what the user passed.
        low: lower end of the interval.
        high: upper end of the interval.
        low_open: whether ``low`` itself is excluded.
        high_open: whether ``high`` itself is excluded.

    Raises:
        ValueError: if ``value`` is no number, is not finite, or lies outside the interval.
    """
    interval = f"{'(' if low_open or low == float('-inf') else '['}{low:g}, {high:g}"
    interval += ")" if high_open or high == float("inf") else "]"
    try:
        if isinstance(value, str | bytes):
            raise TypeError  # float() would read a text that no formula can use
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be a number in {interval}, got {value!r}") from None
    inside = isfinite(number) and low <= number <= high
    if not inside or (low_open and number == low) or (high_open and number == high):
        raise ValueError(f"`{name}` must be in {interval}, got {value!r}")
    return number


def check_integer(name: str, value: Any, low: int) -> int:
    """Return ``value`` if it is a whole number of at least ``low``, else raise.

    Raises:
        ValueError: naming the argument, the value and what is allowed.
    """
    try:
        number = index(value)
    except TypeError:
        raise ValueError(f"`{name}` must be an integer of at least {low}, got {value!r}") from None
    check_range(name, number, low)
    return number


def check_pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return ``value`` as two items, else raise.

    Raises:
        ValueError: if it is no sequence of two.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"`{name}` must be a pair (low, high), got {value!r}")
    low, high = value
    return low, high


def check_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    """Return ``value`` if it is one of ``choices``, else raise.

    Raises:
        ValueError: naming the argument, the value, the choices and the closest of them.
    """
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {allowed}; got {value!r}{did_you_mean(value, choices)}")
    return value


def did_you_mean(word: Any, known: Collection[Any]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name closest to ``word``, or an empty string."""
    close = get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


class SB3ArgumentError(ValueError, AssertionError):
    """A bad value of an argument that SB3 itself rejects with a bare ``assert``.

    Ours are ValueErrors; being an AssertionError too, they are still caught by
    code written against SB3.
    """
