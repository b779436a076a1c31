"""OPO: the baseline that fits gradients which grow with length."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.batch import TokenBatch, check_groups
from maxent_onpolicy.llm.methods.base import EntropyControl
from maxent_onpolicy.llm.methods.formulas import group_sums


@dataclass
class OPO(EntropyControl):
    """Advantage over the length-weighted mean reward of the prompt's completions (OPO).

    ``A = R − Σ len·R/Σ len``, len counting the policy's own tokens (arXiv:2505.23585, the authors' code). It takes the
    place of the batch's advantage.
    """

    name = "opo"
    source = "arXiv:2505.23585"
    verified = "code"
    released = "verl-project/verl"
    kind = "advantage"
    owns = frozenset({"baseline"})

    @torch.no_grad()
    def shape(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """See :class:`EntropyControl`.

        Raises:
            ValueError: if a prompt has a single completion.
        """
        check_groups(batch.group)
        length = batch.mask.sum(1).to(batch.reward.dtype)
        baseline = group_sums(length * batch.reward, batch.group) / group_sums(length, batch.group)
        return (batch.reward - baseline).unsqueeze(1).expand_as(batch.advantage).to(batch.advantage.dtype)
