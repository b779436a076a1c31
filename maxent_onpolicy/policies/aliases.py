"""Policies by name."""

from typing import ClassVar

from stable_baselines3.common import policies as sb3

from maxent_onpolicy.policies.actor_critic import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MaxEntActorCriticCnnPolicy,
    MaxEntActorCriticPolicy,
    MaxEntMultiInputActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from maxent_onpolicy.policies.impala import ImpalaPolicy, MaxEntImpalaPolicy
from maxent_onpolicy.policies.masked import MaskedActorCriticPolicy, MaxEntMaskedActorCriticPolicy
from maxent_onpolicy.policies.minigrid_cnn import MaxEntMiniGridCnnPolicy, MiniGridCnnPolicy


class PolicyAliases:
    """SB3's policy names for our classes, and names of our own."""

    PLAIN: ClassVar[dict[str, type[sb3.BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
        "ImpalaPolicy": ImpalaPolicy,
        "MiniGridCnnPolicy": MiniGridCnnPolicy,
        "MaskedMlpPolicy": MaskedActorCriticPolicy,
    }
    MAX_ENT: ClassVar[dict[str, type[sb3.BasePolicy]]] = {
        "MlpPolicy": MaxEntActorCriticPolicy,
        "CnnPolicy": MaxEntActorCriticCnnPolicy,
        "MultiInputPolicy": MaxEntMultiInputActorCriticPolicy,
        "ImpalaPolicy": MaxEntImpalaPolicy,
        "MiniGridCnnPolicy": MaxEntMiniGridCnnPolicy,
        "MaskedMlpPolicy": MaxEntMaskedActorCriticPolicy,
    }
