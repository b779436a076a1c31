"""A policy loss for verl, registered as ``entropy_advantage`` when this is imported.

verl imports it itself where it reads its settings, in each worker, since their ``_target_`` is here::

    python -m verl.trainer.main_ppo ... \
        actor_rollout_ref.actor.policy_loss._target_=maxent_onpolicy.llm.verl.loss.EntropyAdvantageLossConfig \
        actor_rollout_ref.actor.policy_loss.loss_mode=entropy_advantage \
        +actor_rollout_ref.actor.policy_loss.tau=0.1
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from maxent_onpolicy.llm.verl.advantage import (
    EntropyToGoSettings,
    compared,
    micro_batch_soft_advantage,
    micro_batch_to_go,
)
from maxent_onpolicy.llm.verl.host import check_verl
from maxent_onpolicy.validation import check_choice

check_verl()
# After the check, which says what to install.
from verl.trainer.ppo.core_algos import get_policy_loss_fn, register_policy_loss  # noqa: E402
from verl.workers.config import PolicyLossConfig  # noqa: E402

#: The name it has in verl.
LOSS_MODE = "entropy_advantage"


@dataclass
class EntropyAdvantageLossConfig(EntropyToGoSettings, PolicyLossConfig):  # type: ignore[misc, unused-ignore]
    """verl's settings of a policy loss, and those of the entropy advantage.

    Raises:
        ValueError: if one is out of range, or ``loss_mode`` is another loss, which would not read them.
    """

    loss_mode: str = LOSS_MODE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("policy_loss.loss_mode", self.loss_mode, (LOSS_MODE,))


@register_policy_loss(LOSS_MODE)
def entropy_advantage_loss(
    old_log_prob: Float[Tensor, "B T"],
    log_prob: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Any]]:
    """Evaluate verl's clipped loss with ``A + τ·A_H`` in the place of ``A`` (arXiv:2407.18143, without a critic).

    ``A_H`` is :func:`~maxent_onpolicy.llm.verl.advantage.micro_batch_to_go`. With ``tau=0`` nothing is changed.

    Args:
        old_log_prob: ``[B, T]`` a micro-batch.
        log_prob: ``[B, T]``; the only argument whose gradient matters.
        advantages: ``[B, T]`` of the task.
        response_mask: ``[B, T]`` bool, or numbers that are 0 outside of the policy's own tokens.
        loss_agg_mode: passed on, as is what follows.
        config: the actor's, whose ``policy_loss`` is an :class:`EntropyAdvantageLossConfig`.
        rollout_is_weights: see verl.

    Returns:
        The loss, and verl's metrics with ``actor/entropy_advantage_std`` (nats, before scaling) and
        ``actor/entropy_advantage_compared`` (part of the tokens as far as which another completion has come).

    Raises:
        ValueError: if ``config`` lacks the settings, its micro-batches are of one completion, or a number within the
            mask is not finite.
    """
    settings = _settings(config)
    metrics = {}
    if settings.tau > 0:
        mask = response_mask.bool()
        future = micro_batch_to_go(old_log_prob, mask, settings.entropy_gamma)
        advantages = micro_batch_soft_advantage(advantages, future, mask, settings)
        metrics["actor/entropy_advantage_std"] = float(future[mask].std(correction=0)) if mask.any() else 0.0
        metrics["actor/entropy_advantage_compared"] = compared(mask)
    loss, found = get_policy_loss_fn("vanilla")(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        rollout_is_weights=rollout_is_weights,
    )
    return loss, found | metrics


def _settings(config: Any) -> EntropyAdvantageLossConfig:
    settings = getattr(config, "policy_loss", None)
    if not isinstance(settings, EntropyAdvantageLossConfig):
        target = f"{EntropyAdvantageLossConfig.__module__}.{EntropyAdvantageLossConfig.__qualname__}"
        raise ValueError(
            f"`config.policy_loss` must be an EntropyAdvantageLossConfig, got {type(settings).__name__}; "
            f"set actor_rollout_ref.actor.policy_loss._target_={target}"
        )
    if settings.tau > 0 and not config.use_dynamic_bsz and config.ppo_micro_batch_size_per_gpu == 1:
        raise ValueError(
            "`ppo_micro_batch_size_per_gpu` must be at least 2 with `tau` above 0, got 1: the baseline is the mean "
            "over the completions of a micro-batch"
        )
    return settings
