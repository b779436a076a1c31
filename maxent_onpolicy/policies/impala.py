"""The residual convolutional network of IMPALA (Espeholt et al. 2018), as Procgen's published results use it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.nn import functional

from maxent_onpolicy.policies.actor_critic import ActorCriticPolicy, EntropyHeadMixin
from maxent_onpolicy.validation import check_choice, check_integer

Precision = Literal["auto", "float32", "bfloat16"]
# Images that a CPU passes through the network at a time: their activations stay in its cache. Twice or half as many
# are as fast; the whole of a minibatch takes 1.5 times as long.
CPU_CHUNK = 64


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))`` with 3×3 convolutions that keep the size.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, H, W]`` for ``[N, C, H, W]``."""
        return x + self.second(functional.relu(self.first(functional.relu(x))))


class ImpalaCNN(BaseFeaturesExtractor):
    """Stages of a convolution, a 3×3 max-pooling of stride 2 and two residual blocks, then one dense layer.

    With the defaults, the large network of Espeholt et al. 2018 (arXiv:1802.01561, figure 3, without its LSTM), as in
    Cobbe et al. 2020 (arXiv:1912.01588): 622,144 parameters for images of 64×64×3. Weights start Glorot-uniform
    and biases at zero, as in the code that made Procgen's published results.

    Images travel in channels-last memory, in which convolutions are about twice as fast on CPUs and on GPUs with
    tensor cores; on a CPU in chunks of :data:`CPU_CHUNK`, whose activations fit its cache.

    Args:
        observation_space: images, channels first (SB3 transposes others before the policy sees them).
        features_dim: size ``F`` of the dense layer.
        depths: channels of each stage.
        precision: of the convolutions: ``"auto"`` is bfloat16 on GPUs that have it and float32 elsewhere. Parameters
            and features are float32 in any case, and so is everything behind the features.

    Raises:
        ValueError: if the observations are no images, or an argument is out of range.
    """

    # Images in a minibatch, on a CPU. The convolutions are the same; compiled, pooling and its gradient are slower.
    compiles_well_up_to = 0

    def __init__(
        self,
        observation_space: spaces.Space,
        features_dim: int = 256,
        depths: Sequence[int] = (16, 32, 32),
        precision: Precision = "auto",
    ) -> None:
        channels, height, width = image_shape(observation_space)
        check_integer("features_dim", features_dim, 1)
        if not depths:
            raise ValueError(f"`depths` must name the channels of at least one stage, got {depths!r}")
        super().__init__(observation_space, features_dim)
        self.precision = check_choice("precision", precision, ("auto", "float32", "bfloat16"))
        stages: list[nn.Module] = []
        for depth in depths:
            check_integer("depths", depth, 1)
            stages += [
                nn.Conv2d(channels, depth, 3, padding=1),
                nn.MaxPool2d(3, stride=2, padding=1),
                ResidualBlock(depth),
                ResidualBlock(depth),
            ]
            channels, height, width = depth, (height + 1) // 2, (width + 1) // 2
        self.stages = nn.Sequential(*stages)
        self.dense = nn.Linear(channels * height * width, features_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Glorot-uniform (Glorot & Bengio 2010) and set the biases to zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features ``[N, F]`` of preprocessed images ``[N, C, H, W]``."""
        if observations.is_cuda or len(observations) <= CPU_CHUNK:
            return self._features(observations)
        return torch.cat([self._features(chunk) for chunk in observations.split(CPU_CHUNK)])

    def _features(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._in_bfloat16(images.device)):
            hidden = functional.relu(self.stages(images)).flatten(1)
            features = functional.relu(self.dense(hidden))
        return features.to(images.dtype)

    def _in_bfloat16(self, device: torch.device) -> bool:
        if self.precision == "auto":
            return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.precision == "bfloat16"


def image_shape(space: spaces.Space) -> tuple[int, int, int]:
    """Return channels, height and width of a space of images, channels first.

    Raises:
        ValueError: if it is another kind of space.
    """
    shape = getattr(space, "shape", None)
    if not isinstance(space, spaces.Box) or shape is None or len(shape) != 3 or shape[0] > min(shape[1:]):
        raise ValueError(
            "`observation_space` must hold images of shape (channels, height, width), or (height, width, channels) "
            f"where SB3's VecTransposeImage is in between; got {space}"
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


class ImpalaPolicy(ActorCriticPolicy):
    """:class:`ActorCriticPolicy` on :class:`ImpalaCNN`: one trunk, with linear heads for the actor and each critic.

    The trunk has its own initialisation; ``ortho_init`` is about the heads (orthogonal, gain 0.01 of the actor's and 1
    of a critic's).

    Args:
        observation_space: images.
        action_space: as SB3.
        lr_schedule: as SB3.
        net_arch: layers between the trunk and the heads; none by default.
        depths: of :class:`ImpalaCNN`.
        features_dim: of :class:`ImpalaCNN`.
        precision: of :class:`ImpalaCNN`.
        features_extractor_class: another trunk, such as a subclass of :class:`ImpalaCNN`.
        features_extractor_kwargs: further keywords of it.
        **kwargs: as :class:`ActorCriticPolicy`.

    Raises:
        ValueError: if the observations are no images, or an argument is out of range.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        *args: Any,
        depths: Sequence[int] | None = None,
        features_dim: int | None = None,
        precision: Precision | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = ImpalaCNN,
        features_extractor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        given = {"depths": depths, "features_dim": features_dim, "precision": precision}
        options = {name: value for name, value in given.items() if value is not None}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            [] if net_arch is None else net_arch,
            *args,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=(features_extractor_kwargs or {}) | options,
            **kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # SB3 has drawn it orthogonal, with the heads.
        for module in self.modules():
            if isinstance(module, ImpalaCNN):
                module.reset_parameters()


class MaxEntImpalaPolicy(EntropyHeadMixin, ImpalaPolicy):
    """:class:`ImpalaPolicy` with the entropy critic on the same trunk."""
