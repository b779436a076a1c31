"""What the environments of turn-based games share, whoever implements the game."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Int64
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from maxent_onpolicy.envs.batched import BatchedVecEnv
from maxent_onpolicy.envs.capture import StateNotRestorableError
from maxent_onpolicy.validation import check_integer

Observations = dict[str, np.ndarray]


class TurnBasedVecEnv(BatchedVecEnv):
    """``B`` copies of a two-player zero-sum game, each of which waits for the decision of one player.

    A step is one decision in every game. Where a game ends, the next one begins. The observation is that of the player
    who acts next; the reward is player 0's, and so what player 1 loses.

    Args:
        name: of the game, for messages and for telling states apart.
        n_envs: ``B``.
        observation_space: a dictionary with ``"observation"`` and ``"action_mask"``.
        action_space: ``Discrete(A)``.
        seed: of the first games; ``None`` draws one from numpy's global generator.
        monitor: report player 0's return and the length of each game in ``info["episode"]``, as SB3's ``Monitor``.

    Raises:
        ValueError: if ``n_envs`` or ``seed`` is no whole number, or too small.
    """

    def __init__(
        self,
        name: str,
        n_envs: int,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        seed: int | None,
        monitor: bool,
    ) -> None:
        check_integer("n_envs", n_envs, 1)
        self.name, self.monitor = name, monitor
        self._random = np.random.default_rng()
        self._returns, self._steps, self._began = np.zeros(n_envs), 0, np.zeros(n_envs, dtype=np.int64)
        self._started_at = time.time()
        self._actions = np.zeros(n_envs, dtype=np.int64)
        self._plays = False
        super().__init__(n_envs, observation_space, action_space)
        self.seed(None if seed is None else check_integer("seed", seed, 0))

    @property
    @abstractmethod
    def acting_player(self) -> Int64[np.ndarray, " B"]:
        """Who acts next in each game, 0 or 1."""

    @abstractmethod
    def _begin(self) -> Observations:
        """Begin new games everywhere; return what the players see."""

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, dict[int, Observations]]:
        """Play ``actions``, and begin a new game where one ends.

        Returns:
            What the players see, player 0's rewards ``[B]``, which games ended ``[B]``, and of those that were cut
            off the last observation, by the number of the environment.
        """

    @abstractmethod
    def _games(self) -> dict[str, Any]:
        """Return what determines the running games but for the random numbers to come."""

    @abstractmethod
    def _set_games(self, games: dict[str, Any]) -> None:
        """Continue from what :meth:`_games` returned."""

    def reset(self) -> Observations:
        """Begin new games; return what the players who act see.

        After ``seed``, and the first time, chance's draws begin anew. Otherwise they go on.
        """
        if self._seeds[0] is not None:
            self._random = np.random.default_rng(self._seeds[0])
        self._reset_seeds()
        self._start_counting(0.0, 0)
        self._plays = True
        return self._begin()

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of actions ``[B]``.

        Raises:
            ValueError: for another shape or type.
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        if not self._plays:
            raise gym.error.ResetNeeded("Cannot step the games before calling reset()")
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"`actions` must be integers of shape ({self.num_envs},), got {actions.dtype} {list(actions.shape)}"
            )
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play the actions.

        Returns:
            Observations (of the next game where one ended), rewards ``[B]`` float32, dones ``[B]`` and infos. A
            game's end has no ``terminal_observation``, for nobody acts there; one that is cut off has.

        Raises:
            ValueError: for an illegal action, naming it.
        """
        observation, reward, done, cut_off = self._advance(self._actions)
        self._steps += 1
        self._returns += reward
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(done).tolist():
            infos[index]["TimeLimit.truncated"] = index in cut_off
            if index in cut_off:
                infos[index]["terminal_observation"] = cut_off[index]
            self._end_episode(index, infos[index])
        return observation, reward.astype(np.float32), done, infos

    def _end_episode(self, index: int, info: dict[str, Any]) -> None:
        if self.monitor:
            score, seconds = round(float(self._returns[index]), 6), round(time.time() - self._started_at, 6)
            info["episode"] = {"r": score, "l": self._steps - int(self._began[index]), "t": seconds}
        self._returns[index] = 0.0
        self._began[index] = self._steps

    def _refuse(self, index: int, action: int, player: int, legal: Sequence[int]) -> ValueError:
        """Return the error that an illegal action is answered with."""
        allowed = ", ".join(map(str, legal))
        return ValueError(
            f"`actions`: {action} is illegal for player {player} in environment {index} of {self.name}, who may choose "
            f"among {allowed}; a policy with an action mask, such as 'MaskedMlpPolicy', chooses no other"
        )

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values."""
        return {
            **self._identity(),
            "plays": self._plays,
            "games": self._games() if self._plays else {},
            "random": self._random.bit_generator.state,
            "returns": self._returns.copy(),
            "lengths": self._steps - self._began,
            "seconds": time.time() - self._started_at,
            "seeds": list(self._seeds),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which ``get_state`` of the same environments returned.

        Raises:
            StateNotRestorableError: if it comes from other environments.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise StateNotRestorableError(
                    f"the state was saved with the {name} {state.get(name)!r}, these environments have {value!r}"
                )
        self._plays = state["plays"]
        self._random.bit_generator.state = state["random"]
        if self._plays:
            self._set_games(state["games"])
        self._start_counting(state["returns"], state["lengths"])
        self._started_at = time.time() - state["seconds"]
        self._seeds = list(state["seeds"])

    def _start_counting(self, returns: Any, lengths: Any) -> None:
        self._returns[:] = returns
        self._steps = 0
        self._began[:] = -np.asarray(lengths)

    def _identity(self) -> dict[str, Any]:
        """Return what a state and the environments that continue from it must have in common."""
        return {"kind": type(self).__name__, "game": self.name, "num_envs": self.num_envs}

    def close(self) -> None:
        """End the games."""
        self._plays = False

    def _attribute(self, name: str, index: int) -> Any:
        if name == "acting_player":
            return int(self.acting_player[index])
        if name == "render_mode":
            return None
        if name in ("metadata", "name", "observation_space", "action_space"):
            return getattr(self, name)
        raise AttributeError(f"{self.name}'s environments have no attribute {name!r}")
