"""SB3's small convolutional network, in pieces that fit a CPU's cache."""

import torch
from stable_baselines3.common import torch_layers as sb3
from torch import Tensor

# Images that a CPU passes through the network at a time. Half or twice as many are nearly as fast.
CPU_CHUNK = 128


class NatureCNN(sb3.NatureCNN):
    """SB3's ``NatureCNN`` (Mnih et al. 2015, doi 10.1038/nature14236): the same layers, drawn in the same order.

    Attributes:
        in_chunks: on a CPU, let a policy pass :data:`CPU_CHUNK` images at a time, in channels-last memory. The rest is
            the same up to rounding; off, it is SB3's to the last bit. ``engine="auto"`` turns it on where it does not
            compile.
    """

    in_chunks = False
    # Images in a minibatch, on a CPU: more of them are faster in chunks than compiled.
    compiles_well_up_to = CPU_CHUNK

    def chunks(self, observations: Tensor) -> tuple[Tensor, ...]:
        """Return the pieces ``[≤ CPU_CHUNK, ...]`` in which images ``[N, ...]`` should be scaled and pass."""
        if not self.in_chunks or observations.is_cuda:
            return (observations,)
        return observations.split(CPU_CHUNK)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features ``[N, F]`` of preprocessed images ``[N, C, H, W]``."""
        if not self.in_chunks or observations.is_cuda:
            return super().forward(observations)
        # SB3's `predict_values` and `get_distribution` come here with all images at once.
        chunks = [each.contiguous(memory_format=torch.channels_last) for each in self.chunks(observations)]
        features = [super(NatureCNN, self).forward(chunk) for chunk in chunks]
        return features[0] if len(features) == 1 else torch.cat(features)


def set_chunks(policy: torch.nn.Module, on: bool) -> None:
    """Let every :class:`NatureCNN` of a policy compute in chunks, or not."""
    for module in policy.modules():
        if isinstance(module, NatureCNN):
            module.in_chunks = on
