"""IMPALA's network as a features extractor for SB3, written the usual way: the peer of our own."""

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional

DEPTHS = (16, 32, 32)
FEATURES = 256


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[N, C, H, W]``."""
        return images + self.convolutions(images)


class PlainImpala(BaseFeaturesExtractor):
    """As large as ``maxent_onpolicy.policies.ImpalaCNN``."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, FEATURES)
        channels, height, width = observation_space.shape
        layers: list[nn.Module] = []
        for depth in DEPTHS:
            layers += [nn.Conv2d(channels, depth, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [Residual(depth), Residual(depth)]
            channels, height, width = depth, (height + 1) // 2, (width + 1) // 2
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.dense = nn.Linear(channels * height * width, FEATURES)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features ``[N, 256]`` of preprocessed images ``[N, C, H, W]``."""
        return functional.relu(self.dense(self.layers(observations)))
