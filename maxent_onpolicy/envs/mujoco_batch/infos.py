"""Info dicts that are built when they are read."""

from collections.abc import Callable
from operator import index
from typing import Any

# Everything of a list that reads or moves its items, except taking a single one.
_READS_ALL = (
    *("__iter__", "__reversed__", "__contains__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__add__", "__mul__", "__rmul__", "__iadd__", "__imul__", "__delitem__", "__repr__"),
    *("copy", "count", "index", "insert", "pop", "remove", "reverse", "sort"),
)


class LazyInfos(list[dict[str, Any]]):
    """A list of one info dict per environment, each built when it is first read.

    A rollout reads the infos of finished episodes only, and building the others would cost as much as the rewards.
    What is built stays, so writing into ``infos[i]`` or replacing it works as with any list.

    Args:
        build: makes the info of environment ``i``, from values that never change again.
        blank: a list of as many ``None`` as there are environments.
    """

    __slots__ = ("_build",)

    def __init__(self, build: Callable[[int], dict[str, Any]], blank: list[None]) -> None:
        super().__init__(blank)  # type: ignore[arg-type]
        self._build = build

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._all()[key]
        info = super().__getitem__(key)
        if info is None:
            position = index(key) % len(self)
            info = self[position] = self._build(position)
        return info

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            self._all()
        super().__setitem__(key, value)

    def __radd__(self, other: list[Any]) -> list[Any]:
        return other + self._all()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self._all(),)

    def _all(self) -> list[dict[str, Any]]:
        """Build what is still missing; return all of it as a plain list."""
        for position, info in enumerate(list.__iter__(self)):
            if info is None:
                list.__setitem__(self, position, self._build(position))
        return list(list.__iter__(self))


def _after_building(name: str) -> Callable[..., Any]:
    method = getattr(list, name)

    def call(self: LazyInfos, *args: Any, **kwargs: Any) -> Any:
        self._all()
        others = [list(arg) if isinstance(arg, LazyInfos) else arg for arg in args]
        return method(self, *others, **kwargs)

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in _READS_ALL:
    setattr(LazyInfos, _name, _after_building(_name))
