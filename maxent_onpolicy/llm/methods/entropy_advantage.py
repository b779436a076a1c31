"""The entropy advantage of tokens, with a critic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.estimators.entropy import sampled_entropy_reward
from maxent_onpolicy.llm.advantages import EntropyScale, token_entropy_advantage, token_soft_advantage
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl, EntropyValues


@dataclass
class EntropyAdvantage(EntropyControl):
    """Adds the advantage of discounted future entropy, from a critic of its own (entropy advantage estimation).

    arXiv:2407.18143, read in the authors' code for agents with a fixed set of actions. That tokens are the actions, the
    scale and the defaults are ours; see :func:`~maxent_onpolicy.llm.advantages.token_soft_advantage`.

    Attributes:
        tau: weight τ; ``exact`` is whether a token earns its whole entropy in place of ``−log π``.
        entropy_gamma: γ_H; ``entropy_gae_lambda`` is λ_H.
        scale: to which ``A_H`` is brought; ``centered`` is whether its mean is taken out before.
        values: gives the critic's values of a batch; the trainer sets it.
    """

    tau: float = 0.1
    entropy_gamma: float = 0.95
    entropy_gae_lambda: float = 0.95
    exact: bool = False
    scale: EntropyScale = "task"
    centered: bool = True
    values: Callable[[TokenBatch], EntropyValues] | None = None

    name = "entropy_advantage"
    source = "arXiv:2407.18143"
    verified = "code"
    kind = "advantage"
    owns = frozenset({"entropy_advantage"})

    def __post_init__(self) -> None:
        self._check(tau=(0, float("inf")), entropy_gamma=(0, 1), entropy_gae_lambda=(0, 1))
        self._check_choices(exact=(True, False), centered=(True, False), scale=get_args(EntropyScale))

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        if self.values is None:
            raise ValueError("`values` of entropy_advantage must be set to the critic of the trainer")
        reward = batch.old_entropy if self.exact else sampled_entropy_reward(batch.old_log_prob)
        value, truncated, last_value = self.values(batch)
        future = token_entropy_advantage(
            reward, value, batch.mask, self.entropy_gamma, self.entropy_gae_lambda, truncated, last_value
        ).advantage
        return token_soft_advantage(batch.advantage, future, batch.mask, self.tau, self.scale, centered=self.centered)
