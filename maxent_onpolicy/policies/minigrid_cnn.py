"""The small convolutional network for MiniGrid's images, and policies that use it."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from maxent_onpolicy.policies.actor_critic import ActorCriticPolicy, EntropyHeadMixin
from maxent_onpolicy.validation import check_integer

CHANNELS = (16, 32, 64)
_KERNEL = 2
_SMALLEST = len(CHANNELS) * (_KERNEL - 1) + 1
# The largest type, colour and state among MiniGrid's codes: the agent, grey, and looking up.
_LARGEST_CODE = (10.0, 5.0, 3.0)


class MiniGridCnn(BaseFeaturesExtractor):
    """Three convolutions of 2×2 cells with 16, 32 and 64 channels, then one linear layer, ReLU after each.

    The network is that of the published MiniGrid experiments of the entropy advantage (Choe and Kim, IJCAI 2025,
    doi 10.24963/IJCAI.2025/552). Its input differs: they divide every code by 255, as SB3 does with images, here type,
    colour and state are divided by the largest each can be, so that all lie in [0, 1].

    Args:
        observation_space: of images with three channels, which come first as SB3's algorithms hand them on; at least
            4×4 cells.
        features_dim: outputs of the linear layer.

    Raises:
        ValueError: if the observations are no such images, or ``features_dim`` is no integer of at least 1.
    """

    def __init__(self, observation_space: gym.Space, features_dim: int = 512) -> None:
        super().__init__(observation_space, check_integer("features_dim", features_dim, 1))
        height, width = _image_size(observation_space)
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, _KERNEL), nn.ReLU()]
        cells = (height - _SMALLEST + 1) * (width - _SMALLEST + 1)
        self.cnn = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Sequential(nn.Linear(CHANNELS[-1] * cells, features_dim), nn.ReLU())
        self.register_buffer("scale", 1.0 / torch.tensor(_LARGEST_CODE).reshape(3, 1, 1), persistent=False)

    scale: Tensor

    def forward(self, observations: Tensor) -> Tensor:
        """Return features ``[N, features_dim]`` of codes ``[N, 3, height, width]``."""
        features: Tensor = self.linear(self.cnn(observations * self.scale))
        return features


def _image_size(space: gym.Space) -> tuple[int, int]:
    """Return height and width of images with the channels first."""
    image = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[0] == 3
    if not image or min(space.shape[1:]) < _SMALLEST:  # type: ignore[index]
        raise ValueError(
            "`observation_space` must be MiniGrid's images with their channels first, uint8 of shape "
            f"(3, height, width) and at least {_SMALLEST}×{_SMALLEST} cells; got {space}"
        )
    return space.shape[1], space.shape[2]  # type: ignore[index]


class MiniGridCnnPolicy(ActorCriticPolicy):
    """:class:`ActorCriticPolicy` for MiniGrid's images: :class:`MiniGridCnn`, and linear actor and critic on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The extractor scales: SB3 would divide by 255 what is 10 at most.
        defaults: dict[str, Any] = {"features_extractor_class": MiniGridCnn, "normalize_images": False, "net_arch": []}
        super().__init__(*args, **defaults | kwargs)


class MaxEntMiniGridCnnPolicy(EntropyHeadMixin, MiniGridCnnPolicy):
    """:class:`MiniGridCnnPolicy` with the entropy critic."""
