"""Features in half the precision, for image networks on hardware that is faster so."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor


class Bfloat16Extractor(BaseFeaturesExtractor):
    """Runs another features extractor in bfloat16 and channels-last memory; features and parameters stay float32.

    Rollout and update see the same rounding, so that the ratio of new to old
    probabilities still starts at one, and everything behind the features is computed
    in float32.

    Args:
        observation_space: as SB3.
        extractor_class: the extractor that does the work.
        **kwargs: its keywords.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        extractor_class: type[BaseFeaturesExtractor] = NatureCNN,
        **kwargs: Any,
    ) -> None:
        extractor = extractor_class(observation_space, **kwargs)
        super().__init__(observation_space, extractor.features_dim)
        self.extractor = extractor

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Return features ``[N, F]`` of preprocessed observations ``[N, ...]`` or a dictionary of such."""
        if isinstance(observations, dict):
            observations = {key: _channels_last(value) for key, value in observations.items()}
            device = next(iter(observations.values())).device
        else:
            observations = _channels_last(observations)
            device = observations.device
        with torch.autocast(device.type, torch.bfloat16):
            features: Tensor = self.extractor(observations)
        return features.float()


def _channels_last(observation: Tensor) -> Tensor:
    return observation.contiguous(memory_format=torch.channels_last) if observation.dim() == 4 else observation
