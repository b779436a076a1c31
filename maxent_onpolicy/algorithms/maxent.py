"""The entropy critic as a part that any on-policy algorithm can carry."""

import math
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import Tensor

from maxent_onpolicy.algorithms.actor_critic import ActorCriticAlgorithm
from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer
from maxent_onpolicy.envs.tensor import Observation
from maxent_onpolicy.estimators.entropy import (
    AdvantageNormalization,
    EntropyReward,
    advantage_share,
    augmented_reward,
    center,
    entropy_advantage,
    normalized_soft_advantage,
    sampled_entropy_reward,
    soft_advantage,
    temperature_loss,
)
from maxent_onpolicy.estimators.losses import explained_variance, normalize_advantage
from maxent_onpolicy.estimators.zero_sum import acting_players_advantage, player_sign, zero_sum_entropy_reward
from maxent_onpolicy.policies.actor_critic import EntropyHeadMixin, with_entropy_head
from maxent_onpolicy.policies.aliases import PolicyAliases
from maxent_onpolicy.validation import check_choice, check_pair, check_range, did_you_mean

Temperature = float | Schedule | Literal["auto"]
# To explore first and be exact in the end: better than a constant one in the suite "ablation", and than one that
# pays for randomness up to the end, as a policy becomes certain more slowly than it becomes random. The suite
# "mujoco-tuning-long" has the fraction.
FALLING = LinearSchedule(0.1, 0.0, 0.25)


class EntropyCriticMixin(ActorCriticAlgorithm):
    """State and bookkeeping of the entropy advantage: temperature, entropy rewards, second critic, logging.

    The attributes are the keywords of :class:`~maxent_onpolicy.MaxEntPPO`.
    """

    policy: EntropyHeadMixin
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = PolicyAliases.MAX_ENT

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *args: Any,
        tau: Temperature = FALLING,
        entropy_gamma: float = 0.9,
        entropy_gae_lambda: float = 0.8,
        entropy_vf_coef: float = 0.01,
        entropy_reward: EntropyReward = "sampled",
        entropy_centering: bool = False,
        advantage_normalization: AdvantageNormalization = "separate",
        reward_augmentation: bool = False,
        target_entropy: float | None = None,
        initial_tau: float = 0.01,
        tau_bounds: tuple[float, float] = (1e-6, 10.0),
        tau_learning_rate: float = 0.02,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, _init_setup_model=False, **kwargs)  # type: ignore[misc]
        self.tau = tau
        self.entropy_gamma = entropy_gamma
        self.entropy_gae_lambda = entropy_gae_lambda
        self.entropy_vf_coef = entropy_vf_coef
        self.entropy_reward = entropy_reward
        self.entropy_centering = entropy_centering
        self.advantage_normalization = advantage_normalization
        self.reward_augmentation = reward_augmentation
        self.target_entropy = target_entropy
        self.initial_tau = initial_tau
        self.tau_bounds = tau_bounds
        self.tau_learning_rate = tau_learning_rate
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if isinstance(self.tau, str) and self.tau != "auto":
            hint = did_you_mean(self.tau, ("auto",))
            raise ValueError(f"`tau` must be a number of at least 0, a schedule or 'auto'; got {self.tau!r}{hint}")
        if self.tau != "auto" and not callable(self.tau):
            check_range("tau", self.tau, 0)
        low, high = check_pair("tau_bounds", self.tau_bounds)
        check_range("tau_bounds[0]", low, 0, low_open=True)
        check_range("tau_bounds[1]", high, low)
        check_range("tau_learning_rate", self.tau_learning_rate, 0, low_open=True)
        check_range("entropy_gamma", self.entropy_gamma, 0, 1)
        check_range("entropy_gae_lambda", self.entropy_gae_lambda, 0, 1)
        check_range("entropy_vf_coef", self.entropy_vf_coef, 0)
        check_choice("entropy_centering", self.entropy_centering, (True, False))
        check_choice("reward_augmentation", self.reward_augmentation, (True, False))
        check_choice("entropy_reward", self.entropy_reward, ("sampled", "exact"))
        check_choice("advantage_normalization", self.advantage_normalization, ("combined", "separate"))
        if self.target_entropy is not None:
            check_range("target_entropy", self.target_entropy)
            if self.tau != "auto":
                raise ValueError(f"`target_entropy` only applies to `tau='auto'`, got tau={self.tau!r}")

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.tau == "auto":
            low, high = self.tau_bounds
            start = min(max(self.initial_tau, low), high)
            self.log_tau = torch.tensor(math.log(start), device=self.device, requires_grad=True)
            self.tau_optimizer = torch.optim.Adam([self.log_tau], lr=self.tau_learning_rate)
            if self.target_entropy is None:
                self.target_entropy = default_target_entropy(self.action_space)
        else:
            # SB3's schedules know Python's numbers only, not numpy's.
            self.tau = FloatSchedule(self.tau if callable(self.tau) else float(self.tau))
        if self.entropy_reward == "exact" and self._exact_entropy_is_unknown():
            raise ValueError(
                "`entropy_reward='exact'` needs a distribution whose entropy has a closed form; "
                f"{type(self.policy.action_dist).__name__} has none, use 'sampled'"
            )

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        total_timesteps, callback = super()._setup_learn(total_timesteps, *args, **kwargs)
        # SB3 first updates the progress after a rollout, which would see the end of the previous call of learn().
        self._update_current_progress_remaining(self.num_timesteps, max(total_timesteps, 1))
        return total_timesteps, callback

    @property
    def uses_entropy_critic(self) -> bool:
        """Whether the second critic is trained: not in the single-critic ablation, nor while τ is a constant 0."""
        return not self.reward_augmentation and not self._is_zero_tau

    @property
    def _is_zero_tau(self) -> bool:
        schedule = self.tau.value_schedule if isinstance(self.tau, FloatSchedule) else self.tau
        if isinstance(schedule, ConstantSchedule):
            return schedule.val == 0
        return isinstance(schedule, float | int) and schedule == 0

    @property
    def _normalizes_separately(self) -> bool:
        return self.normalize_advantage and self.advantage_normalization == "separate"

    @property
    def current_tau(self) -> float:
        """The temperature in force, in units of reward per nat."""
        if self.tau == "auto":
            return self.log_tau.exp().item()
        return FloatSchedule(self.tau)(self._current_progress_remaining)

    def _policy_spec(self) -> tuple[Any, dict[str, Any]]:
        policy_class, kwargs = super()._policy_spec()
        return with_entropy_head(policy_class), kwargs | {"entropy_head": not self.reward_augmentation}

    def _exact_entropy(self, observation: Observation) -> Tensor:
        entropy = self.policy.get_distribution(observation).entropy()
        assert entropy is not None
        return entropy

    def _exact_entropy_is_unknown(self) -> bool:
        observation = self.rollout_buffer.flat_observation()
        sample = {k: v[:1] for k, v in observation.items()} if isinstance(observation, dict) else observation[:1]
        self.policy.set_training_mode(False)
        with torch.no_grad():
            return self.policy.get_distribution(sample).entropy() is None

    @classmethod
    def load(cls, path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load a model; see :meth:`maxent_onpolicy.PPO.load`.

        Raises:
            ValueError: also if the file holds a model without an entropy critic, or with a temperature of another kind.
        """
        try:
            return super().load(path, *args, **kwargs)
        except ValueError as error:
            if "tau" not in kwargs or not any(name in str(error) for name in ("tau_optimizer", "target_entropy")):
                raise
            raise ValueError(
                f"`tau` cannot change between 'auto' and a number or schedule when a model is loaded, got "
                f"{kwargs['tau']!r}; load it without `tau`, and give its `policy.state_dict()` to the policy of a new "
                "model with that `tau`"
            ) from error
        except RuntimeError as error:
            if "entropy_value_net" not in str(error):
                raise
            raise ValueError(
                f"{path!r} holds a model of another kind, whose critics are not those of {cls.__name__}; load it with "
                "the class that saved it (`PPO` loads stable_baselines3's)"
            ) from error

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        if self.tau == "auto":
            return [*state_dicts, "tau_optimizer"], [*variables, "log_tau"]
        return state_dicts, variables

    def _estimate_advantages(self, buffer: RolloutBuffer) -> None:
        self._tau_of_rollout = check_range("tau", self.current_tau, 0)
        if not self._is_zero_tau:
            buffer.entropy_reward = self._entropy_reward_of(buffer)
        super()._estimate_advantages(buffer)
        buffer.entropy = self.uses_entropy_critic
        if not buffer.entropy:
            return
        buffer.entropy_value = self._critic_values(buffer, "entropy_value")
        estimate = entropy_advantage(
            buffer.entropy_reward,
            buffer.entropy_value,
            self._successor_values(buffer, buffer.entropy_value, self.policy.predict_entropy_values),
            buffer.terminated,
            buffer.done,
            self.entropy_gamma,
            self.entropy_gae_lambda,
            parallel=self._scans_in_parallel,
        )
        if buffer.acting_player is not None:
            estimate = acting_players_advantage(estimate, player_sign(buffer.acting_player))
        buffer.entropy_advantage, buffer.entropy_value_target = estimate

    def _task_reward(self, buffer: RolloutBuffer) -> Tensor:
        if self.reward_augmentation and not self._is_zero_tau:
            return augmented_reward(buffer.reward, buffer.entropy_reward, self._tau_of_rollout)
        return buffer.reward

    def _entropy_reward_of(self, buffer: RolloutBuffer) -> Tensor:
        if self.entropy_reward == "sampled":
            reward = sampled_entropy_reward(buffer.log_prob)
        else:
            reward = buffer.evaluate(self._exact_entropy)
        if self.entropy_centering:
            reward = center(reward)
        if buffer.acting_player is None:
            return reward
        return zero_sum_entropy_reward(reward, player_sign(buffer.acting_player))

    def advantage_terms(self, buffer: RolloutBuffer) -> list[tuple[float, Tensor]]:
        """Weights and advantages ``[T, B]`` whose weighted sum the policy follows; each is normalised by itself."""
        if not self.uses_entropy_critic:
            return super().advantage_terms(buffer)
        tau = self._tau_of_rollout
        if self._normalizes_separately:
            return [(1.0, buffer.advantage), (tau, buffer.entropy_advantage)]
        return [(1.0, soft_advantage(buffer.advantage, buffer.entropy_advantage, tau))]

    def _policy_advantage(self, batch: Minibatch) -> Tensor:
        if not self.uses_entropy_critic:
            return super()._policy_advantage(batch)
        assert batch.entropy_advantage is not None
        advantage, entropy_advantage, tau = batch.advantage, batch.entropy_advantage, self._tau_of_rollout
        if not self.normalize_advantage:
            return soft_advantage(advantage, entropy_advantage, tau)
        return normalized_soft_advantage(advantage, entropy_advantage, tau, self.advantage_normalization)

    def _before_epochs(self) -> None:
        super()._before_epochs()
        self._update_temperature()

    def _update_temperature(self) -> None:
        """One step of dual ascent on log τ towards the target entropy, within the bounds."""
        if self.tau != "auto":
            return
        assert self.target_entropy is not None
        loss, gap = temperature_loss(self.log_tau, -self.rollout_buffer.log_prob, self.target_entropy)
        self.tau_optimizer.zero_grad()
        loss.backward()
        self.tau_optimizer.step()
        with torch.no_grad():
            low, high = self.tau_bounds
            self.log_tau.clamp_(math.log(low), math.log(high))
        self.logger.record("train/tau_loss", loss.item())
        self.logger.record("train/entropy_gap", gap.item())

    def _log_rollout(self) -> None:
        super()._log_rollout()
        record = self.logger.record
        record("train/tau", self._tau_of_rollout)
        if not self.uses_entropy_critic:
            return
        buffer = self.rollout_buffer
        record("train/entropy_advantage_mean", buffer.entropy_advantage.mean().item())
        record("train/entropy_advantage_std", buffer.entropy_advantage.std().item())
        task, entropy = buffer.advantage.flatten(), buffer.entropy_advantage.flatten()
        if self._normalizes_separately:
            task, entropy = normalize_advantage(task), normalize_advantage(entropy)
        share = advantage_share(task, entropy, self._tau_of_rollout)
        record("train/entropy_advantage_share", share.item())
        fit = explained_variance(buffer.entropy_value, buffer.entropy_value_target)
        record("train/entropy_explained_variance", fit.item())

    def _maybe_recommend_cpu(self, mlp_class_name: str = "MaxEntActorCriticPolicy") -> None:
        super()._maybe_recommend_cpu(mlp_class_name)


def default_target_entropy(action_space: spaces.Space) -> float:
    """Return a target entropy in nats for ``tau="auto"``.

    Continuous actions: ``−A`` (Haarnoja et al. 2018, arXiv:1812.05905). Discrete
    actions: half of the largest possible entropy.

    Raises:
        ValueError: for an action space that has no default.
    """
    if isinstance(action_space, spaces.Box):
        return -float(get_action_dim(action_space))
    if isinstance(action_space, spaces.Discrete):
        return 0.5 * math.log(action_space.n)
    if isinstance(action_space, spaces.MultiDiscrete):
        return 0.5 * float(np.log(action_space.nvec).sum())
    if isinstance(action_space, spaces.MultiBinary):
        return 0.5 * math.log(2) * get_action_dim(action_space)
    raise ValueError(f"`target_entropy` has no default for {action_space}; pass it")
