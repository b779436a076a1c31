"""Proximal policy optimisation, clip version (Schulman et al. 2017, arXiv:1707.06347)."""

import warnings
from typing import Any, ClassVar, NamedTuple, Self

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer, why_own_buffer
from maxent_onpolicy.engine.finite import NonFiniteError
from maxent_onpolicy.engine.mean_shift import MeanShift
from maxent_onpolicy.engine.select import Compile, EngineName, is_outdated
from maxent_onpolicy.estimators.losses import (
    clip_value,
    clipped_surrogate,
    entropy_loss,
    normalize_advantage,
    value_loss,
)
from maxent_onpolicy.policies.actor_critic import PolicyAliases, with_entropy_head
from maxent_onpolicy.policies.heads import head_scale, popart_heads
from maxent_onpolicy.validation import SB3ArgumentError, check_choice, check_integer, check_range


class ClipRanges(NamedTuple):
    """Clip ranges of the current iteration: of the ratio, and of the value (``None``: not clipped)."""

    policy: float
    value: float | None


class PPO(OnPolicyAlgorithm):
    """PPO with SB3's signature, SB3's numbers and this package's engine.

    On the CPU and in environments without time limits its parameters equal
    ``stable_baselines3.PPO``'s bit for bit. At a time limit it bootstraps from the
    true final observation, all environments in one forward pass, and leaves the
    rewards as they are.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or an ``ActorCriticPolicy`` subclass.
        env: Gymnasium id, environment or SB3 ``VecEnv``.
        learning_rate: Adam's; a float or a function of the remaining progress (1 → 0).
        n_steps: steps a rollout in each environment.
        batch_size: samples a minibatch.
        n_epochs: passes over each rollout.
        gamma: discount factor.
        gae_lambda: trace decay of the advantage estimate.
        clip_range: ε of the clipped objective; a float or schedule.
        clip_range_vf: clip of the value update in units of the value; ``None`` does not clip.
        normalize_advantage: normalise advantages in every minibatch.
        ent_coef: weight of the one-step entropy bonus in the loss.
        vf_coef: weight of the value loss.
        max_grad_norm: gradient clipping.
        use_sde: generalised state-dependent exploration.
        sde_sample_freq: steps between new noise matrices; -1 draws them once a rollout.
        rollout_buffer_class: a subclass of :class:`~maxent_onpolicy.engine.buffer.RolloutBuffer`.
        rollout_buffer_kwargs: keywords for it.
        target_kl: stop the update early when the approximate KL divergence exceeds 1.5 times this.
        stats_window_size: episodes over which ``rollout/`` statistics are averaged.
        tensorboard_log: directory of TensorBoard logs.
        policy_kwargs: keywords of the policy; see :class:`~maxent_onpolicy.policies.actor_critic.ActorCriticPolicy`.
        verbose: 0 silent, 1 info, 2 debug.
        seed: seed of all random generators.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        popart: adaptive rescaling of the critic's targets, in place of reward normalisation.
        popart_beta: weight of one rollout in PopArt's statistics.
        engine: which of the tiers, which compute the same, does the work. ``"packed"``: hand-derived gradients on one
            flat vector, for MLP policies with standard action distributions. ``"compiled"``: the whole minibatch step
            as one compiled program, for policies whose loss is tensor operations alone. ``"eager"``: autograd, for any
            policy; with the same seed it equals stable_baselines3 bit for bit. ``"auto"``: packed where it fits, else
            as ``compile`` says.
        compile: whether ``engine="auto"`` may call a compiler. ``"auto"``: where the packed engine does not fit and
            ``learn()`` has enough minibatches to come that compiling pays. ``True``: always, for the compiled engine
            takes over from the packed one too. ``False``: never.

    Raises:
        ValueError: for an argument outside its range, naming it, its value and what is allowed.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = PolicyAliases.PLAIN
    data_parallel: ClassVar[bool] = True

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        popart: bool = False,
        popart_beta: float = 0.03,
        engine: EngineName = "auto",
        compile: Compile = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,  # type: ignore[arg-type]
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            device=device,
            seed=seed,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.popart = popart
        self.popart_beta = popart_beta
        self.engine = engine
        self.compile = compile
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_integer("n_epochs", self.n_epochs, 1)
        check_integer("batch_size", self.batch_size, 1)
        check_choice("normalize_advantage", self.normalize_advantage, (True, False))
        check_choice("popart", self.popart, (True, False))
        if not callable(self.clip_range):
            check_range("clip_range", self.clip_range, 0, low_open=True)
        if isinstance(self.clip_range_vf, float | int) and self.clip_range_vf <= 0:
            raise SB3ArgumentError(f"`clip_range_vf` must be positive, or None not to clip; got {self.clip_range_vf!r}")
        if self.target_kl is not None:
            check_range("target_kl", self.target_kl, 0, low_open=True)
        check_range("popart_beta", self.popart_beta, 0, 1, low_open=True)
        if self.env is not None:
            check_batch(self.n_steps, self.total_envs, self.batch_size, self.normalize_advantage)

    def _policy_spec(self) -> tuple[Any, dict[str, Any]]:
        policy_class, kwargs = super()._policy_spec()
        if not self.popart:
            return policy_class, kwargs
        heads = {"entropy_head": False, "popart": True, "popart_beta": self.popart_beta}
        return with_entropy_head(policy_class), heads | kwargs

    def train(self) -> None:
        """Update the policy from the current rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = self._clip_ranges()
        self._before_epochs()
        if is_outdated(self.current_engine, self):  # a callback may have changed the policy since learn() began
            self._engine = None
        self._log_update(self.current_engine.update(self, clip).means(), clip)

    def report_early_stop(self, epoch: int, approx_kl: float) -> None:
        """Say that an update ended because the policy had moved far enough."""
        if self.verbose >= 1:
            print(f"Early stopping at step {epoch} due to reaching max kl: {approx_kl:.2f}")

    def why_not_packed(self) -> str | None:
        """Return what of this algorithm the packed engine does not know, or ``None``; the policy is asked apart."""
        parts = ("train", "_loss", "_evaluate", "_value_loss", "_policy_advantage", "_before_epochs", "advantage_terms")
        for name in parts:
            if not getattr(type(self), name).__module__.startswith("maxent_onpolicy.algorithms."):
                return f"{type(self).__name__}'s own `{name}`"
        return why_own_buffer(self.rollout_buffer)

    def _clip_ranges(self) -> ClipRanges:
        progress = self._current_progress_remaining
        assert callable(self.clip_range)
        clip_range_vf = self.clip_range_vf
        return ClipRanges(self.clip_range(progress), clip_range_vf(progress) if callable(clip_range_vf) else None)

    def _before_epochs(self) -> None:
        """Called once an update, before the first minibatch: PopArt's statistics take in the rollout's targets."""
        for critic, head in popart_heads(self.policy).items():
            if critic == "value" or self.rollout_buffer.entropy:
                head.update(getattr(self.rollout_buffer, f"{critic}_target"))

    def _loss(self, batch: Minibatch, clip: ClipRanges) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss of a minibatch, and scalars to log."""
        log_prob, entropy, critic_loss, metrics = self._evaluate(batch, clip)
        advantage = self._policy_advantage(batch) if batch.policy_advantage is None else batch.policy_advantage
        policy_loss, surrogate = clipped_surrogate(log_prob, batch.log_prob, advantage, clip.policy)
        entropy_term = entropy_loss(log_prob, entropy)
        loss = policy_loss + self.ent_coef * entropy_term + self.vf_coef * critic_loss
        metrics |= {
            "loss": loss.detach(),
            "policy_gradient_loss": policy_loss.detach(),
            "entropy_loss": entropy_term.detach(),
            "approx_kl": surrogate.approx_kl,
            "clip_fraction": surrogate.clip_fraction,
        }
        return loss, metrics

    def _evaluate(self, batch: Minibatch, clip: ClipRanges) -> tuple[Tensor, Tensor | None, Tensor, dict[str, Tensor]]:
        """Run the networks on a minibatch.

        Returns:
            Log-probabilities ``[N]``, entropies ``[N]`` or ``None``, the critics' scalar loss, scalars to log.
        """
        values, log_prob, entropy = self.policy.evaluate_actions(batch.observation, batch.action)
        loss = self._value_loss(values.flatten(), batch, clip)
        return log_prob, entropy, loss, {"value_loss": loss.detach()}

    def _value_loss(self, values: Tensor, batch: Minibatch, clip: ClipRanges) -> Tensor:
        scale = head_scale(self.policy.value_net)
        if clip.value is not None:
            values = clip_value(values, batch.value, clip.value)
        return value_loss(values, batch.value_target, scale)

    def advantage_terms(self, buffer: RolloutBuffer) -> list[tuple[float, Tensor]]:
        """Weights and advantages ``[T, B]`` whose weighted sum the policy follows; each is normalised by itself."""
        return [(1.0, buffer.advantage)]

    def mean_shift(self) -> MeanShift | None:
        """Return how the epoch to come shifts the policy's mean; ``None``: not at all. See RPO."""
        return None

    def _policy_advantage(self, batch: Minibatch) -> Tensor:
        """Advantage ``[N]`` that the policy follows."""
        return normalize_advantage(batch.advantage) if self.normalize_advantage else batch.advantage

    def _log_update(self, means: dict[str, float], clip: ClipRanges) -> None:
        bad = [name for name, value in means.items() if value != value or abs(value) == float("inf")]
        if bad:
            raise NonFiniteError(
                f"{', '.join(bad)} became NaN or Inf in the update after step {self.num_timesteps}; "
                "lower `learning_rate` or `max_grad_norm`, or normalise observations and rewards"
            )
        for name, value in means.items():
            self.logger.record(f"train/{name}", value)
        self._log_rollout()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip.policy)
        if clip.value is not None:
            self.logger.record("train/clip_range_vf", clip.value)

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


def check_batch(n_steps: int, n_envs: int, batch_size: int, normalize_advantage: bool) -> None:
    """Check the rollout's size against the minibatch's; warn if the last minibatch of an epoch is a smaller one.

    Raises:
        SB3ArgumentError: if the advantage of a single sample would be normalised.
    """
    rollout_size = n_steps * n_envs
    if normalize_advantage and batch_size == 1:
        raise SB3ArgumentError("`batch_size` must be greater than 1 to normalise advantages, got 1")
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
