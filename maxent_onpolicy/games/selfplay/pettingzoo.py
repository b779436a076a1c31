"""PettingZoo's turn-based games as an SB3 ``VecEnv`` in which a policy plays against itself."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from maxent_onpolicy.envs.batched import remake
from maxent_onpolicy.games.selfplay.encoding import PLAYERS, observation_space
from maxent_onpolicy.games.selfplay.turns import Observations, TurnBasedVecEnv
from maxent_onpolicy.policies.masked import ACTION_MASK, OBSERVATION
from maxent_onpolicy.validation import check_integer, did_you_mean

MakeGame = Callable[[], Any]
_NAME = re.compile(r"classic/(\w+)-v(\d+)")


class PettingZooVecEnv(TurnBasedVecEnv):
    """``n_envs`` copies of a two-player zero-sum AEC game of PettingZoo with action masks.

    It offers what :class:`~maxent_onpolicy.games.selfplay.vec_env.SelfPlayVecEnv` does; the first of the game's
    ``possible_agents`` is player 0. A state is restored by playing the same actions again from the same seed, so that
    resuming is exact if the seed of ``reset`` determines the game.

    Args:
        game: name of one of PettingZoo's classic games (``"connect_four_v3"``), or a function that returns a new AEC
            environment.
        n_envs: ``B``.
        seed: from which the seeds of all games are drawn; ``None`` draws one from numpy's global generator.
        monitor: report player 0's return and the length of each game in ``info["episode"]``, as SB3's ``Monitor``.

    Raises:
        ImportError: without PettingZoo, or what the game needs, saying what to install.
        ValueError: if there is no such game, naming the closest; if it has not two players, discrete actions and
            action masks.
    """

    def __init__(self, game: str | MakeGame, n_envs: int = 1, seed: int | None = None, *, monitor: bool = True) -> None:
        make = _classic(game) if isinstance(game, str) else game
        self.games = [make() for _ in range(check_integer("n_envs", n_envs, 1))]
        first = self.games[0]
        name = game if isinstance(game, str) else str(first)
        self._made_of = partial(PettingZooVecEnv, game, n_envs, monitor=monitor)
        self._agents = list(first.possible_agents)
        size, n_actions = _sizes(first, name)
        self._seen = np.zeros((n_envs, size), np.float32)
        self._mask = np.zeros((n_envs, n_actions), np.int8)
        self._player = np.zeros(n_envs, np.int64)
        self._played: list[tuple[int, list[int]]] = [(0, [])] * n_envs
        super().__init__(name, n_envs, observation_space(size, n_actions), spaces.Discrete(n_actions), seed, monitor)

    @property
    def acting_player(self) -> np.ndarray:
        """Who acts next in each game, ``[B]``, 0 or 1."""
        return self._player.copy()

    def _begin(self) -> Observations:
        for index in range(self.num_envs):
            self._restart(index, int(self._random.integers(2**31)))
        return self._observe()

    def _restart(self, index: int, seed: int) -> None:
        self.games[index].reset(seed=seed)
        self._played[index] = (seed, [])
        self._look(index)

    def _look(self, index: int) -> None:
        """Take in what the acting player of a game sees."""
        game = self.games[index]
        seen = game.observe(game.agent_selection)
        player = self._agents.index(game.agent_selection)
        self._seen[index] = 0.0
        self._seen[index, :-PLAYERS] = np.asarray(seen[OBSERVATION], np.float32).reshape(-1)
        self._seen[index, player - PLAYERS] = 1.0
        self._mask[index] = seen[ACTION_MASK]
        self._player[index] = player

    def _advance(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, dict[int, Observations]]:
        for index, action in enumerate(actions.tolist()):
            if not (0 <= action < self._mask.shape[1] and self._mask[index, action]):
                allowed = np.flatnonzero(self._mask[index]).tolist()
                raise self._refuse(index, action, int(self._player[index]), allowed)
        reward, done = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        cut_off = {}
        for index, action in enumerate(actions.tolist()):
            game = self.games[index]
            game.step(action)
            self._played[index][1].append(action)
            reward[index] = self._gain(game)
            terminated, truncated = any(game.terminations.values()), any(game.truncations.values())
            done[index] = terminated or truncated
            self._look(index)
            if done[index]:
                if not terminated:
                    cut_off[index] = {key: value[index] for key, value in self._observe().items()}
                self._restart(index, int(self._random.integers(2**31)))
        return self._observe(), reward, done, cut_off

    def _gain(self, game: Any) -> float:
        first, second = (float(game.rewards[agent]) for agent in self._agents)
        if abs(first + second) > 1e-6 * max(1.0, abs(first)):
            raise ValueError(f"{self.name} is not zero-sum: it pays {first:g} and {second:g} in one step")
        return first

    def _observe(self) -> Observations:
        return {OBSERVATION: self._seen.copy(), ACTION_MASK: self._mask.copy()}

    def _games(self) -> dict[str, Any]:
        seeds, played = zip(*self._played, strict=True)
        return {"seeds": list(seeds), "actions": [list(actions) for actions in played]}

    def _set_games(self, games: dict[str, Any]) -> None:
        for index, (seed, actions) in enumerate(zip(games["seeds"], games["actions"], strict=True)):
            self._restart(index, seed)
            for action in actions:
                self.games[index].step(action)
            self._played[index] = (seed, list(actions))
            self._look(index)

    def close(self) -> None:
        """End the games."""
        for game in self.games:
            game.close()
        super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as how it was made and its state; what ``set_attr`` added is left out."""
        return remake, (self._made_of, self.get_state(), self.reset_infos)


def _classic(name: str) -> MakeGame:
    """Return a function that makes one of PettingZoo's classic games."""
    try:
        from pettingzoo import aec_registry, make
    except ImportError as error:
        raise ImportError("this needs PettingZoo 1.27 or later: pip install 'maxent-onpolicy[games]'") from error
    known = {_NAME.sub(r"\1_v\2", key): key for key in aec_registry if key.startswith("classic/")}
    if name not in known:
        raise ValueError(f"PettingZoo has no classic game {name!r}{did_you_mean(name, known)}")

    def make_game() -> Any:
        try:
            return make("aec", known[name])
        except Exception as error:
            if not isinstance(error.__cause__ or error, ImportError):
                raise
            raise ImportError(f"{name} cannot be imported ({error}): pip install 'pettingzoo[classic]'") from error

    return make_game


def _sizes(game: Any, name: str) -> tuple[int, int]:
    """Return the length of what the players see, and the number of actions.

    Raises:
        ValueError: if the game has not two players, discrete actions and action masks.
    """
    if len(game.possible_agents) != 2:
        raise ValueError(f"{name} has {len(game.possible_agents)} players; it must have two")
    agent = game.possible_agents[0]
    seen, actions = game.observation_space(agent), game.action_space(agent)
    if not isinstance(actions, spaces.Discrete):
        raise ValueError(f"{name} has the actions {actions}; they must be discrete")
    if not (isinstance(seen, spaces.Dict) and {OBSERVATION, ACTION_MASK} <= set(seen.spaces)):
        raise ValueError(f"{name} has no action masks: its observations are {seen}")
    shape = seen[OBSERVATION].shape
    assert shape is not None
    return int(np.prod(shape)) + PLAYERS, int(actions.n)
