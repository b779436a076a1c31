"""Single levels of Procgen that two libraries play, and what of an episode both can be held to; needs numpy alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

GAMES = (
    *("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot"),
    *("heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot"),
)
MODES = ("easy", "hard")
LEVELS = (3, 1007)
STEPS = 150
LOOKS = 25
CELLS = 4


def cases() -> Iterator[dict[str, Any]]:
    """Yield every level to play."""
    for game in GAMES:
        for mode in MODES:
            for level in LEVELS:
                yield {"game": game, "distribution_mode": mode, "start_level": level}


def actions_of(case: dict[str, Any]) -> np.ndarray:
    """Return the actions ``[STEPS]`` of a level."""
    seed = GAMES.index(case["game"]) + 100 * case["start_level"]
    return np.random.RandomState(seed).randint(0, 15, STEPS)


class Trace:
    """Rewards other than 0 by step, the step that ended the episode, and coarse pictures of what was seen."""

    def __init__(self) -> None:
        self._steps = 0
        self._rewards: list[tuple[int, float]] = []
        self._end: int | None = None
        self._pictures: list[list[int]] = []

    def see(self, image: np.ndarray) -> None:
        """Take the observation ``[64, 64, 3]`` that the last step led to; one in :data:`LOOKS` is kept, as means."""
        if self._steps % LOOKS == 0:
            size = 64 // CELLS
            means = image.reshape(CELLS, size, CELLS, size, 3).mean(axis=(1, 3))
            self._pictures.append(np.round(means).astype(int).ravel().tolist())

    def step(self, reward: float, done: bool) -> bool:
        """Take the outcome of a step; return whether the episode has ended."""
        self._steps += 1
        if reward:
            self._rewards.append((self._steps, round(reward, 5)))
        self._end = self._steps if done else None
        return done

    def found(self) -> dict[str, Any]:
        """Return all of it."""
        return {"rewards": [list(each) for each in self._rewards], "end": self._end, "pictures": self._pictures}
