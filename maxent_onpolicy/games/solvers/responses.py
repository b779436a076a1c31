"""Which response belongs to which kind of game."""

from typing import Any

import torch

from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.matrix import MatrixGame


def make_response(game: Any, dtype: str, device: str | torch.device, compile: bool = False) -> Any:
    """Return the response of a kind of game.

    Raises:
        TypeError: if it is no game.
        ValueError: if a game in sequence form is asked for in another type than float64, or on a GPU.
    """
    if compile and not isinstance(game, MatrixGame):
        raise ValueError("compile=True is for matrix games")
    if isinstance(game, MatrixGame):
        from maxent_onpolicy.games.solvers.softmax import SoftmaxResponse

        return SoftmaxResponse(game, dtype, device, compile)
    if isinstance(game, MarkovGame):
        from maxent_onpolicy.games.solvers.states import StateResponse

        return StateResponse(game, dtype, device)
    from maxent_onpolicy.games.sequence_form import SequenceFormGame

    if not isinstance(game, SequenceFormGame):
        raise TypeError(f"`game` must be a MatrixGame, MarkovGame or SequenceFormGame, got {type(game).__name__}")
    if dtype != "float64" or torch.device(device).type != "cpu":
        raise ValueError(
            f"games in sequence form are solved in float64 on the CPU, got dtype={dtype!r}, device={device}"
        )
    from maxent_onpolicy.games.solvers.dilated import DilatedResponse

    return DilatedResponse(game)
