"""What all text environments and sets of tasks have in common."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TypeVar

from maxent_onpolicy.validation import check_choice, check_integer

SPLITS = ("train", "validation", "test")
# Half of all tasks are for training. A task's own content decides, so that no two splits can share one.
_SHARES = ("train", "train", "validation", "test")
# So many draws without a new task mean that there is hardly another one.
_MAX_MISSES = 200
Task = TypeVar("Task")


class TextEnvironment(ABC):
    """Plays one task at a time: it shows texts and is told commands.

    Example:
        >>> with tasks.environment() as environment:  # doctest: +SKIP
        ...     observation = environment.reset("train/0")
        ...     observation, reward, done = environment.step(environment.oracle()[0])
    """

    @abstractmethod
    def reset(self, task_id: str) -> str:
        """Start a task and return its first observation, which says what is to be done.

        Raises:
            ValueError: if there is no such task.
        """

    @abstractmethod
    def step(self, command: str) -> tuple[str, float, bool]:
        """Carry out a command.

        Returns:
            The observation, the reward of this step and whether the task is over. The rewards of a task that is solved
            add up to 1.

        Raises:
            RuntimeError: if no task is under way.
        """

    @property
    @abstractmethod
    def won(self) -> bool:
        """Whether the task that was started last is solved."""

    @property
    def admissible(self) -> tuple[str, ...] | None:
        """Commands that do something now, or ``None`` where they are not known."""
        return None

    @abstractmethod
    def oracle(self) -> list[str]:
        """Return the commands by which an expert would go on until the task is solved; empty where none are known."""

    def close(self) -> None:  # noqa: B027  # nothing to do for those that hold nothing
        """Let go of what the environment holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TaskSet(ABC):
    """Numbered tasks of three splits that share none. A task is called ``"train/0"``, ``"test/3"`` and so on.

    Args:
        train: how many tasks there are for training.
        validation: how many for choosing.
        test: how many for the last word.

    Raises:
        ValueError: if a number is negative.
    """

    def __init__(self, train: int, validation: int, test: int) -> None:
        given = zip(SPLITS, (train, validation, test), strict=True)
        self.sizes = {split: check_integer(split, size, 0) for split, size in given}

    @abstractmethod
    def environment(self) -> TextEnvironment:
        """Return a new environment that plays these tasks."""

    def prepare(self, *splits: str, progress_bar: bool = True) -> None:  # noqa: B027  # most are there already
        """Make the tasks of splits that are not there yet, all if none is named."""

    def ids(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's tasks.

        Raises:
            ValueError: if there is no such split.
        """
        check_choice("split", split, SPLITS)
        return tuple(f"{split}/{number}" for number in range(self.sizes[split]))

    def locate(self, task_id: str) -> tuple[str, int]:
        """Return the split and the number of a task.

        Raises:
            ValueError: if there is no such task.
        """
        split, _, number = str(task_id).partition("/")
        if split in SPLITS and number.isdecimal() and str(int(number)) == number and int(number) < self.sizes[split]:
            return split, int(number)
        known = ", ".join(f"'{name}/0' to '{name}/{size - 1}'" for name, size in self.sizes.items() if size)
        raise ValueError(f"`task_id` must be one of {known or 'no tasks at all'}; got {task_id!r}")


def content_key(content: str) -> str:
    """Return what tells a task's content from others, in 64 hexadecimal digits."""
    return hashlib.sha256(content.encode()).hexdigest()


def split_of(key: str) -> str:
    """Return the split that a task with this :func:`content_key` belongs to."""
    return _SHARES[int(key[:8], 16) % len(_SHARES)]


def select(split: str, candidates: Iterable[tuple[Task, str]], known: Iterable[str] = ()) -> Iterator[tuple[Task, str]]:
    """Yield the candidates that belong to a split, each content once.

    The split depends on the content alone, so a task that is drawn twice, from other seeds too, never lands in two.

    Args:
        split: the split.
        candidates: tasks, each with its :func:`content_key`; more than will be taken.
        known: keys that are taken already.

    Raises:
        ValueError: if there seem to be no further tasks.
    """
    taken = set(known)
    misses = 0
    for task, key in candidates:
        if key not in taken and split_of(key) == split:
            misses = 0
            taken.add(key)
            yield task, key
        else:
            misses += 1
        if misses == _MAX_MISSES:
            break
    raise ValueError(
        f"`{split}` asks for more tasks than these settings have: {len(taken)} were found, and the last {misses} draws "
        "brought no new one; ask for fewer, or for larger tasks"
    )


def require(module: str, extra: str, also: str = "") -> Any:
    """Import an optional package.

    Args:
        module: what to import.
        extra: the extra of this package that brings it.
        also: what else it needs, as a sentence.

    Raises:
        ImportError: if it is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        needs = f"needs the package {package}: pip install 'maxent-onpolicy[{extra}]'{also and f'. {also}'}"
        raise ImportError(f"this {needs} ({error})") from error


def cache_directory() -> Path:
    """Return where what takes long to make is kept: in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maxent_onpolicy"
