"""What every on-policy algorithm shares: SB3's life cycle around our rollout, buffer and estimators."""

import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common import on_policy_algorithm as sb3
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer as SB3RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.algorithms.resume import capture_training_state, restore_training_state
from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.rollout import clipped_fraction, collect_rollout
from maxent_onpolicy.envs.tensor import Observation, to_device
from maxent_onpolicy.estimators.advantages import gae, successor_values
from maxent_onpolicy.estimators.losses import explained_variance
from maxent_onpolicy.policies.distributions import BoxDistribution
from maxent_onpolicy.validation import check_choice, check_integer, check_range


class OnPolicyAlgorithm(sb3.OnPolicyAlgorithm):
    """SB3's on-policy algorithm with a device-resident rollout, correct truncation and exact resume.

    Subclasses define ``train`` and, where they estimate more than one advantage,
    extend :meth:`_estimate_advantages`.
    """

    rollout_buffer: RolloutBuffer  # type: ignore[assignment]
    _arrived_at: tuple[Any, np.ndarray] | None = None

    def _setup_model(self) -> None:
        self._check_arguments()
        buffer_class = self._resolve_buffer_class()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.rollout_buffer = buffer_class(
            self.n_steps,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        self.policy = self._make_policy().to(self.device)
        self._maybe_recommend_cpu()

    def _check_arguments(self) -> None:
        if not isinstance(self.policy_kwargs, Mapping):
            raise ValueError(f"`policy_kwargs` must be keywords of the policy with values, got {self.policy_kwargs!r}")
        if not callable(self.learning_rate):
            check_range("learning_rate", self.learning_rate, 0)
        check_integer("n_steps", self.n_steps, 1)
        check_range("gamma", self.gamma, 0, 1)
        check_range("gae_lambda", self.gae_lambda, 0, 1)
        check_range("ent_coef", self.ent_coef)
        check_range("vf_coef", self.vf_coef, 0)
        check_range("max_grad_norm", self.max_grad_norm, 0, low_open=True)

    def _resolve_buffer_class(self) -> type[RolloutBuffer]:
        requested: Any = self.rollout_buffer_class
        if requested in (None, SB3RolloutBuffer, DictRolloutBuffer):
            return RolloutBuffer
        if isinstance(requested, type) and issubclass(requested, RolloutBuffer):
            return requested
        raise ValueError(
            "`rollout_buffer_class` must be None or a subclass of maxent_onpolicy.engine.buffer.RolloutBuffer, whose "
            f"tensors stay on the device; got {requested!r}"
        )

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        check_choice("policy", policy_name, self.policy_aliases)
        return super()._get_policy_from_name(policy_name)

    def _make_policy(self) -> Any:
        policy_class, kwargs = self._policy_spec()
        return policy_class(self.observation_space, self.action_space, self.lr_schedule, use_sde=self.use_sde, **kwargs)

    def _policy_spec(self) -> tuple[Any, dict[str, Any]]:
        """Class of the policy and the keywords to build it with."""
        return self.policy_class, self.policy_kwargs

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer and estimate its advantages; see :func:`maxent_onpolicy.engine.rollout.collect_rollout`."""
        if not collect_rollout(self, env, callback, rollout_buffer, n_rollout_steps):
            return False
        with torch.no_grad():
            self._estimate_advantages(rollout_buffer)
        callback.on_rollout_end()
        return True

    def _estimate_advantages(self, buffer: RolloutBuffer) -> None:
        next_value = self._successor_values(buffer, buffer.value, self.policy.predict_values)
        buffer.advantage, buffer.value_target = gae(
            self._task_reward(buffer),
            buffer.value,
            next_value,
            buffer.terminated,
            buffer.done,
            self.gamma,
            self.gae_lambda,
        )

    def _task_reward(self, buffer: RolloutBuffer) -> Tensor:
        """Reward ``[T, B]`` whose discounted sum the value critic predicts."""
        return buffer.reward

    def _successor_values(self, buffer: RolloutBuffer, value: Tensor, critic: Any) -> Tensor:
        """Critic at every step's successor ``[T, B]``; cut-off episodes share one batch of final observations."""
        last_value = critic(self._last_observation()).flatten()
        final = buffer.final_observations()
        if final is None:
            return torch.cat([value[1:], last_value.unsqueeze(0)])
        steps, indices, observation = final
        return successor_values(value, last_value, critic(observation).flatten(), steps, indices)

    def _move_on(self) -> None:
        """Act next on the observation that the environments last returned."""
        if self._arrived_at is not None:
            (self._last_obs, self._last_episode_starts), self._arrived_at = self._arrived_at, None

    def _last_observation(self) -> Observation:
        return to_device(self._last_obs, self.device)

    def _action_std(self) -> float | None:
        """Mean standard deviation of the (unsquashed) action, or ``None`` for discrete actions."""
        distribution = self.policy.action_dist
        if isinstance(distribution, BoxDistribution):
            return distribution.stddev().mean().item()
        if hasattr(self.policy, "log_std"):
            return torch.exp(self.policy.log_std).mean().item()
        return None

    def _log_rollout(self) -> None:
        """Record what the rollout says about the policy and the critic."""
        buffer = self.rollout_buffer
        record = self.logger.record
        record("train/entropy", -buffer.log_prob.mean().item())
        record("train/clipped_actions", clipped_fraction(self.policy, self.action_space, buffer.action))
        record("train/explained_variance", explained_variance(buffer.value, buffer.value_target).item())
        std = self._action_std()
        if std is not None:
            record("train/std", std)

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save as SB3 does, with everything that an exact continuation needs.

        Beside the parameters and optimisers the file holds the random generators,
        the last observation and, where it can be captured, the environments' state
        and normalisation statistics. ``load(path, env=env, resume=True)`` restores
        them. A continuation is exact from a rollout's boundary: after ``learn()``,
        or from a callback's ``_on_rollout_start``. From a file saved in the middle of a
        rollout the environments go on where they were, but that rollout's steps are lost.

        Args:
            path: file or file-like object.
            exclude: as SB3.
            include: as SB3.
        """
        self._training_state = capture_training_state(self.env)
        try:
            super().save(path, exclude, include)
        finally:
            del self._training_state

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        resume: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Load a model; as SB3, the file is unpickled, so load only files you trust.

        Args:
            path: file or file-like object.
            env: environment to train in; as SB3.
            device: as SB3.
            custom_objects: as SB3.
            print_system_info: as SB3.
            force_reset: as SB3; ignored with ``resume``.
            resume: restore the random generators, normalisation statistics and the environments' state too, so that
                ``learn(remaining_steps, reset_num_timesteps=False)`` continues bit for bit.
            **kwargs: as SB3.

        Raises:
            ValueError: if ``resume`` is set without ``env``, or the file holds no training state.
            StateNotRestorableError: if ``resume`` is set and the environments' state could not be saved.
        """
        if resume and env is None:
            raise ValueError("`resume=True` needs `env`: the environment in which training continues")
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset and not resume, **kwargs)
        state = model.__dict__.pop("_training_state", None)
        if resume:
            if state is None:
                raise ValueError(f"`resume=True` needs a file saved by this package; {path!r} holds no training state")
            assert model.env is not None
            restore_training_state(model.env, state)
            model._move_on()
        model._arrived_at = None
        return model
