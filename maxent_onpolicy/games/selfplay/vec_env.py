"""OpenSpiel's games as an SB3 ``VecEnv`` in which a policy plays against itself."""

import warnings
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
from gymnasium import spaces

from maxent_onpolicy.envs.batched import remake
from maxent_onpolicy.envs.capture import StateNotRestorableError
from maxent_onpolicy.games.openspiel import GameTooLargeError, load_zero_sum
from maxent_onpolicy.games.selfplay.tree import END, GameTree
from maxent_onpolicy.games.selfplay.turns import Observations, TurnBasedVecEnv
from maxent_onpolicy.policies.masked import ACTION_MASK, OBSERVATION


class SelfPlayVecEnv(TurnBasedVecEnv):
    """``n_envs`` copies of one two-player zero-sum game of OpenSpiel; a step is a decision of whoever's turn it is.

    ``PPO``, ``TRPO`` and their maximum-entropy versions see from :attr:`acting_player` that two players take turns.
    Their critics then predict what player 0 gains, and each player's actions follow its own advantage::

        model = MaxEntPPO("MaskedMlpPolicy", SelfPlayVecEnv("leduc_poker", n_envs=16, seed=0), gamma=1.0)
        model.learn(1_000_000)

    Chance is sampled inside. Where players move at the same time, player 1 moves without seeing what player 0 did. What
    was visited of the game's tree is kept, so that in small games a step costs a few array operations.

    Args:
        game: a ``pyspiel.Game`` or its name, with parameters as OpenSpiel writes them: ``"liars_dice(numdice=1)"``.
        n_envs: ``B``.
        seed: of chance's draws, all environments together; ``None`` draws one from numpy's global generator.
        monitor: report player 0's return and the length of each game in ``info["episode"]``, as SB3's ``Monitor``.

    Raises:
        ImportError: without OpenSpiel, saying what to install.
        ValueError: if there is no such game, naming the closest; if it is not one of two players and zero-sum; if its
            chance has no known probabilities, or it offers no tensor of what a player knows.
    """

    def __init__(self, game: Any, n_envs: int = 1, seed: int | None = None, *, monitor: bool = True) -> None:
        self.game = _with_known_chance(load_zero_sum(game))
        self.tree = GameTree(self.game)
        self._made_of = partial(SelfPlayVecEnv, str(game), n_envs, monitor=monitor)
        self._nodes = np.zeros(n_envs, dtype=np.int64)
        encoding = self.tree.encoding
        super().__init__(str(game), n_envs, encoding.space(), spaces.Discrete(encoding.n_actions), seed, monitor)

    @property
    def acting_player(self) -> np.ndarray:
        """Who acts next in each game, ``[B]``, 0 or 1."""
        return self.tree.player[self._nodes].astype(np.int64)

    @cached_property
    def exact_score(self) -> Callable[..., float] | None:
        """A function of a model, and of whether it acts deterministically: what it earns against best responses.

        The mean over both seats, which is its exploitability with the other sign. The protocol of evaluation asks for
        it instead of playing episodes. ``None`` for a game that is too large to be walked through.
        """
        from maxent_onpolicy.games.selfplay.information_states import InformationStates

        try:
            states = InformationStates(self.game)
        except GameTooLargeError as error:
            warnings.warn(f"{error}; so a policy is judged by playing against itself as player 0", stacklevel=2)
            return None
        return lambda model, deterministic=False: (
            -float(states.evaluate(model, deterministic=deterministic).exploitability)
        )

    def _begin(self) -> Observations:
        roots = np.full(self.num_envs, self.tree.root, dtype=np.int64)
        self._nodes = self.tree.settle(roots, self._random)
        return self._observe()

    def _advance(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, dict[int, Observations]]:
        tree = self.tree
        if tree.is_full:
            self._nodes = tree.forget(self._nodes)
        self._check_legal(actions)
        reached = tree.settle(tree.act(self._nodes, actions), self._random)
        reward = tree.returns[reached] - tree.returns[self._nodes]
        done = tree.player[reached] == END
        if done.any():
            reached[done] = tree.settle(np.full(int(done.sum()), tree.root, dtype=np.int64), self._random)
        self._nodes = reached
        return self._observe(), reward, done, {}

    def _check_legal(self, actions: np.ndarray) -> None:
        """Raise if an action is illegal."""
        n_actions = self.tree.encoding.n_actions
        inside = (actions >= 0) & (actions < n_actions)
        legal = self.tree.mask[self._nodes, np.where(inside, actions, 0)].astype(bool) & inside
        if not legal.all():
            index = int(np.flatnonzero(~legal)[0])
            node = self._nodes[index]
            allowed = np.flatnonzero(self.tree.mask[node]).tolist()
            raise self._refuse(index, int(actions[index]), int(self.tree.player[node]), allowed)

    def _observe(self) -> Observations:
        return {OBSERVATION: self.tree.observation[self._nodes], ACTION_MASK: self.tree.mask[self._nodes]}

    def _games(self) -> dict[str, Any]:
        return {"histories": [list(map(int, self.tree.states[node].history())) for node in self._nodes]}

    def _set_games(self, games: dict[str, Any]) -> None:
        self._nodes = np.array([self.tree.add(self._replayed(history)) for history in games["histories"]], np.int64)

    def _replayed(self, history: list[int]) -> Any:
        state = self.game.new_initial_state()
        for action in history:
            if action not in state.legal_actions():
                raise StateNotRestorableError(
                    f"the saved state is damaged: {action} is illegal after {state.history()}"
                )
            state.apply_action(action)
        return state

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"game": str(self.game)}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as how it was made and its state; what ``set_attr`` added is left out."""
        return remake, (self._made_of, self.get_state(), self.reset_infos)


def _with_known_chance(game: Any) -> Any:
    """Return ``game``.

    Raises:
        ValueError: if only sampling tells what chance does.
    """
    import pyspiel

    if game.get_type().chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        raise ValueError(
            f"{game} does not tell chance's probabilities, from which games could go on as they were saved"
        )
    return game
