"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477)."""

from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from maxent_onpolicy.algorithms.actor_critic import ACTION_SPACES, ActorCriticAlgorithm, check_batch
from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer
from maxent_onpolicy.engine.eager import EagerEngine
from maxent_onpolicy.engine.eager_trust_region import EagerTrustRegionEngine
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.packed.trust_region import PackedTrustRegionEngine
from maxent_onpolicy.engine.select import Compile, EngineName
from maxent_onpolicy.estimators.losses import value_loss
from maxent_onpolicy.estimators.trust_region import KL_REDUCTIONS, KLReduction, LineSearch
from maxent_onpolicy.policies.aliases import PolicyAliases
from maxent_onpolicy.policies.heads import head_scale
from maxent_onpolicy.validation import check_choice, check_integer, check_range


class TRPO(ActorCriticAlgorithm):
    """TRPO with sb3-contrib's signature, sb3-contrib's numbers and this package's engine.

    Each update moves the actor by one natural-gradient step, as far as the trust
    region allows, and then trains the critic in minibatches. On the CPU and in
    environments without time limits, with ``engine="eager"``, its parameters equal
    ``sb3_contrib.TRPO``'s bit for bit. At a time limit it bootstraps from the true
    final observation, all environments in one forward pass.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"ImpalaPolicy"``, ``"MiniGridCnnPolicy"``,
            ``"MaskedMlpPolicy"``, or an ``ActorCriticPolicy`` subclass.
        env: Gymnasium id, environment or SB3 ``VecEnv``.
        learning_rate: the critic's; a float or a function of the remaining progress (1 → 0).
        n_steps: steps a rollout in each environment.
        batch_size: samples a minibatch of the critic's.
        gamma: discount factor.
        cg_max_steps: at most so many steps of the conjugate-gradient solver, each with one Fisher-vector product.
        cg_damping: added to the diagonal of the Fisher information.
        line_search_shrinking_factor: what a refused step is multiplied by before the next try.
        line_search_max_iter: tries; after that the policy stays as it is.
        n_critic_updates: passes over each rollout that train the critic.
        gae_lambda: trace decay of the advantage estimate.
        use_sde: generalised state-dependent exploration.
        sde_sample_freq: steps between new noise matrices; -1 draws them once a rollout.
        rollout_buffer_class: a subclass of :class:`~maxent_onpolicy.engine.buffer.RolloutBuffer`.
        rollout_buffer_kwargs: keywords for it.
        normalize_advantage: normalise advantages over the rollout.
        target_kl: size of the trust region: the KL divergence (nats) of the new policy from the old stays below it.
        sub_sampling_factor: the actor's step looks at every so many-th transition of the rollout.
        stats_window_size: episodes over which ``rollout/`` statistics are averaged.
        tensorboard_log: directory of TensorBoard logs.
        policy_kwargs: keywords of the policy; see :class:`~maxent_onpolicy.policies.actor_critic.ActorCriticPolicy`.
        verbose: 0 silent, 1 info, 2 debug.
        seed: seed of all random generators.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        popart: adaptive rescaling of the critic's targets, in place of reward normalisation.
        popart_beta: weight of one rollout in PopArt's statistics.
        kl_reduction: what ``target_kl`` limits where the action has independent dimensions. ``"mean"``, as sb3-contrib:
            the divergence averaged over them. ``"sum"``: that of the whole action, as in the paper.
        engine: which of the tiers, which compute the same, does the work. ``"packed"``: hand-derived gradients and
            Fisher-vector products on one flat vector, for MLP policies with standard action distributions. ``"eager"``:
            autograd, for any policy. ``"auto"``: packed where it fits. There is no compiled one.
        compile: as :class:`~maxent_onpolicy.PPO`; there is nothing here that is compiled.

    Raises:
        ValueError: for an argument outside its range, naming it, its value and what is allowed.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = PolicyAliases.PLAIN
    computed: ClassVar[tuple[str, ...]] = (*ActorCriticAlgorithm.computed, "_critic_loss")
    eager_engine: ClassVar[type[EagerEngine]] = EagerTrustRegionEngine
    packed_engine: ClassVar[type[PackedEngine]] = PackedTrustRegionEngine
    remedy: ClassVar[str] = "lower `learning_rate` or `target_kl`, or normalise observations and rewards"

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 2048,
        batch_size: int = 128,
        gamma: float = 0.99,
        cg_max_steps: int = 15,
        cg_damping: float = 0.1,
        line_search_shrinking_factor: float = 0.8,
        line_search_max_iter: int = 10,
        n_critic_updates: int = 10,
        gae_lambda: float = 0.95,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        target_kl: float = 0.01,
        sub_sampling_factor: int = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        popart: bool = False,
        popart_beta: float = 0.03,
        kl_reduction: KLReduction = "mean",
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
            # The critics are trained by themselves, and there is no entropy bonus.
            ent_coef=0.0,
            vf_coef=0.0,
            max_grad_norm=0.0,
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
        self.cg_max_steps = cg_max_steps
        self.cg_damping = cg_damping
        self.line_search_shrinking_factor = line_search_shrinking_factor
        self.line_search_max_iter = line_search_max_iter
        self.n_critic_updates = n_critic_updates
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.sub_sampling_factor = sub_sampling_factor
        self.popart = popart
        self.popart_beta = popart_beta
        self.kl_reduction: KLReduction = kl_reduction
        self.engine = engine
        self.compile = compile
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_integer("cg_max_steps", self.cg_max_steps, 1)
        check_range("cg_damping", self.cg_damping, 0)
        factor = self.line_search_shrinking_factor
        check_range("line_search_shrinking_factor", factor, 0, 1, low_open=True, high_open=True)
        check_integer("line_search_max_iter", self.line_search_max_iter, 1)
        check_integer("n_critic_updates", self.n_critic_updates, 1)
        check_range("target_kl", self.target_kl, 0, low_open=True)
        check_integer("sub_sampling_factor", self.sub_sampling_factor, 1)
        check_choice("kl_reduction", self.kl_reduction, KL_REDUCTIONS)
        if self.engine == "compiled" or self.compile is True:
            asked = "engine='compiled'" if self.engine == "compiled" else "compile=True"
            raise ValueError(
                f"`{asked}`: TRPO's update is not one loss that could be compiled; use 'packed' or 'eager'"
            )
        if self.env is not None:
            check_batch(self.n_steps, self.total_envs, self.batch_size, self.normalize_advantage, least=1)

    def train(self) -> None:
        """Update the policy from the current rollout."""
        self._begin_update()
        self._record_update(self.current_engine.update(self), self.remedy)

    def _critic_loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss of the critics on a minibatch, and scalars to log."""
        values = self.policy.predict_values(batch.observation)
        return self._value_loss(values, batch)

    def _value_loss(self, values: Tensor, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = value_loss(values.flatten(), batch.value_target, head_scale(self.policy.value_net))
        return loss, {"value_loss": loss.detach()}

    def metrics_of(self, search: LineSearch) -> dict[str, float]:
        """Return what is logged of the actor's step, with sb3-contrib's names; ``step_fraction`` is of the full one."""
        return {
            "policy_objective": search.objective,
            "kl_divergence_loss": search.kl,
            "is_line_search_success": float(search.accepted),
            "step_fraction": search.fraction,
        }
