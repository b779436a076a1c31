"""What every on-policy algorithm shares: SB3's life cycle around our rollout, buffer and estimators."""

import io
import pathlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common import on_policy_algorithm as sb3
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer as SB3RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.algorithms.resume import Resumable, Resume, capture_training_state, of_rank
from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.distributed import gather_objects, reporting_failure, use_own_gpu, world
from maxent_onpolicy.engine.eager import EagerEngine
from maxent_onpolicy.engine.episodes import DeviceEpisodes
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.parallel import collect_together, own_callback, sharing_statistics, start_together
from maxent_onpolicy.engine.rollout import as_numpy, clipped_fraction
from maxent_onpolicy.engine.select import Compile, Engine, EngineName, check_engine, is_outdated, make_engine
from maxent_onpolicy.engine.shared_buffer import SharedRolloutBuffer
from maxent_onpolicy.envs.tensor import Observation, to_device
from maxent_onpolicy.estimators.advantages import gae, successor_values
from maxent_onpolicy.estimators.losses import explained_variance
from maxent_onpolicy.estimators.zero_sum import acting_players_advantage, player_sign
from maxent_onpolicy.policies.distributions import BoxDistribution
from maxent_onpolicy.validation import check_choice, check_integer, check_range


class OnPolicyAlgorithm(Resumable, sb3.OnPolicyAlgorithm):
    """SB3's on-policy algorithm with a device-resident rollout, correct truncation and exact resume.

    Subclasses define ``train`` and, where they estimate more than one advantage,
    extend :meth:`_estimate_advantages`.
    """

    rollout_buffer: RolloutBuffer  # type: ignore[assignment]
    engine: EngineName = "auto"
    compile: Compile = "auto"
    was_compiled = False
    engine_message: str | None = None
    # Whether the update shares its minibatches with other processes.
    data_parallel: ClassVar[bool] = False
    # The tiers that do the work; an algorithm whose update is not PPO's has its own.
    eager_engine: ClassVar[type[EagerEngine]] = EagerEngine
    packed_engine: ClassVar[type[PackedEngine]] = PackedEngine
    _arrived_at: tuple[Any, Any] | None = None
    _engine: Engine | None = None
    _engine_asked: tuple[EngineName, Compile] | None = None
    _rank_states: tuple[int, list[dict[str, Any]]] | None = None

    def _setup_model(self) -> None:
        self._check_arguments()
        buffer_class = self._resolve_buffer_class()
        self._setup_lr_schedule()
        ranks = world()
        if ranks.size > 1:
            use_own_gpu(self.device)
            self._check_ranks()
        if ranks.rank > 0:  # what there is to say, rank 0 says
            self.verbose, self.tensorboard_log = 0, None
        self.set_random_seed(self.seed)
        self.rollout_buffer = buffer_class(
            self.n_steps,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        if ranks.size > 1:
            self.rollout_buffer = SharedRolloutBuffer(self.rollout_buffer, ranks)
        self.policy = self._make_policy().to(self.device)
        self._maybe_recommend_cpu()

    def _check_arguments(self) -> None:
        if not isinstance(self.policy_kwargs, Mapping):
            raise ValueError(f"`policy_kwargs` must be keywords of the policy with values, got {self.policy_kwargs!r}")
        if self.env is not None and not getattr(self.env.unwrapped, "copy_observations", True):
            raise ValueError("`env` was made with copy_observations=False, which overwrites what is to be learnt from")
        if not callable(self.learning_rate):
            check_range("learning_rate", self.learning_rate, 0)
        check_engine(self.engine, self.compile)
        check_integer("n_steps", self.n_steps, 1)
        check_range("gamma", self.gamma, 0, 1)
        check_range("gae_lambda", self.gae_lambda, 0, 1)

    @property
    def total_envs(self) -> int:
        """How many environments train this model, over all processes."""
        return self.n_envs * world().size

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed all random generators; with several processes, environments count on from one to the next."""
        super().set_random_seed(seed)
        rank = world().rank
        if seed is not None and self.env is not None and rank > 0:
            self.env.seed(seed + rank * self.n_envs)

    def _check_ranks(self) -> None:
        """Raise if this algorithm's update is not one that several processes can share."""
        train = type(self).train
        if not self.data_parallel or not train.__module__.startswith("maxent_onpolicy.algorithms."):
            own = f"{type(self).__name__}'s own `train`" if self.data_parallel else f"{type(self).__name__}"
            raise ValueError(f"{own} cannot be run by several processes; start a single one, without torchrun")
        if self.rollout_buffer_class not in (None, RolloutBuffer, SB3RolloutBuffer, DictRolloutBuffer):
            raise ValueError(
                "`rollout_buffer_class` must be None where several processes train: they exchange the fields they know"
            )

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

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """Train; see SB3. Where several processes train, all of them must call this."""
        if not isinstance(self.rollout_buffer, SharedRolloutBuffer):
            return super().learn(*args, **kwargs)
        with reporting_failure():
            start_together(self)
            super().learn(*args, **kwargs)
            self.gather_training_state()
        return self

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._renew_engine()
        last_obs = self._last_obs
        shared = isinstance(self.rollout_buffer, SharedRolloutBuffer)
        with sharing_statistics(self.env) if shared else nullcontext():
            prepared = super()._setup_learn(*args, **kwargs)
        if self._last_obs is not last_obs:  # the environments were reset
            self.__dict__.pop("device_episodes", None)
        return prepared

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        rank = world().rank
        return super()._init_callback(own_callback(callback, rank), progress_bar and rank == 0)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer and estimate its advantages; see :func:`maxent_onpolicy.engine.rollout.collect_rollout`."""
        if n_rollout_steps != rollout_buffer.buffer_size:
            raise ValueError(
                f"`n_steps` is {n_rollout_steps}, but the rollout buffer was made for {rollout_buffer.buffer_size} "
                "steps; save the model and load it with another `n_steps`"
            )
        if isinstance(rollout_buffer, SharedRolloutBuffer):
            complete = collect_together(self, env, callback, rollout_buffer, n_rollout_steps)
        else:
            complete = self.current_engine.collect(self, env, callback, rollout_buffer, n_rollout_steps)
        if not complete:
            return False
        with torch.no_grad():
            self._estimate_advantages(rollout_buffer)
        callback.on_rollout_end()
        return True

    @property
    def current_engine(self) -> Engine:
        """The engine that trains this model, chosen when it is first needed."""
        if self._engine is None:
            check_engine(self.engine, self.compile)
            self._engine, self._engine_asked = make_engine(self, self.engine), (self.engine, self.compile)
        return self._engine

    def _renew_engine(self) -> None:
        """Let the engine be chosen anew where another may be right for the coming call of ``learn()``."""
        if self._engine is None:
            return
        asked = self._engine_asked in (None, (self.engine, self.compile))
        # An eager one: this call may be long enough to compile.
        if not asked or self._engine.name == "eager" or is_outdated(self._engine, self):
            self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine out of copies: its arrays share memory with this model's policy, not with the copy's."""
        return {name: value for name, value in self.__dict__.items() if name != "_engine"}

    def why_not_packed(self) -> str | None:
        """Return what of this algorithm the packed engine does not know, or ``None``; the policy is asked apart."""
        return f"the algorithm {type(self).__name__}"

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_engine",
            "_engine_asked",
            "_rank_states",
            "engine_message",
            "device_episodes",
        ]

    def _estimate_advantages(self, buffer: RolloutBuffer) -> None:
        next_value = self._successor_values(buffer, buffer.value, self.policy.predict_values)
        estimate = gae(
            self._task_reward(buffer),
            buffer.value,
            next_value,
            buffer.terminated,
            buffer.done,
            self.gamma,
            self.gae_lambda,
            parallel=self._scans_in_parallel,
        )
        if buffer.acting_player is not None:
            estimate = acting_players_advantage(estimate, player_sign(buffer.acting_player))
        buffer.advantage, buffer.value_target = estimate

    @property
    def _scans_in_parallel(self) -> bool:
        """Whether advantages may be summed in another order than SB3's, which the eager engine keeps."""
        return self.current_engine.name != "eager"

    def _task_reward(self, buffer: RolloutBuffer) -> Tensor:
        """Reward ``[T, B]`` whose discounted sum the value critic predicts."""
        return buffer.reward

    def _critic_values(self, buffer: RolloutBuffer, critic: str) -> Tensor:
        """Values ``[T, B]`` of ``"value"`` or ``"entropy_value"`` of the rollout's observations."""
        if isinstance(buffer, SharedRolloutBuffer):
            return buffer.gather(self._critic_values(buffer.local, critic))
        return self.current_engine.critic_values(self, buffer, critic)

    def _successor_values(self, buffer: RolloutBuffer, value: Tensor, critic: Any) -> Tensor:
        """Critic at every step's successor ``[T, B]``; cut-off episodes share one batch of final observations."""
        if isinstance(buffer, SharedRolloutBuffer):
            return buffer.gather(self._successor_values(buffer.local, buffer.own(value), critic))
        last_value = critic(self._last_observation()).flatten()
        final = buffer.final_observations()
        if final is None:
            return torch.cat([value[1:], last_value.unsqueeze(0)])
        steps, indices, observation = final
        return successor_values(value, last_value, critic(observation).flatten(), steps, indices)

    def _move_on(self) -> None:
        """Act next on the observation that the environments last returned."""
        if self._arrived_at is not None:
            observation, episode_starts = self._arrived_at
            if isinstance(episode_starts, Tensor):  # from environments on a device; SB3 knows numpy only
                observation, episode_starts = as_numpy(observation), episode_starts.cpu().numpy()
            self._last_obs, self._last_episode_starts, self._arrived_at = observation, episode_starts, None

    @cached_property
    def device_episodes(self) -> DeviceEpisodes:
        """Counts the episodes of environments on a device."""
        return DeviceEpisodes(self.n_envs, self.device)

    def _running_episodes(self) -> dict[str, np.ndarray] | None:
        return self.device_episodes.get_state() if "device_episodes" in self.__dict__ else None

    def _last_observation(self) -> Observation:
        return to_device(self._last_obs, self.device)

    def _action_std(self) -> float | None:
        """Mean standard deviation of the (unsquashed) action, or ``None`` for discrete actions."""
        if isinstance(self.policy.action_dist, BoxDistribution):
            with torch.no_grad():
                self.policy.get_distribution(self._last_observation())
            return self.policy.action_dist.stddev().mean().item()
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
        for player in () if buffer.acting_player is None else (0, 1):
            own = buffer.log_prob[buffer.acting_player == player]
            if len(own):
                record(f"train/entropy_player_{player}", -own.mean().item())
        std = self._action_std()
        if std is not None:
            record("train/std", std)

    def gather_training_state(self) -> None:
        """Tell rank 0 what the next ``save`` needs to know of the other processes for an exact continuation.

        All processes must call this. ``learn`` does at its end; a callback that saves between two rollouts does in its
        ``_on_rollout_start``, and has ``every_rank = True``. In a single process it does nothing.
        """
        if not isinstance(self.rollout_buffer, SharedRolloutBuffer):
            return
        state = capture_training_state(self.env)
        own = {name: state[name] for name in ("env", "env_error")}
        own["device_episodes"] = self._running_episodes()
        own["arrived_at"] = (self._last_obs, self._last_episode_starts)
        self._rank_states = self.num_timesteps, gather_objects(own)

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save with everything that an exact continuation needs; see :meth:`Resumable.save`."""
        if world().rank == 0:  # its file holds everything
            super().save(path, exclude, include)

    def _capture_training_state(self) -> dict[str, Any]:
        state = super()._capture_training_state() | {"device_episodes": self._running_episodes()}
        if isinstance(self.rollout_buffer, SharedRolloutBuffer):
            gathered_at, states = self._rank_states or (-1, None)
            current = gathered_at == self.num_timesteps
            state |= {"size": world().size, "ranks": states if current else None}
        return state

    def _restore_training_state(self, state: dict[str, Any], resume: Resume) -> None:
        ranks = world()
        if resume is True:
            state = of_rank(state, ranks.rank, ranks.size)
        super()._restore_training_state(state, resume)
        if resume is True:
            if state.get("device_episodes") is not None:
                self.device_episodes.set_state(state["device_episodes"])
            self._arrived_at = state.get("arrived_at", self._arrived_at)
            self._move_on()

    def _seed_environments(self, seed: int) -> None:
        super()._seed_environments(seed + world().rank * self.n_envs)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Self:
        """Load a model; see :meth:`Resumable.load`."""
        model = super().load(*args, **kwargs)
        model._arrived_at = None
        return model
