"""What is added to every MiniGrid environment."""

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from maxent_onpolicy.envs.minigrid.state import own_state, set_own_state
from maxent_onpolicy.envs.minigrid.view import agent_view, full_view
from maxent_onpolicy.validation import check_choice

Observation = Literal["view", "full", "dict"]
OBSERVATIONS: tuple[Observation, ...] = ("view", "full", "dict")
_LEFT, _RIGHT, _FORWARD = 0, 1, 2


class MiniGridTask:
    """Stands before a ``MiniGridEnv`` in the bases of a class: its observation, and a state that can be saved.

    Args:
        *args: as the environment.
        observation: ``"view"`` is the image of what the agent sees, uint8 ``[7, 7, 3]``, as ``ImgObsWrapper`` of
            MiniGrid gives it; ``"full"`` that of the whole grid with the agent in it, ``[width, height, 3]``, as its
            ``FullyObsWrapper`` and ``ImgObsWrapper``; ``"dict"`` MiniGrid's own dictionary with direction and mission,
            which a ``wrapper`` must turn into something SB3 can train on.
        advancing_turns: a turn moves the agent one cell on, in its new direction, and both take one step. The published
            Empty-8x8 experiments of the entropy advantage do so.
        **kwargs: as the environment.

    Raises:
        ValueError: for an unknown ``observation`` or ``advancing_turns``.
    """

    step_count: int
    width: int
    height: int

    def __init__(
        self, *args: Any, observation: Observation = "view", advancing_turns: bool = False, **kwargs: Any
    ) -> None:
        check_choice("observation", observation, OBSERVATIONS)
        check_choice("advancing_turns", advancing_turns, (True, False))
        super().__init__(*args, **kwargs)
        self._observation = observation
        self._advancing_turns = bool(advancing_turns)
        if observation == "view":
            self.observation_space = self.observation_space["image"]
        elif observation == "full":
            self.observation_space = spaces.Box(0, 255, (self.width, self.height, 3), np.uint8)

    observation_space: Any

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, as MiniGrid does."""
        observation, info = super().reset(**kwargs)  # type: ignore[misc]
        return self._selected(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step, as MiniGrid does."""
        if self._advancing_turns and action in (_LEFT, _RIGHT):
            self.step_count -= 1  # the turn itself takes none
            observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[misc]
            if terminated or truncated:
                return self._selected(observation), reward, terminated, truncated, info
            action = _FORWARD
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[misc]
        return self._selected(observation), reward, terminated, truncated, info

    def _selected(self, observation: dict[str, Any]) -> Any:
        if self._observation == "dict":
            return observation
        return observation["image"] if self._observation == "view" else full_view(self)  # type: ignore[arg-type]

    def get_env_state(self) -> dict[str, Any]:
        """Return everything that determines the future; see :mod:`maxent_onpolicy.envs.capture`."""
        return own_state(self)

    def set_env_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`get_env_state` returned."""
        set_own_state(self, state)


class FastView:
    """Stands before a ``MiniGridEnv`` that sees as all do: the same observation in less time."""

    agent_dir: int
    mission: str

    def gen_obs(self) -> dict[str, Any]:
        """Return what the agent sees, its direction and the mission."""
        image = agent_view(self)  # type: ignore[arg-type]
        return {"image": image, "direction": self.agent_dir, "mission": self.mission}
