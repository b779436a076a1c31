"""What a pair of strategies is worth."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch

Number = float | torch.Tensor


class Evaluation(NamedTuple):
    """Measures of a pair of strategies; floats, or one number a game of a batch.

    Attributes:
        qre_gap: what both players could gain together, entropy counted, against each other; 0 at the quantal response
            equilibrium.
        nash_conv: what both could gain together without counting entropy; 0 at a Nash equilibrium.
        exploitability: half of ``nash_conv``, as OpenSpiel defines it for two players.
        value: the first player's expected payoff.
        q_residual: in Markov games, a bound on the distance of the learned action values to those of the quantal
            response equilibrium.
    """

    qre_gap: Number
    nash_conv: Number
    exploitability: Number
    value: Number
    q_residual: Number | None = None


def not_negative(gap: Any) -> Any:
    """Return a gap, or a batch of them, with 0 for what rounding has made negative; NaN stays.

    No strategy earns more than a best response, so no gap is below 0 by more than rounding.
    """
    if isinstance(gap, torch.Tensor):
        return torch.where(gap <= 0.0, 0.0, gap)
    return 0.0 if gap <= 0.0 else gap


def largest(number: Number | None, smallest: bool = False) -> float:
    """Return a number, or of a batch the largest (or smallest); NaN if any is NaN."""
    if not isinstance(number, torch.Tensor):
        return float("nan") if number is None else float(number)
    return float(number.min() if smallest else number.max())


def digest(*arrays: np.ndarray) -> str:
    """Return a short hash of what arrays hold."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:12]
