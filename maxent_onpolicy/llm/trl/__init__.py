"""Entropy advantage and entropy control in TRL's GRPO trainer; needs ``pip install 'maxent-onpolicy[llm]'``."""

from maxent_onpolicy.llm.trl.config import EntropyAdvantageGRPOConfig
from maxent_onpolicy.llm.trl.trainer import EntropyAdvantageGRPOTrainer

__all__ = ["EntropyAdvantageGRPOConfig", "EntropyAdvantageGRPOTrainer"]
