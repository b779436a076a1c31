"""What an update reports, averaged as stable_baselines3 averages it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class UpdateMetrics:
    """Means over the minibatches of an update.

    Attributes:
        sums: over all minibatches so far, of each minibatch's mean.
        count: minibatches so far.
        last: means over the last epoch.
        loss: of the last minibatch.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0
    last: dict[str, Tensor] = field(default_factory=dict)
    loss: Tensor = field(default_factory=lambda: torch.tensor(float("nan")))

    def add(self, sums: dict[str, Tensor], count: int, last_loss: Tensor) -> None:
        """Add an epoch, or several; the last one by itself.

        Args:
            sums: scalars; over their minibatches, of each minibatch's mean.
            count: their minibatches.
            last_loss: the last one's loss.
        """
        self.sums = {name: self.sums[name] + value if name in self.sums else value for name, value in sums.items()}
        self.count += count
        self.loss = last_loss
        self.last = {name: value / count for name, value in sums.items()}

    def means(self) -> dict[str, float]:
        """Return the numbers to log; ``approx_kl`` is the last epoch's: how far the update has moved the policy."""
        means = {name: (value / self.count).item() for name, value in self.sums.items()}
        return means | {"approx_kl": self.last["approx_kl"].item(), "loss": self.loss.item()}
