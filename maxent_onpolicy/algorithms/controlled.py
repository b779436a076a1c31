"""Controllers in an update: what they see of a rollout, and how what they set reaches the minibatches."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, update_learning_rate
from torch import Tensor

from maxent_onpolicy.algorithms.actor_critic import ActorCriticAlgorithm
from maxent_onpolicy.algorithms.maxent import default_target_entropy
from maxent_onpolicy.controllers import (
    Balance,
    EntropyBounds,
    ModelFacts,
    RolloutStatistics,
    UpdateSettings,
    make_controllers,
)
from maxent_onpolicy.engine.buffer import Minibatch
from maxent_onpolicy.engine.distributed import world
from maxent_onpolicy.envs.tensor import Observation
from maxent_onpolicy.estimators.control import balanced_bounds, entropy_ratio, within
from maxent_onpolicy.policies.distributions import BoxDistribution


class ClipRanges(NamedTuple):
    """What limits an update's policy gradients, and the change of its values.

    Attributes:
        policy: ε of the ratio, below 1 and, unless ``high`` is given, above.
        value: clip range of the value (``None``: not clipped).
        high: ε above 1.
        balance: bounds of the ratio that every minibatch chooses, in place of the above.
        entropy_bounds: of the entropy ratio; beyond them a sample has no policy gradient.
    """

    policy: float
    value: float | None
    high: float | None = None
    balance: Balance | None = None
    entropy_bounds: EntropyBounds | None = None


class SampleClip(NamedTuple):
    """How the samples of one minibatch are clipped.

    Attributes:
        low: ε below 1.
        high: ε above 1, or ``None`` for the same.
        kept: ``[N]``; which samples have a policy gradient, ``None`` for all.
        metrics: scalars to log.
    """

    low: float | Tensor
    high: float | Tensor | None
    kept: Tensor | None
    metrics: dict[str, Tensor]


class ControlledMixin(ActorCriticAlgorithm):
    """An algorithm whose updates controllers may adapt; without any it does nothing."""

    controllers: Any
    _loss: Any

    def _start_controllers(self) -> None:
        """Make the controllers the model's own, and check that they go together with its keywords.

        Raises:
            ValueError: naming what contradicts each other.
        """
        self.controllers = make_controllers(self.controllers)
        if not self.controllers:
            return
        arguments = {
            "learning_rate": _constant(self.learning_rate),
            "clip_range": _constant(getattr(self, "clip_range", None)),
            "ent_coef": self.ent_coef,
            "target_kl": getattr(self, "target_kl", None),
            "tau": getattr(self, "tau", None),
        }
        facts = model_facts(self)
        for controller in self.controllers:
            name = type(controller).__name__
            other = controller.contradiction(arguments)
            if other is not None:
                raise ValueError(f"`controllers`: {name} and {other} contradict each other; leave one out")
            if controller.in_loss and not type(self)._loss.__module__.startswith("maxent_onpolicy.algorithms."):
                raise ValueError(
                    f"`controllers`: {name} acts in PPO's loss, which {type(self).__name__} replaces by its own `_loss`"
                )
            if world().size > 1 and not controller.splits:
                raise ValueError(
                    f"`controllers`: {name} looks at whole minibatches, which several processes split; start a single "
                    "one, without torchrun"
                )
            controller.start(facts)

    @property
    def adapts_within_updates(self) -> bool:
        """Whether :meth:`after_epoch` must be called between the epochs of an update."""
        return any(controller.within_updates for controller in self.controllers)

    def after_epoch(self, approx_kl: float) -> None:
        """Let controllers change the learning rate, which lies in the policy's optimiser, before the next epoch.

        Args:
            approx_kl: nats; mean over the epoch's minibatches, of all processes.
        """
        for controller in self.controllers:
            if controller.within_updates:
                rate = controller.after_epoch(approx_kl)
                if rate is not None:
                    update_learning_rate(self.policy.optimizer, rate)

    @contextmanager
    def _controlled(self, clip: ClipRanges) -> Iterator[ClipRanges]:
        """Let controllers set what the update within this context uses; yield its clip ranges."""
        if not self.controllers:
            yield clip
            return
        given = self.ent_coef
        rollout = self._rollout_statistics()
        rate = float(self.policy.optimizer.param_groups[0]["lr"])
        settings = UpdateSettings(rate, clip.policy, clip.high, self.ent_coef)
        for controller in self.controllers:
            settings = controller.before_update(rollout, settings)
        update_learning_rate(self.policy.optimizer, settings.learning_rate)
        self.logger.record("train/learning_rate", settings.learning_rate)
        for controller in self.controllers:
            for name, value in controller.to_log().items():
                self.logger.record(f"train/{name}", value)
        if settings.entropy_bounds is not None:
            with torch.no_grad():
                self.rollout_buffer.old_entropy = self.rollout_buffer.evaluate(self._entropy_of)
        self.ent_coef = settings.ent_coef
        try:
            yield ClipRanges(
                settings.clip_range, clip.value, settings.clip_range_high, settings.balance, settings.entropy_bounds
            )
        finally:
            self.ent_coef = given
            self.rollout_buffer.old_entropy = None

    def _tell_controllers(self, means: dict[str, float]) -> None:
        """Tell controllers how far the update has moved the policy."""
        for controller in self.controllers:
            controller.after_update(means["approx_kl"])

    def _rollout_statistics(self) -> RolloutStatistics:
        returns = [info["r"] for info in self.ep_info_buffer or ()]
        return RolloutStatistics(
            entropy=-self.rollout_buffer.log_prob.mean().item(),
            episode_return=float(np.mean(returns)) if returns else None,
            progress_remaining=self._current_progress_remaining,
        )

    def _entropy_of(self, observation: Observation) -> Tensor:
        entropy = self.policy.get_distribution(observation).entropy()
        assert entropy is not None
        return entropy


def sample_clip(
    clip: ClipRanges, batch: Minibatch, log_prob: Tensor, entropy: Tensor | None, advantage: Tensor
) -> SampleClip:
    """Return how the samples of a minibatch are clipped.

    Args:
        clip: of the update.
        batch: the minibatch.
        log_prob: ``[N]`` under the policy being trained.
        entropy: ``[N]`` of it; needed where the entropy ratio has bounds.
        advantage: ``[N]``.
    """
    low: float | Tensor = clip.policy
    high: float | Tensor | None = clip.high
    kept = None
    metrics: dict[str, Tensor] = {}
    with torch.no_grad():
        if clip.balance is not None:
            ratio = torch.exp(log_prob - batch.log_prob)
            lows, highs = (ratio.new_tensor(bounds) for bounds in (clip.balance.lows, clip.balance.highs))
            lower, upper = balanced_bounds(ratio, advantage, lows, highs, clip.balance.target)
            metrics |= {"clip_low": lower, "clip_high": upper}
            low, high = 1 - lower, upper - 1
        if clip.entropy_bounds is not None:
            assert entropy is not None
            assert batch.old_entropy is not None
            bounds = clip.entropy_bounds
            kept = within(entropy_ratio(entropy, batch.old_entropy, bounds.discrete), bounds.low, bounds.high)
            metrics["entropy_ratio_kept"] = kept.float().mean()
    return SampleClip(low, high, kept, metrics)


def model_facts(algorithm: Any) -> ModelFacts:
    """Return what controllers may ask of a model."""
    rate, space = _constant(algorithm.learning_rate), algorithm.action_space
    try:
        target = default_target_entropy(space)
    except ValueError:
        target = None
    return ModelFacts(
        learning_rate=None if callable(rate) else rate,
        max_entropy=max_entropy(space, _is_bounded(algorithm.policy.action_dist)),
        default_target_entropy=target,
        entropy_is_exact=_entropy_is_exact(algorithm),
        discrete=not isinstance(space, spaces.Box),
    )


def max_entropy(space: spaces.Space, bounded: bool) -> float:
    """Return the entropy in nats of the uniform policy; for unbounded continuous actions, of the unit Gaussian.

    Args:
        space: Box, Discrete, MultiDiscrete or MultiBinary.
        bounded: whether continuous actions lie in ``[-1, 1]``.
    """
    if isinstance(space, spaces.Discrete):
        return math.log(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return float(np.log(space.nvec).sum())
    dimensions = get_action_dim(space)
    if isinstance(space, spaces.MultiBinary) or bounded:
        return dimensions * math.log(2)
    return dimensions * 0.5 * math.log(2 * math.pi * math.e)


def _is_bounded(distribution: Any) -> bool:
    if isinstance(distribution, BoxDistribution):
        return distribution.bounded
    # SB3's noise matrices have a bijector where they squash.
    return isinstance(distribution, SquashedDiagGaussianDistribution) or bool(getattr(distribution, "bijector", None))


def _entropy_is_exact(algorithm: Any) -> bool:
    _, observation = next(algorithm.rollout_buffer.chunks(1))
    algorithm.policy.set_training_mode(False)
    with torch.no_grad():
        return algorithm.policy.get_distribution(observation).entropy() is not None


def _constant(value: Any) -> Any:
    """Return the number behind a schedule that is constant; anything else as it is."""
    schedule = value.value_schedule if isinstance(value, FloatSchedule) else value
    return schedule.val if isinstance(schedule, ConstantSchedule) else schedule
