"""Pure functions of tensors: advantages, entropy, losses, normalisation.

No modules, no SB3, no random numbers, no logging. Time-major ``[T, B]``.
"""

from maxent_onpolicy.estimators.advantages import AdvantageEstimate, gae, successor_values
from maxent_onpolicy.estimators.entropy import (
    TemperatureLoss,
    advantage_share,
    augmented_reward,
    center,
    entropy_advantage,
    normalized_soft_advantage,
    sampled_entropy_reward,
    soft_advantage,
    temperature_loss,
)
from maxent_onpolicy.estimators.losses import (
    SurrogateMetrics,
    clip_value,
    clipped_surrogate,
    entropy_loss,
    explained_variance,
    normalize_advantage,
    value_loss,
)
from maxent_onpolicy.estimators.normalisation import (
    PopArtState,
    RunningMoments,
    popart_moments,
    popart_rescale,
    popart_update,
    running_moments_update,
)

__all__ = [
    "AdvantageEstimate",
    "PopArtState",
    "RunningMoments",
    "SurrogateMetrics",
    "TemperatureLoss",
    "advantage_share",
    "augmented_reward",
    "center",
    "clip_value",
    "clipped_surrogate",
    "entropy_advantage",
    "entropy_loss",
    "explained_variance",
    "gae",
    "normalize_advantage",
    "normalized_soft_advantage",
    "popart_moments",
    "popart_rescale",
    "popart_update",
    "running_moments_update",
    "sampled_entropy_reward",
    "soft_advantage",
    "successor_values",
    "temperature_loss",
    "value_loss",
]
