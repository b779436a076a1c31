"""What is measured beside GRPO."""

from typing import Any, NamedTuple

from maxent_onpolicy.llm.methods import METHODS

GRPO = "GRPO"
SPLIT = "GRPO, split batch"
_CRITIC = {"tau": 0.1}
_FREE = {"tau": 0.1, "entropy_estimator": "to_go"}
_EXACT = {"entropy_reward": "exact"}
# what methods without defaults are given
_NEEDED: dict[str, dict[str, Any]] = {"aepo_arbitrary": {"target": 1.0}, "ppo_br": {"max_entropy": 10.0}}


class Contender(NamedTuple):
    """Settings of a trainer.

    Attributes:
        settings: of ``EntropyAdvantageGRPOConfig``; ``None`` for TRL's own trainer.
        parts: in which the batch is passed through the model, one after another, before an optimiser's step.
        target: largest time that it may add, as a part of GRPO's; ``None`` if there is no aim.
    """

    settings: dict[str, Any] | None
    parts: int = 1
    target: float | None = None

    @property
    def baseline(self) -> str:
        """What it is compared with."""
        return GRPO if self.parts == 1 else SPLIT


CONTENDERS: dict[str, Contender] = {
    GRPO: Contender(None),
    SPLIT: Contender(None, parts=2),
    "critic, sampled": Contender(_CRITIC, target=0.10),
    "critic, exact": Contender(_CRITIC | _EXACT, target=0.10),
    "critic-free, sampled": Contender(_FREE, target=0.05),
    "critic-free, exact": Contender(_FREE | _EXACT, target=0.05),
    "critic, split batch": Contender(_CRITIC, parts=2),
}
CONTENDERS |= {
    name: Contender({"methods": [{"name": name, **_NEEDED.get(name, {})}]}, target=0.05)
    for name in METHODS
    if name != "entropy_advantage"  # which in the trainer is tau with the critic
}
