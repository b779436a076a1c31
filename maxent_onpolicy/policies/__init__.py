"""Actor-critic policies with the entropy head, and the action distributions."""

from maxent_onpolicy.policies.actor_critic import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    EntropyHeadMixin,
    MaxEntActorCriticCnnPolicy,
    MaxEntActorCriticPolicy,
    MaxEntMultiInputActorCriticPolicy,
    MultiInputActorCriticPolicy,
    with_entropy_head,
)
from maxent_onpolicy.policies.distributions import (
    BetaDistribution,
    BoxDistribution,
    GaussianDistribution,
    TanhGaussianDistribution,
)
from maxent_onpolicy.policies.impala import ImpalaCNN, ImpalaPolicy, MaxEntImpalaPolicy
from maxent_onpolicy.policies.masked import MaskedActorCriticPolicy, MaxEntMaskedActorCriticPolicy
from maxent_onpolicy.policies.minigrid_cnn import MaxEntMiniGridCnnPolicy, MiniGridCnn, MiniGridCnnPolicy
from maxent_onpolicy.policies.precision import Bfloat16Extractor

__all__ = [
    "ActorCriticCnnPolicy",
    "ActorCriticPolicy",
    "BetaDistribution",
    "Bfloat16Extractor",
    "BoxDistribution",
    "EntropyHeadMixin",
    "GaussianDistribution",
    "ImpalaCNN",
    "ImpalaPolicy",
    "MaskedActorCriticPolicy",
    "MaxEntActorCriticCnnPolicy",
    "MaxEntActorCriticPolicy",
    "MaxEntImpalaPolicy",
    "MaxEntMaskedActorCriticPolicy",
    "MaxEntMiniGridCnnPolicy",
    "MaxEntMultiInputActorCriticPolicy",
    "MiniGridCnn",
    "MiniGridCnnPolicy",
    "MultiInputActorCriticPolicy",
    "TanhGaussianDistribution",
    "with_entropy_head",
]
