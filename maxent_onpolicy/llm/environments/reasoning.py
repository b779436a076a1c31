"""reasoning-gym: questions that a program makes and an answer to which a program scores (arXiv:2505.24760)."""

from typing import Any

import numpy as np

from maxent_onpolicy.llm.environments.base import SPLITS, TaskSet, TextEnvironment, content_key, require, select
from maxent_onpolicy.validation import check_integer, did_you_mean

# Questions that are drawn at most for each that is wanted: a quarter of them fall into a split, some of them twice.
_DRAWS, _MORE_DRAWS = 16, 200


class ReasoningTasks(TaskSet):
    """Questions of one of reasoning-gym's data sets; the split follows from the question, so none is in two.

    Args:
        dataset: its name, such as ``"leg_counting"``.
        train: how many questions there are for training.
        validation: how many for choosing.
        test: how many for the last word.
        seed: of the questions.
        **settings: of the data set.

    Raises:
        ImportError: if reasoning-gym is not installed.
        ValueError: if there is no such data set or setting, or it has fewer questions.
    """

    def __init__(
        self,
        dataset: str,
        train: int = 256,
        validation: int = 64,
        test: int = 64,
        *,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(train, validation, test)
        self.dataset, self.settings, self.seed = dataset, settings, check_integer("seed", seed, 0)
        gym = require("reasoning_gym", "llm")
        known = require("reasoning_gym.factory", "llm").DATASETS
        if dataset not in known:
            raise ValueError(f"`dataset`: reasoning-gym has no {dataset!r}{did_you_mean(dataset, known)}")
        self._sources = {split: self._source(gym, split) for split in SPLITS}
        self._entries: dict[str, list[dict[str, Any]]] = {}

    def environment(self) -> "ReasoningEnvironment":
        """Return a new environment that asks these questions."""
        return ReasoningEnvironment(self)

    def entry(self, task_id: str) -> dict[str, Any]:
        """Return a task's question, answer and what else reasoning-gym knows of it.

        Raises:
            ValueError: if there is no such task.
        """
        split, number = self.locate(task_id)
        if split not in self._entries:
            self._entries[split] = self._draw(split)
        return self._entries[split][number]

    def question(self, task_id: str) -> str:
        """Return a task's question."""
        return str(self.entry(task_id)["question"])

    def score(self, task_id: str, answer: str) -> float:
        """Return what an answer is worth, in ``[0, 1]``."""
        split, _ = self.locate(task_id)
        return float(self._sources[split].score_answer(answer, self.entry(task_id)))

    def _source(self, gym: Any, split: str) -> Any:
        seed = int(np.random.SeedSequence([self.seed, SPLITS.index(split)]).generate_state(1)[0])
        try:
            return gym.create_dataset(
                self.dataset, seed=seed, size=_DRAWS * self.sizes[split] + _MORE_DRAWS, **self.settings
            )
        except (TypeError, AssertionError) as error:
            raise ValueError(f"`settings` of {self.dataset}: {error}") from error

    def _draw(self, split: str) -> list[dict[str, Any]]:
        drawn = (self._sources[split][number] for number in range(len(self._sources[split])))
        found = select(split, ((entry, content_key(entry["question"])) for entry in drawn))
        return [next(found)[0] for _ in range(self.sizes[split])]


class ReasoningEnvironment(TextEnvironment):
    """Asks a question and scores the one answer.

    Args:
        tasks: the questions.
    """

    def __init__(self, tasks: ReasoningTasks) -> None:
        self._tasks = tasks
        self._task_id = ""
        self._over = True
        self._score = 0.0

    def reset(self, task_id: str) -> str:
        """Return a task's question."""
        question = self._tasks.question(task_id)
        self._task_id, self._over, self._score = task_id, False, 0.0
        return question

    def step(self, command: str) -> tuple[str, float, bool]:
        """Score the answer, which ends the task."""
        if self._over:
            raise RuntimeError("no question is open; call `reset` first")
        self._over = True
        self._score = self._tasks.score(self._task_id, command)
        return "", self._score, True

    @property
    def won(self) -> bool:
        """Whether the answer had the full score."""
        return self._score >= 1.0

    def oracle(self) -> list[str]:
        """Return the right answer; empty if the question has none written down or is answered."""
        answer = None if self._over else self._tasks.entry(self._task_id)["answer"]
        return [] if answer is None else [str(answer)]
