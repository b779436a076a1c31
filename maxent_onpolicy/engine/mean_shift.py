"""Random shifts of the policy's mean, which an update trains with and a rollout never sees.

A Gaussian's density depends on the difference of action and mean alone:
``log N(a; μ + z, σ) = log N(a − z; μ, σ)``. So a minibatch in which every action is
moved by ``−z`` is all that an engine needs.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.engine.buffer import Minibatch


class MeanShift:
    """The shifts of one epoch, each drawn for one action component of one sample.

    They come from a generator of their own, seeded for this epoch: nothing else draws from it, and training can go on
    from any epoch without its state. On the CPU many small draws equal a large one.

    Args:
        alpha: shifts are uniform in ``[−alpha, alpha)``.
        action_dim: ``A``.
        seed: of the model.
        epoch: number of the epoch.
        device: where the shifts are drawn.
    """

    def __init__(self, alpha: float, action_dim: int, seed: int, epoch: int, device: torch.device) -> None:
        self.alpha, self.action_dim = alpha, action_dim
        key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
        self._generator = torch.Generator(device).manual_seed(int(key >> np.uint64(1)))

    def draw(self, count: int) -> Tensor:
        """Return the shifts ``[count, A]`` of the epoch's next samples, in units of the action."""
        shift = torch.empty(count, self.action_dim, device=self._generator.device)
        return shift.uniform_(-self.alpha, self.alpha, generator=self._generator)


def shifted(batches: Iterator[Minibatch], shift: MeanShift | None) -> Iterator[Minibatch]:
    """Yield an epoch's minibatches with their actions ``a − z``; as they are where there is no shift.

    Args:
        batches: of the rollout.
        shift: of this epoch.
    """
    for batch in batches:
        yield batch if shift is None else batch._replace(action=batch.action - shift.draw(len(batch.action)))
