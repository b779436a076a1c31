"""Procgen's games as an SB3 ``VecEnv``, on the C library that its wheels bring."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from maxent_onpolicy.cores import share_of_cores
from maxent_onpolicy.envs.batched import BatchedVecEnv, remake
from maxent_onpolicy.envs.capture import StateNotRestorableError
from maxent_onpolicy.envs.procgen.batch import GameBatch
from maxent_onpolicy.envs.procgen.games import ACTIONS, make_options
from maxent_onpolicy.envs.procgen.library import load_library
from maxent_onpolicy.envs.procgen.saved_game import read_saved_game, without_timeout
from maxent_onpolicy.validation import check_choice, check_integer

_KEYWORDS = ("monitor", "num_threads", "render_mode", "timeouts", "copy_observations")
_INFOS = ("prev_level_seed", "prev_level_complete", "level_seed")
_ENLARGED = 8  # to 512 by 512, as the library's own pictures


class ProcgenVecEnv(BatchedVecEnv):
    """``n_envs`` copies of one Procgen game, stepped by the C library.

    From the same seed and actions, observations, rewards and episodes equal those of OpenAI's ``ProcgenGym3Env`` bit
    for bit. Beyond it, an episode that the game's timeout cuts off is told from one that ends, with its true last
    observation. For that the state of a game that is about to time out is copied into a second one without timeout,
    which takes the same step; the first is not touched. Where an episode ends by itself the library has no last
    observation; ``terminal_observation`` is left out of the info then, and no value is bootstrapped there.

    Args:
        game: a name in :data:`~maxent_onpolicy.envs.procgen.games.GAMES`.
        n_envs: ``B``.
        monitor: report return and length of each episode in ``info["episode"]``, as SB3's ``Monitor``.
        num_threads: how many threads step, at most ``n_envs``; 0 steps in the calling thread. Default: as many as cores
            are available. It changes nothing but the speed.
        render_mode: ``"rgb_array"`` lets ``get_images`` return pictures of 512 by 512, drawn when they are asked for;
            ``None`` does not.
        timeouts: ``"truncation"``: the value of the last observation is bootstrapped, ``"termination"``: timeouts count
            as ends of the task, as in published results.
        copy_observations: whether observations are copies. Without, ``step`` and ``reset`` return the library's own
            memory, which it overwrites from the next ``step_async`` on: for loops that keep nothing. Whoever learns,
            SB3 and this package included, uses an observation after the next step and needs copies.
        **options: of the game, see :class:`~maxent_onpolicy.envs.procgen.games.GameOptions`.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
        ImportError: if Procgen or a library of the system is not installed; says what to install.
    """

    def __init__(
        self,
        game: str,
        n_envs: int = 1,
        *,
        monitor: bool = True,
        num_threads: int | None = None,
        render_mode: str | None = "rgb_array",
        timeouts: str = "truncation",
        copy_observations: bool = True,
        **options: Any,
    ) -> None:
        check_integer("n_envs", n_envs, 1)
        self.options = make_options(game, options, _KEYWORDS)
        check_choice("render_mode", render_mode, (None, "rgb_array"))
        self.timeouts = check_choice("timeouts", timeouts, ("truncation", "termination"))
        if self.options.use_generated_assets and timeouts == "truncation":
            raise ValueError(
                "`use_generated_assets=True` needs `timeouts='termination'`: the library cannot copy such games, so "
                "that the last observation of an episode that is cut off is not known"
            )
        self._threads = (
            _default_threads(n_envs)
            if num_threads is None
            else min(check_integer("num_threads", num_threads, 0), n_envs)
        )
        self._made_of = partial(
            ProcgenVecEnv, game, n_envs, monitor=monitor, num_threads=num_threads, render_mode=render_mode,
            timeouts=timeouts, copy_observations=copy_observations, **options,
        )  # fmt: skip
        load_library()
        self.monitor, self.copy_observations = monitor, copy_observations
        self._render_mode = render_mode
        self._games: GameBatch | None = None
        self._uncut: GameBatch | None = None
        self._viewer: GameBatch | None = None
        self._closed = False
        self._timeout = 0
        self._no_reward = np.zeros(n_envs, dtype=np.float32).tobytes()
        # So many steps can be taken before it must be looked whether a game is about to time out.
        self._unhurried = 0
        self._expiring: dict[int, tuple[bytes, int]] = {}
        self._returns = np.zeros(n_envs)
        # Steps so far, and at which of them each episode began: nothing has to be counted in every step and game.
        self._steps, self._began = 0, np.zeros(n_envs, dtype=np.int64)
        # A game's own clock starts again at every level, which is every episode but with sequential levels.
        self._clock_began = self._began.copy() if self.options.use_sequential_levels else self._began
        self._started_at = time.time()
        picture = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        super().__init__(n_envs, picture, spaces.Discrete(len(ACTIONS)))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # type: ignore[dict-item]

    def reset(self) -> np.ndarray:
        """Start a new episode in every environment; return the observation ``[B, 64, 64, 3]`` uint8.

        After ``seed``, and the first time, the sequence of levels begins anew. Otherwise it goes on: the library ends
        a running episode with one step of the game's default action, which no one sees.
        """
        self._refuse_closed()
        if self._games is None and self._seeds[0] is None:
            self.seed()
        if self._seeds[0] is not None:
            self._open(self._seeds[0])
        else:
            self._running().act(-1)
        games = self._running()
        games.observe()
        self._reset_seeds()
        self._start_counting(0.0, 0, 0)
        self.reset_infos = [{"level_seed": level} for level in games.info["level_seed"].tolist()]
        return self._observation()

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step with ``actions`` ``[B]``, integers from 0 to 14.

        Raises:
            ValueError: for another shape, type or number.
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        games = self._running()
        actions = self._checked(actions)
        if self._unhurried > 0:
            self._unhurried -= 1
        elif self.timeouts == "truncation":
            clocks = self._clocks()
            due = clocks >= self._timeout - 1
            self._expiring = {
                index: (games.get_state(index), int(actions[index])) for index in np.flatnonzero(due).tolist()
            }
            self._unhurried = self._timeout - 2 - int(np.where(due, 0, clocks).max())
        games.act(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step that ``step_async`` began.

        Returns:
            Observation ``[B, 64, 64, 3]`` uint8 (of the new episode where one ended), reward ``[B]`` float32, done
            ``[B]`` and infos: ``prev_level_seed``, ``prev_level_complete`` and ``level_seed`` as in OpenAI's package,
            and ``TimeLimit.truncated``. Where that is true, ``terminal_observation`` is the true last observation.
        """
        games = self._running()
        finals: dict[int, np.ndarray | None] = {}
        if self._expiring:  # meanwhile the library's threads step
            finals = {index: self._play_on(state, action) for index, (state, action) in self._expiring.items()}
            self._expiring = {}
        games.observe()
        infos = _build_infos(games.info)
        self._steps += 1
        # In most steps no game ends or rewards. To look at the bytes takes a tenth of the time of any arithmetic.
        if games.reward.tobytes() != self._no_reward:
            self._returns += games.reward
        if self.options.use_sequential_levels:
            self._clock_began[games.info["level_seed"] != games.info["prev_level_seed"]] = self._steps
        for index in np.flatnonzero(games.first).tolist() if 1 in games.first.tobytes() else ():
            final = finals.get(index)
            if final is not None:
                infos[index]["terminal_observation"] = final
                infos[index]["TimeLimit.truncated"] = True
            self._end_episode(index, infos[index])
        return self._observation(), games.reward.copy(), games.first.copy(), infos

    def _clocks(self) -> np.ndarray:
        """Return how many steps each game's own clock has counted, ``[B]``."""
        return self._steps - self._clock_began

    def _end_episode(self, index: int, info: dict[str, Any]) -> None:
        if self.monitor:
            score, seconds = round(float(self._returns[index]), 6), round(time.time() - self._started_at, 6)
            info["episode"] = {"r": score, "l": self._steps - int(self._began[index]), "t": seconds}
        self._returns[index] = 0
        self._began[index] = self._clock_began[index] = self._steps
        self.reset_infos[index] = {"level_seed": info["level_seed"]}

    def _play_on(self, state: bytes, action: int) -> np.ndarray | None:
        """Return what follows ``state`` if the game did not time out; ``None`` if the episode ends all the same."""
        if self._uncut is None:
            self._uncut = GameBatch(1, self.options.for_library(0, 0, render_human=False))
        self._uncut.set_state(0, without_timeout(state))
        self._uncut.act(action)
        self._uncut.observe()
        return None if self._uncut.first[0] else self._uncut.observation[0].copy()

    def _checked(self, actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"`actions` must be integers of shape ({self.num_envs},), got {actions.dtype} {list(actions.shape)}"
            )
        numbers = actions.tolist()  # for so few, faster than numpy
        if min(numbers) < 0 or max(numbers) >= len(ACTIONS):
            raise ValueError(f"`actions` must be in [0, {len(ACTIONS) - 1}], got {numbers}")
        return actions

    def _observation(self) -> np.ndarray:
        observation = self._running().observation
        return observation.copy() if self.copy_observations else observation

    def _open(self, seed: int) -> None:
        """Make new games, whose levels are those of ``seed``."""
        if self._games is not None:
            self._games.close()
        self._games = GameBatch(self.num_envs, self.options.for_library(seed % 2**31, self._threads, False))
        if self.timeouts == "truncation":
            self._timeout = read_saved_game(self._games.get_state(0)).timeout

    def _running(self) -> GameBatch:
        if self._games is None:
            self._refuse_closed()
            raise gym.error.ResetNeeded("Cannot step or look at the environments before calling reset()")
        return self._games

    def _refuse_closed(self) -> None:
        if self._closed:
            raise gym.error.ClosedEnvironmentError("the environments are closed; make new ones")

    def close(self) -> None:
        """End the library's threads and free the games."""
        self._closed = True
        for games in (self._games, self._uncut, self._viewer):
            if games is not None:
                games.close()
        self._games = self._uncut = self._viewer = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as how it was made and its state; what ``set_attr`` added is left out."""
        return remake, (self._made_of, self.get_state(), self.reset_infos)

    def get_images(self, indices: VecEnvIndices = None) -> Sequence[np.ndarray | None]:
        """Return a picture ``[512, 512, 3]`` uint8 of each environment, or of those asked for.

        It is the library's own, smoother than the observation, and drawn only now. With ``use_generated_assets`` it
        is the observation, enlarged. Without a ``render_mode`` it is ``None``.
        """
        chosen = list(self._get_indices(indices))
        if self.render_mode is None:
            return [None for _ in chosen]
        return [self._picture(index) for index in chosen]

    def _picture(self, index: int) -> np.ndarray:
        games = self._running()
        if self.options.use_generated_assets:
            games.observe()
            return games.observation[index].repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
        if self._viewer is None:
            self._viewer = GameBatch(1, self.options.for_library(0, 0, render_human=True))
        self._viewer.set_state(0, games.get_state(index))
        self._viewer.observe()
        return self._viewer.info["rgb"][0].copy()

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values.

        Raises:
            StateNotRestorableError: with ``use_generated_assets``, whose pictures the library cannot save.
        """
        self._refuse_closed()
        games = self._games
        if games is not None and self.options.use_generated_assets:
            raise StateNotRestorableError("Procgen's library cannot save games with `use_generated_assets=True`")
        saved = [] if games is None else [games.get_state(index) for index in range(self.num_envs)]
        return {
            **self._identity(),
            "games": [np.frombuffer(state, dtype=np.uint8) for state in saved],
            "returns": self._returns.copy(),
            "lengths": self._steps - self._began,
            "seconds": time.time() - self._started_at,
            "seeds": list(self._seeds),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which ``get_state`` of a ``ProcgenVecEnv`` made the same way returned.

        Raises:
            StateNotRestorableError: if it comes from other environments or another package, or is damaged.
        """
        self._refuse_closed()
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise StateNotRestorableError(
                    f"the state was saved with the {name} {state.get(name)!r}, these environments have {value!r}"
                )
        saved = [np.asarray(game, dtype=np.uint8).tobytes() for game in state["games"]]
        clocks = [self._clock_of(game) for game in saved]
        if saved and self._games is None:
            self._open(0)
        for index, game in enumerate(saved):
            self._running().set_state(index, game)
        if not saved and self._games is not None:
            self._games.close()
            self._games = None
        self._start_counting(state["returns"], state["lengths"], clocks or 0)
        self._started_at = time.time() - state["seconds"]
        self._seeds = list(state["seeds"])

    def _start_counting(self, returns: Any, lengths: Any, clocks: Any) -> None:
        self._returns[:] = returns
        self._steps = 0
        self._began[:] = -np.asarray(lengths)
        self._clock_began[:] = -np.asarray(clocks)
        self._expiring, self._unhurried = {}, 0

    def _identity(self) -> dict[str, Any]:
        """Return what a state and the environments that continue from it must have in common."""
        options = {name: getattr(self.options, name) for name in self.options.__dataclass_fields__}
        package = load_library().package
        return {"kind": type(self).__name__, "package": package, "options": options, "num_envs": self.num_envs}

    def _clock_of(self, state: bytes) -> int:
        try:
            game = read_saved_game(state)
        except ValueError as error:
            raise StateNotRestorableError(f"the saved state of a game cannot be read: {error}") from error
        if game.game != self.options.game:
            raise StateNotRestorableError(f"the saved state is one of {game.game}, not of {self.options.game}")
        return game.elapsed

    def _attribute(self, name: str, index: int) -> Any:
        if name in _INFOS:
            return self._running().info[name][index].item()
        if name == "render":
            return partial(self._picture, index)
        if name == "render_mode":
            return self._render_mode
        if name in ("metadata", "observation_space", "action_space", "options"):
            return getattr(self, name)
        raise AttributeError(f"Procgen's environments have no attribute {name!r}")

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Accept no options for the next reset.

        Raises:
            ValueError: if there are any.
        """
        if options and (isinstance(options, dict) or any(options)):
            raise ValueError(f"`options`: Procgen's reset takes none, got {options!r}")


def _build_infos(info: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    previous, complete, level = map(np.ndarray.tolist, map(info.__getitem__, _INFOS))
    return [
        {
            "prev_level_seed": before,
            "prev_level_complete": bool(solved),
            "level_seed": now,
            "TimeLimit.truncated": False,
        }
        for before, solved, now in zip(previous, complete, level, strict=True)
    ]


def _default_threads(n_envs: int) -> int:
    """Return as many threads as cores, but no other thread where it would only be waited for."""
    threads = min(n_envs, share_of_cores())
    return threads if threads > 1 else 0
