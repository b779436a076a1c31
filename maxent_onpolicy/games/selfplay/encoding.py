"""What the networks see of a state of an OpenSpiel game."""

from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Float32, Int8

from maxent_onpolicy.policies.masked import ACTION_MASK, OBSERVATION

PLAYERS = 2


class Encoding:
    """Turns a state into a vector for the player who acts, and a mask of the legal actions.

    The vector is OpenSpiel's information-state tensor, followed by two numbers of which that of the acting player is 1.
    Where a game has no such tensor but no secrets either, its observation tensor takes the place.

    Args:
        game: a ``pyspiel.Game`` in which players take turns.

    Raises:
        ValueError: if the game offers no tensor that tells all a player knows.
    """

    def __init__(self, game: Any) -> None:
        import pyspiel

        kind = game.get_type()
        secrets = kind.information == pyspiel.GameType.Information.IMPERFECT_INFORMATION
        self._remembers = kind.provides_information_state_tensor
        if not self._remembers and (secrets or not kind.provides_observation_tensor):
            raise ValueError(f"{game} offers no information-state tensor, which is what the policy would see")
        self.n_actions = game.num_distinct_actions()
        tensor = game.information_state_tensor_size() if self._remembers else game.observation_tensor_size()
        self.size = tensor + PLAYERS

    def space(self) -> spaces.Dict:
        """Return the observation space of what :meth:`fill` fills in."""
        return observation_space(self.size, self.n_actions)

    def fill(
        self,
        state: Any,
        observation: Float32[np.ndarray, " size"],
        mask: Int8[np.ndarray, " actions"],
    ) -> None:
        """Write what the acting player of ``state`` sees, and may do, into two rows of zeros."""
        player = state.current_player()
        tensor = state.information_state_tensor(player) if self._remembers else state.observation_tensor(player)
        observation[:-PLAYERS] = tensor
        observation[player - PLAYERS] = 1.0
        mask[state.legal_actions()] = 1


def observation_space(size: int, n_actions: int) -> spaces.Dict:
    """Return the space of a vector with ``size`` numbers and a mask of ``n_actions``."""
    vector = spaces.Box(-np.inf, np.inf, (size,), np.float32)
    return spaces.Dict({OBSERVATION: vector, ACTION_MASK: spaces.MultiBinary(n_actions)})
