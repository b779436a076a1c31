"""A game without packages or files: say the words that were named, one a turn, then win."""

from maxent_onpolicy.llm.environments import TaskSet, TextEnvironment

WORDS = ("red", "green", "blue", "white")


class WordTasks(TaskSet):
    """Task number n of a split names the n-th pair of words."""

    def __init__(self, train: int = 4, validation: int = 0, test: int = 4) -> None:
        super().__init__(train, validation, test)

    def environment(self) -> "WordEnvironment":
        return WordEnvironment(self)

    def words(self, task_id: str) -> list[str]:
        _, number = self.locate(task_id)
        return [WORDS[number % 4], WORDS[(number + number // 4 + 1) % 4]]


class WordEnvironment(TextEnvironment):
    def __init__(self, tasks: WordTasks) -> None:
        self.tasks = tasks
        self.left: list[str] = []
        self.count = 0
        self.closed = False

    def reset(self, task_id: str) -> str:
        self.left = self.tasks.words(task_id)
        self.count = len(self.left)
        return "say " + " then ".join(self.left)

    def step(self, command: str) -> tuple[str, float, bool]:
        if command != self.left[0]:
            return "no, say " + self.left[0], 0.0, False
        del self.left[0]
        return "good", 1.0 / self.count, not self.left

    @property
    def won(self) -> bool:
        return not self.left

    def oracle(self) -> list[str]:
        return list(self.left)

    def close(self) -> None:
        self.closed = True
