"""ScienceWorld: experiments of primary school in a simulated house (arXiv:2203.07540)."""

import shutil
from collections.abc import Sequence
from typing import Any

from maxent_onpolicy.llm.environments.base import SPLITS, TaskSet, TextEnvironment, require
from maxent_onpolicy.validation import check_integer, did_you_mean

_JAVA = "It runs on Java 8 or later: the command `java` must be on the PATH"
_FULL_SCORE = 100.0
_VARIATIONS = dict(zip(SPLITS, ("get_variations_train", "get_variations_dev", "get_variations_test"), strict=True))


class ScienceWorldTasks(TaskSet):
    """Variations of ScienceWorld's tasks, in the splits that the benchmark itself has.

    Each environment is a Java process of several hundred megabytes.

    Args:
        names: of tasks, such as ``"find-living-thing"``.
        train: how many variations of each task there are for training, at most.
        validation: how many for choosing, at most.
        test: how many for the last word, at most.
        simplification: what is made easier; ``"easy"`` is everything.
        max_steps: after which a task is over.

    Raises:
        ImportError: if ScienceWorld is not installed, or there is no Java.
        ValueError: if there is no such task.
    """

    def __init__(
        self,
        names: Sequence[str],
        train: int = 16,
        validation: int = 8,
        test: int = 8,
        *,
        simplification: str = "easy",
        max_steps: int = 50,
    ) -> None:
        super().__init__(train, validation, test)
        self.names = (names,) if isinstance(names, str) else tuple(names)
        self.simplification = simplification
        self.max_steps = check_integer("max_steps", max_steps, 1)
        limits = dict(self.sizes)
        self._variations: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
        simulator = start_simulator(self.max_steps)
        try:
            for name in self.names:
                known = list(simulator.get_task_names())
                if name not in known:
                    raise ValueError(f"`names`: ScienceWorld has no task {name!r}{did_you_mean(name, known)}")
                simulator.load(name, 0, simplification)
                for split, method in _VARIATIONS.items():
                    numbers = list(getattr(simulator, method)())[: limits[split]]
                    self._variations[split] += [(name, number) for number in numbers]
        finally:
            simulator.close()
        self.sizes = {split: len(found) for split, found in self._variations.items()}

    def environment(self) -> "ScienceWorldEnvironment":
        """Return a new environment that plays these tasks; starts a Java process."""
        return ScienceWorldEnvironment(self)

    def variation(self, task_id: str) -> tuple[str, int]:
        """Return the name of ScienceWorld's task and the number of the variation.

        Raises:
            ValueError: if there is no such task.
        """
        split, number = self.locate(task_id)
        return self._variations[split][number]


class ScienceWorldEnvironment(TextEnvironment):
    """Plays tasks of ScienceWorld. A reward is a step's share of the full score; a fatal mistake takes all back.

    Args:
        tasks: the tasks.
    """

    def __init__(self, tasks: ScienceWorldTasks) -> None:
        self._tasks = tasks
        self._simulator = start_simulator(tasks.max_steps)
        self._score = 0.0
        self._admissible: tuple[str, ...] = ()
        self._path: list[str] = []
        self._over = True

    def reset(self, task_id: str) -> str:
        """Start a task; returns what is to be done and the first room."""
        name, number = self._tasks.variation(task_id)
        self._simulator.load(name, number, self._tasks.simplification, True)
        observation, info = self._simulator.reset()
        self._path = list(self._simulator.get_gold_action_sequence())
        self._score, self._admissible, self._over = 0.0, tuple(info["valid"]), False
        return f"{self._simulator.get_task_description().strip()}\n{observation.strip()}"

    def step(self, command: str) -> tuple[str, float, bool]:
        """Carry out a command; see :meth:`TextEnvironment.step`.

        What the first look around earns is part of the first step's reward.
        """
        if self._over:
            raise RuntimeError("no task is under way; call `reset` first")
        # The expert's commands are known for its own way only.
        self._path = self._path[1:] if self._path[:1] == [command] else []
        observation, _, over, info = self._simulator.step(command)
        score = max(float(info["score"]), 0.0) / _FULL_SCORE
        reward, self._score = score - self._score, score
        self._admissible, self._over = tuple(info["valid"]), bool(over)
        return observation.strip(), reward, self._over

    @property
    def won(self) -> bool:
        """Whether the task has its full score."""
        return self._score >= 1.0

    @property
    def admissible(self) -> tuple[str, ...]:
        """Commands that do something now."""
        return () if self._over else self._admissible

    def oracle(self) -> list[str]:
        """Return the rest of the expert's way; empty once another command was given."""
        return [] if self._over else list(self._path)

    def close(self) -> None:
        """End the Java process."""
        self._simulator.close()
        self._over = True


def start_simulator(max_steps: int) -> Any:
    """Start a simulator, which is a Java process.

    Raises:
        ImportError: if ScienceWorld is not installed, or there is no Java.
    """
    package = require("scienceworld", "llm-scienceworld", _JAVA)
    if shutil.which("java") is None:
        raise ImportError(f"ScienceWorld finds no Java. {_JAVA}")
    return package.ScienceWorldEnv("", envStepLimit=max_steps)
