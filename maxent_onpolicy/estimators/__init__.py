"""Pure functions of tensors: advantages, entropy, losses, normalisation, adaptive clipping.

No modules, no SB3, no random numbers, no logging. Time-major ``[T, B]``.
"""

from maxent_onpolicy.estimators.advantages import AdvantageEstimate, gae, successor_values
from maxent_onpolicy.estimators.control import balanced_bounds, entropy_ratio, within
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
    surrogate_objective,
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
from maxent_onpolicy.estimators.trust_region import (
    LineSearch,
    backtracking_line_search,
    bernoulli_kl,
    beta_kl,
    categorical_kl,
    conjugate_gradient,
    flat_gradient,
    gaussian_kl,
    hessian_vector_product,
    mean_kl,
    step_length,
    uniform_kl,
)
from maxent_onpolicy.estimators.zero_sum import acting_players_advantage, player_sign, zero_sum_entropy_reward

__all__ = [
    "AdvantageEstimate",
    "LineSearch",
    "PopArtState",
    "RunningMoments",
    "SurrogateMetrics",
    "TemperatureLoss",
    "acting_players_advantage",
    "advantage_share",
    "augmented_reward",
    "backtracking_line_search",
    "balanced_bounds",
    "bernoulli_kl",
    "beta_kl",
    "categorical_kl",
    "center",
    "clip_value",
    "clipped_surrogate",
    "conjugate_gradient",
    "entropy_advantage",
    "entropy_loss",
    "entropy_ratio",
    "explained_variance",
    "flat_gradient",
    "gae",
    "gaussian_kl",
    "hessian_vector_product",
    "mean_kl",
    "normalize_advantage",
    "normalized_soft_advantage",
    "player_sign",
    "popart_moments",
    "popart_rescale",
    "popart_update",
    "running_moments_update",
    "sampled_entropy_reward",
    "soft_advantage",
    "step_length",
    "successor_values",
    "surrogate_objective",
    "temperature_loss",
    "uniform_kl",
    "value_loss",
    "within",
    "zero_sum_entropy_reward",
]
