"""What PPO and TRPO share: minibatches, normalised advantages and PopArt."""

import warnings
from typing import Any, ClassVar, Self

from gymnasium import spaces
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor

from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer, why_own_buffer
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.engine.rollout import takes_turns
from maxent_onpolicy.engine.select import is_outdated
from maxent_onpolicy.estimators.losses import normalize_advantage
from maxent_onpolicy.policies.actor_critic import with_entropy_head
from maxent_onpolicy.policies.heads import popart_heads
from maxent_onpolicy.validation import SB3ArgumentError, check_choice, check_integer, check_range

ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class ActorCriticAlgorithm(OnPolicyAlgorithm):
    """An algorithm that follows an advantage and trains its critics in minibatches.

    Attributes:
        computed: the methods whose work the packed engine does itself; a subclass that overrides one of them means
            something else by it, and is trained by another engine.
    """

    batch_size: int
    normalize_advantage: bool
    popart: bool
    popart_beta: float
    computed: ClassVar[tuple[str, ...]] = ("train", "_policy_advantage", "_before_epochs", "advantage_terms")

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_integer("batch_size", self.batch_size, 1)
        check_choice("normalize_advantage", self.normalize_advantage, (True, False))
        check_choice("popart", self.popart, (True, False))
        check_range("popart_beta", self.popart_beta, 0, 1, low_open=True)

    def _policy_spec(self) -> tuple[Any, dict[str, Any]]:
        policy_class, kwargs = super()._policy_spec()
        if not self.popart:
            return policy_class, kwargs
        heads = {"entropy_head": False, "popart": True, "popart_beta": self.popart_beta}
        return with_entropy_head(policy_class), heads | kwargs

    def why_not_packed(self) -> str | None:
        """Return what of this algorithm the packed engine does not know, or ``None``; the policy is asked apart."""
        for name in self.computed:
            if not getattr(type(self), name).__module__.startswith("maxent_onpolicy.algorithms."):
                return f"{type(self).__name__}'s own `{name}`"
        if takes_turns(self.env):
            return "environments in which two players take turns"
        return why_own_buffer(self.rollout_buffer)

    def _begin_update(self) -> None:
        """Bring policy, learning rate, statistics and engine to where an update starts."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self._before_epochs()
        if is_outdated(self.current_engine, self):  # a callback may have changed the policy since learn() began
            self._engine = None

    def _before_epochs(self) -> None:
        """Called once an update, before the first minibatch: PopArt's statistics take in the rollout's targets."""
        for critic, head in popart_heads(self.policy).items():
            if critic == "value" or self.rollout_buffer.entropy:
                head.update(getattr(self.rollout_buffer, f"{critic}_target"))

    def advantage_terms(self, buffer: RolloutBuffer) -> list[tuple[float, Tensor]]:
        """Weights and advantages ``[T, B]`` whose weighted sum the policy follows; each is normalised by itself."""
        return [(1.0, buffer.advantage)]

    def _policy_advantage(self, batch: Minibatch) -> Tensor:
        """Advantage ``[N]`` that the policy follows."""
        return normalize_advantage(batch.advantage) if self.normalize_advantage else batch.advantage

    def _record_update(self, means: dict[str, float], remedy: str) -> None:
        """Log the numbers of an update, and what the rollout says.

        Raises:
            NonFiniteError: if one of them is NaN or Inf, with the remedy.
        """
        bad = [name for name, value in means.items() if value != value or abs(value) == float("inf")]
        if bad:
            raise NonFiniteError(
                f"{', '.join(bad)} became NaN or Inf in the update after step {self.num_timesteps}; {remedy}"
            )
        for name, value in means.items():
            self.logger.record(f"train/{name}", value)
        self._log_rollout()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` environment steps; as SB3. ``tb_log_name`` defaults to the class name."""
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name or type(self).__name__,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )


def check_batch(n_steps: int, n_envs: int, batch_size: int, normalize_advantage: bool, least: int = 2) -> None:
    """Check the rollout's size against the minibatch's; warn if the last minibatch of an epoch is a smaller one.

    Args:
        n_steps: of a rollout.
        n_envs: of all processes.
        batch_size: of a minibatch.
        normalize_advantage: whether advantages are normalised.
        least: smallest minibatch where they are.

    Raises:
        SB3ArgumentError: if the advantage of a single sample would be normalised.
    """
    rollout_size = n_steps * n_envs
    if normalize_advantage and batch_size < least:
        raise SB3ArgumentError(f"`batch_size` must be greater than 1 to normalise advantages, got {batch_size}")
    if normalize_advantage and rollout_size <= 1:
        raise SB3ArgumentError(
            "`n_steps * n_envs` must be greater than 1 to normalise advantages, "
            f"got n_steps={n_steps} and n_envs={n_envs}"
        )
    remainder = rollout_size % batch_size
    if remainder > 0:
        warnings.warn(
            f"`batch_size={batch_size}` does not divide the rollout of n_steps * n_envs = {n_steps} * {n_envs} = "
            f"{rollout_size} samples: after every {rollout_size // batch_size} untruncated mini-batches, "
            f"there will be a truncated mini-batch of size {remainder}. No sample is dropped.",
            stacklevel=2,
        )
