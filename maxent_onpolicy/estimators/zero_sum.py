"""Self-play in two-player zero-sum games: one frame for the critics, each player's own for the policy.

Rewards, critics and generalised advantage estimation are in the *first player's frame*: what player 0 gains, and so
what player 1 loses. One recursion then runs through a whole game, whoever moves
(:func:`~maxent_onpolicy.estimators.advantages.gae` as it is). Only what the policy follows is turned into the frame of
the player who acted.

In such a game the soft return adds a player's own entropy and *subtracts* the opponent's: ``max_μ min_ν`` of the payoff
``+ τ·H(μ) − τ·H(ν)`` (Cen, Wei & Chi 2021, arXiv:2105.15186).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maxent_onpolicy.estimators.advantages import AdvantageEstimate


def player_sign(acting_player: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return +1 where player 0 acts and −1 where player 1 does: the factor between the two frames, either way."""
    return 1.0 - 2.0 * acting_player.to(torch.get_default_dtype())


def zero_sum_entropy_reward(
    entropy_reward: Float[Tensor, "*shape"], sign: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Turn the entropy reward of whoever acts into the first player's frame: ``sign·h``.

    Args:
        entropy_reward: nats; the acting player's own, sampled, exact or centred.
        sign: of the acting player.
    """
    return sign * entropy_reward


def acting_players_advantage(estimate: AdvantageEstimate, sign: Float[Tensor, "*shape"]) -> AdvantageEstimate:
    """Turn an advantage from the first player's frame into that of whoever acted; the critic's target stays.

    ``sign·A``, and applied to both estimates ``sign·(A + τ·A_H)``. With the entropy reward of
    :func:`zero_sum_entropy_reward` the step's own entropy counts positively for both players.

    Args:
        estimate: advantage and target in the first player's frame.
        sign: of the acting player.
    """
    return AdvantageEstimate(sign * estimate.advantage, estimate.target)
