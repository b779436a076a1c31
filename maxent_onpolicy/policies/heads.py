"""The value heads: plain, and with PopArt's adaptive rescaling."""

import torch
from torch import Tensor, nn

from maxent_onpolicy.estimators.normalisation import PopArtState, popart_moments, popart_rescale, popart_update


class PopArtLinear(nn.Linear):
    """A scalar linear head that predicts in the targets' own units while it learns in normalised ones.

    ``forward`` returns ``σ·(Wh + b) + μ``, so every consumer of the critic sees
    ordinary values; dividing the squared error by σ² is the loss of the normalised
    prediction (van Hasselt et al. 2016; statistics debiased, see
    :func:`~maxent_onpolicy.estimators.normalisation.popart_moments`).

    Args:
        in_features: size of the critic's features.
        beta: weight of one rollout in the running statistics.
    """

    running_mean: Tensor
    running_mean_square: Tensor
    running_weight: Tensor

    def __init__(self, in_features: int, beta: float = 0.03) -> None:
        super().__init__(in_features, 1)
        self.beta = beta
        for name in ("running_mean", "running_mean_square", "running_weight"):
            # Double precision: E[x²] − E[x]² cancels badly for targets far from zero.
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @classmethod
    def from_linear(cls, linear: nn.Module, beta: float = 0.03) -> "PopArtLinear":
        """Return a PopArt head with fresh statistics that takes over the parameters of a scalar linear layer.

        Raises:
            ValueError: if ``linear`` is another kind of module.
        """
        if not isinstance(linear, nn.Linear) or linear.out_features != 1 or linear.bias is None:
            raise ValueError(f"`popart=True` needs a critic that ends in a Linear layer with one output, got {linear}")
        head = cls(linear.in_features, beta).to(linear.weight.device)
        head.weight, head.bias = linear.weight, linear.bias
        return head

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the targets, two float32 scalars."""
        mean, std = popart_moments(self._state)
        return mean.to(self.weight.dtype), std.to(self.weight.dtype)

    @property
    def _state(self) -> PopArtState:
        return PopArtState(self.running_mean, self.running_mean_square, self.running_weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return values ``[N, 1]`` in the targets' units for features ``[N, F]``."""
        mean, std = self.moments
        return std * super().forward(input) + mean

    @torch.no_grad()
    def update(self, target: Tensor) -> None:
        """Take a rollout's critic targets into the statistics and rescale the head so that its output is unchanged."""
        old = popart_moments(self._state)
        state = popart_update(self._state, target, self.beta)
        weight, bias = popart_rescale(self.weight, self.bias, old, popart_moments(state))
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.running_mean.copy_(state.mean)
        self.running_mean_square.copy_(state.mean_square)
        self.running_weight.copy_(state.weight)


def popart_heads(policy: nn.Module) -> dict[str, PopArtLinear]:
    """Return a policy's PopArt heads by critic (``"value"``, ``"entropy_value"``); empty without PopArt."""
    heads = {critic: getattr(policy, f"{critic}_net", None) for critic in ("value", "entropy_value")}
    return {critic: head for critic, head in heads.items() if isinstance(head, PopArtLinear)}


def head_scale(head: nn.Module) -> float | Tensor:
    """Return σ of a PopArt head; 1.0 for any other."""
    return head.moments[1] if isinstance(head, PopArtLinear) else 1.0
