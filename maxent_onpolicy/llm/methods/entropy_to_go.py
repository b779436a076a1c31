"""The entropy advantage of tokens, without a critic."""

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.estimators.entropy import sampled_entropy_reward
from maxent_onpolicy.llm.advantages import EntropyScale, critic_free_advantage, token_soft_advantage
from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods.base import EntropyControl


@dataclass
class EntropyToGo(EntropyControl):
    """Adds the discounted future entropy over its mean in the group (entropy-to-go, without a critic).

    Our variant of arXiv:2407.18143, with :func:`~maxent_onpolicy.llm.advantages.group_baseline` in the critic's place;
    each prompt needs two completions or more.

    Attributes:
        tau: weight τ; ``exact`` is whether a token earns its whole entropy in place of ``−log π``.
        entropy_gamma: γ_H.
        scale: to which ``A_H`` is brought; ``centered`` is whether its mean is taken out before.
    """

    tau: float = 0.1
    entropy_gamma: float = 0.95
    exact: bool = False
    scale: EntropyScale = "task"
    centered: bool = True

    name = "entropy_to_go"
    source = "arXiv:2407.18143"
    verified = "code"
    kind = "advantage"
    owns = frozenset({"entropy_advantage"})

    def __post_init__(self) -> None:
        self._check(tau=(0, float("inf")), entropy_gamma=(0, 1))
        self._check_choices(exact=(True, False), centered=(True, False), scale=get_args(EntropyScale))

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`."""
        reward = batch.old_entropy if self.exact else sampled_entropy_reward(batch.old_log_prob)
        future = critic_free_advantage(reward, batch.mask, batch.group, self.entropy_gamma).advantage
        return token_soft_advantage(batch.advantage, future, batch.mask, self.tau, self.scale, centered=self.centered)
