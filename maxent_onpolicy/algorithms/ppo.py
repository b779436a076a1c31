"""Proximal policy optimisation, clip version (Schulman et al. 2017, arXiv:1707.06347)."""

from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from maxent_onpolicy.algorithms.actor_critic import ACTION_SPACES, check_batch
from maxent_onpolicy.algorithms.controlled import ClipRanges, ControlledMixin, sample_clip
from maxent_onpolicy.algorithms.magnet import Magnet, MagnetMixin
from maxent_onpolicy.controllers import Controllers
from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer
from maxent_onpolicy.engine.finite import REMEDY
from maxent_onpolicy.engine.mean_shift import MeanShift
from maxent_onpolicy.engine.select import Compile, EngineName
from maxent_onpolicy.estimators.losses import (
    clip_value,
    clipped_surrogate,
    entropy_loss,
    value_loss,
)
from maxent_onpolicy.policies.aliases import PolicyAliases
from maxent_onpolicy.policies.heads import head_scale
from maxent_onpolicy.validation import SB3ArgumentError, check_integer, check_range


class PPO(MagnetMixin, ControlledMixin):
    """PPO with SB3's signature, SB3's numbers and this package's engine.

    On the CPU and in environments without time limits its parameters equal
    ``stable_baselines3.PPO``'s bit for bit. At a time limit it bootstraps from the
    true final observation, all environments in one forward pass, and leaves the
    rewards as they are.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"ImpalaPolicy"``, ``"MiniGridCnnPolicy"``,
            ``"MaskedMlpPolicy"``, or an ``ActorCriticPolicy`` subclass.
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
        controllers: what adapts clip ranges, the learning rate or ``ent_coef`` while training, such as ``[PPOBR()]``,
            ``"kl_adaptive_lr"`` or ``[{"bapo": {"target": 0.4}}]``; ``maxent-onpolicy list controllers`` shows all.
        magnet: adds ``magnet_coef·KL(π‖magnet)`` to the policy's loss. ``"uniform"``: over the legal actions, as an
            entropy bonus. ``"previous"``: the policy as it was some time ago, taken anew before every
            ``magnet_period``-th update. ``"ema"``: a moving average of the policy's parameters. ``None``: no magnet.
        magnet_coef: weight of that divergence, beside advantages of unit scale.
        magnet_decay: what share of ``"ema"`` an update leaves.
        magnet_period: updates for which ``"previous"`` stays; with 1 it is the policy that acted in the rollout.

    Raises:
        ValueError: for an argument outside its range, naming it, its value and what is allowed.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = PolicyAliases.PLAIN
    data_parallel: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = (*ControlledMixin.computed, "_loss", "_evaluate", "_value_loss")

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
        controllers: Controllers = None,
        magnet: Magnet | None = None,
        magnet_coef: float = 0.1,
        magnet_decay: float = 0.99,
        magnet_period: int = 1,
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
            supported_action_spaces=ACTION_SPACES,
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
        self.controllers = controllers
        self.magnet: Magnet | None = magnet
        self.magnet_coef = magnet_coef
        self.magnet_decay = magnet_decay
        self.magnet_period = magnet_period
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)
        self._start_controllers()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_integer("n_epochs", self.n_epochs, 1)
        check_range("ent_coef", self.ent_coef)
        check_range("vf_coef", self.vf_coef, 0)
        check_range("max_grad_norm", self.max_grad_norm, 0, low_open=True)
        if not callable(self.clip_range):
            check_range("clip_range", self.clip_range, 0, low_open=True)
        if isinstance(self.clip_range_vf, float | int) and self.clip_range_vf <= 0:
            raise SB3ArgumentError(f"`clip_range_vf` must be positive, or None not to clip; got {self.clip_range_vf!r}")
        if self.target_kl is not None:
            check_range("target_kl", self.target_kl, 0, low_open=True)
        if self.env is not None:
            check_batch(self.n_steps, self.total_envs, self.batch_size, self.normalize_advantage)

    def train(self) -> None:
        """Update the policy from the current rollout."""
        clip = self._clip_ranges()
        self._begin_update()
        with self._controlled(clip) as clip:
            means = self.current_engine.update(self, clip).means()
        self._log_update(means, clip)
        self._tell_controllers(means)

    def report_early_stop(self, epoch: int, approx_kl: float) -> None:
        """Say that an update ended because the policy had moved far enough."""
        if self.verbose >= 1:
            print(f"Early stopping at step {epoch} due to reaching max kl: {approx_kl:.2f}")

    def _clip_ranges(self) -> ClipRanges:
        progress = self._current_progress_remaining
        assert callable(self.clip_range)
        clip_range_vf = self.clip_range_vf
        return ClipRanges(self.clip_range(progress), clip_range_vf(progress) if callable(clip_range_vf) else None)

    def _loss(self, batch: Minibatch, clip: ClipRanges) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss of a minibatch, and scalars to log."""
        log_prob, entropy, critic_loss, metrics = self._evaluate(batch, clip)
        advantage = self._policy_advantage(batch) if batch.policy_advantage is None else batch.policy_advantage
        sample = sample_clip(clip, batch, log_prob, entropy, advantage)
        policy_loss, surrogate = clipped_surrogate(
            log_prob, batch.log_prob, advantage, sample.low, sample.high, sample.kept
        )
        entropy_term = entropy_loss(log_prob, entropy)
        loss = policy_loss + self.ent_coef * entropy_term + self.vf_coef * critic_loss
        if self.magnet is not None:
            divergence = self._magnet_divergence(batch)
            loss = loss + self.magnet_coef * divergence
            metrics["magnet_kl"] = divergence.detach()
        metrics |= {
            "loss": loss.detach(),
            "policy_gradient_loss": policy_loss.detach(),
            "entropy_loss": entropy_term.detach(),
            "approx_kl": surrogate.approx_kl,
            "clip_fraction": surrogate.clip_fraction,
        }
        return loss, metrics | sample.metrics

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

    def mean_shift(self) -> MeanShift | None:
        """Return how the epoch to come shifts the policy's mean; ``None``: not at all. See RPO."""
        return None

    def _log_update(self, means: dict[str, float], clip: ClipRanges) -> None:
        self._record_update(means, REMEDY)
        if clip.balance is None:  # else the bounds' means over the minibatches are logged
            self.logger.record("train/clip_range", clip.policy)
        if clip.value is not None:
            self.logger.record("train/clip_range_vf", clip.value)
