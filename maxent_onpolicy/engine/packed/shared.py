"""PPO's update on a packed model that several ranks train: each computes its part of every minibatch."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from maxent_onpolicy.engine.buffer import random_order
from maxent_onpolicy.engine.distributed import add_up
from maxent_onpolicy.engine.packed.minibatches import Minibatches
from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.engine.packed.ppo import PPOSettings, Rows
from maxent_onpolicy.engine.packed.update import PackedUpdate
from maxent_onpolicy.engine.shared_buffer import SharedRolloutBuffer


class SharedTrainer:
    """Makes the steps of an epoch, with the gradients of all ranks added up in one exchange a minibatch.

    Args:
        model: whose parameters are trained.
        rows: of the matrix.
        sizes: samples of each minibatch that this rank computes.
        totals: samples of each minibatch.
    """

    def __init__(self, model: PackedModel, rows: Rows, sizes: Sequence[int], totals: Sequence[int]) -> None:
        self._model = model
        self._minibatches = Minibatches(model, rows, sizes, totals)
        self.epoch = self._minibatches.epoch
        self._exchanged = torch.zeros(model.parameters.gradient.numel() + 1, device=model.device)

    def train(self, settings: PPOSettings) -> int:
        """Return the number of minibatches computed; negative if the last of them stopped the update."""
        model, batches, gradient = self._model, self._minibatches.batches, self._model.parameters.gradient
        constants = self._minibatches.constants([settings])
        for index, (step, batch) in enumerate(batches):
            step.loss_gradient(batch, constants[step])
            if settings.target_kl is None:
                add_up(gradient)
            else:
                self._exchanged[:-1] = gradient
                self._exchanged[-1] = torch.as_tensor(step.approx_kl(batch))
                add_up(self._exchanged)
                if self._exchanged[-1].item() > 1.5 * settings.target_kl:
                    return -(index + 1)
                gradient.copy_(self._exchanged[:-1])
            model.apply_gradient(settings)
        return len(batches)


class SharedPackedUpdate(PackedUpdate):
    """The rollout of all ranks as a matrix, and this rank's part of the minibatch steps on it.

    Minibatches, and the advantages' normalisation in each, are those of a single
    process; only the networks' work is split.

    Args:
        model: whose parameters are trained.
        buffer: the rollout of all ranks.
        batch_size: samples a minibatch, over all ranks.
    """

    def __init__(self, model: PackedModel, buffer: SharedRolloutBuffer, batch_size: int) -> None:
        super().__init__(model, buffer, batch_size)
        self._totals = self.sizes
        parts = [buffer.world.part(total) for total in self._totals]
        firsts = accumulate(self._totals, initial=0)
        # Where this rank's samples are in the random order of all.
        self._places = torch.cat(
            [torch.arange(first + part.start, first + part.stop) for first, part in zip(firsts, parts, strict=False)]
        )
        self.sizes = [part.stop - part.start for part in parts]
        self._ends = list(accumulate(self.sizes))
        self._weight = torch.cat(
            [torch.full((size,), 1.0 / total) for size, total in zip(self.sizes, self._totals, strict=True)]
        ).to(model.device)
        self._advantages = torch.zeros(2, self.samples, device=model.device)

    @cached_property
    def alone(self) -> SharedTrainer:
        """Trains this rank's part."""
        return SharedTrainer(self.model, self.rows, self.sizes, self._totals)

    def shuffle(self, epoch: Tensor, normalize: bool, weights: list[float]) -> None:
        """See :meth:`PackedUpdate.shuffle`; ``epoch`` receives this rank's samples."""
        rows, model, take = self.rows, self.model, self.model.arrays.take_columns
        view = model.arrays.view
        order = torch.as_tensor(random_order(*self.shape))
        own = order[self._places].to(model.device)
        take(view(self.data[: rows.log_ratio]), view(own), view(epoch[: rows.log_ratio]))
        pair = self.data[rows.advantage : rows.second_advantage + 1]
        take(view(pair), view(order.to(model.device)), view(self._advantages))
        self.combine_advantages(self._advantages, normalize, weights)
        epoch[rows.advantage] = self._advantages[0, self._places]

    def own(self, samples: Tensor) -> Tensor:
        """Return this rank's part of every minibatch's samples."""
        return samples[self._places.to(samples.device)]

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of scalars over all ranks."""
        return dict(zip(values, add_up(torch.stack(list(values.values()))), strict=True))
