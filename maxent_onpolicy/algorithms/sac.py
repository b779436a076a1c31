"""Soft actor-critic: SB3's, on our engine, with exact resume."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    Schedule,
    TrainFreq,
    TrainFrequencyUnit,
)
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import SACPolicy

from maxent_onpolicy.algorithms.off_policy_resume import ResumableOffPolicy
from maxent_onpolicy.algorithms.resume import Resume
from maxent_onpolicy.algorithms.sac_arguments import check_arguments
from maxent_onpolicy.engine.episodes import DeviceEpisodes
from maxent_onpolicy.engine.finite import NonFiniteError, array_is_finite, check_finite
from maxent_onpolicy.engine.replay import ReplayBuffer
from maxent_onpolicy.engine.rollout import as_numpy, steps_on_tensors
from maxent_onpolicy.engine.soft.collect import collect_on_device
from maxent_onpolicy.engine.soft.engine import EagerEngine, SoftEngine, why_not_soft
from maxent_onpolicy.validation import check_choice

logger = logging.getLogger(__name__)

SACEngine = Literal["auto", "eager", "packed"]
ENGINES: tuple[SACEngine, ...] = ("auto", "eager", "packed")


class SAC(ResumableOffPolicy, sb3.SAC):
    """Soft actor-critic (arXiv:1812.05905) with SB3's arguments and numbers, faster and exactly resumable.

    With ``engine="eager"`` and the same seed its parameters are stable_baselines3's bit for bit. The packed engine
    agrees to float32 rounding: critics and their targets are stacked, parameters are flat vectors, gradients are
    derived by hand, and the actor's loss computes no gradients of the critics' parameters.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
        env: environment, or the id of one.
        learning_rate: step size of all Adam optimisers, or a schedule of it.
        buffer_size: transitions kept, of all environments together.
        learning_starts: environment steps with uniformly random actions before the first update.
        batch_size: transitions in a gradient step.
        tau: how far target critics follow in each of their updates, in ``[0, 1]``.
        gamma: discount.
        train_freq: steps of each environment between updates; ``(n, "episode")`` counts episodes.
        gradient_steps: gradient steps in an update; ``-1``: one for each transition collected.
        action_noise: added to actions while collecting.
        replay_buffer_class: ``None``: tensors on the device for plain observations, else SB3's class.
        replay_buffer_kwargs: further keywords of that class.
        optimize_memory_usage: as SB3's buffer, which then is used.
        n_steps: length of returns; above 1 SB3's ``NStepReplayBuffer`` is used.
        ent_coef: weight of the entropy; ``"auto"`` or ``"auto_0.1"`` (start value) adjusts it.
        target_update_interval: gradient steps between updates of target critics.
        target_entropy: mean entropy that ``ent_coef="auto"`` aims at; ``"auto"``: minus the number of actions.
        use_sde: generalised state-dependent exploration.
        sde_sample_freq: steps between new exploration matrices; ``-1``: once a rollout.
        use_sde_at_warmup: whether it also acts before ``learning_starts``.
        stats_window_size: episodes in the averages that are logged.
        tensorboard_log: folder for TensorBoard.
        policy_kwargs: keywords of the policy.
        verbose: 0, 1 or 2; as SB3.
        seed: of all random generators.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        engine: ``"eager"``: SB3's own computation, for any policy. ``"packed"``: flat vectors, for MLP policies with
            Adam. ``"auto"``: packed where it fits, else eager, and the log says why.

    Raises:
        ValueError: for an argument outside its range, naming it, its value and what is allowed.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = sb3.SAC.policy_aliases
    engine_message: str | None = None
    _engine: SoftEngine | None = None
    _engine_chosen: str | None = None

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[SB3ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        ent_coef: str | float = "auto",
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        engine: SACEngine = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if policy_kwargs is not None and not isinstance(policy_kwargs, Mapping):
            raise ValueError(f"`policy_kwargs` must be keywords of the policy with values, got {policy_kwargs!r}")
        self.engine = engine
        # From a file of settings it comes as a list.
        train_freq = tuple(train_freq) if isinstance(train_freq, list) else train_freq
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            ent_coef=ent_coef,
            target_update_interval=target_update_interval,
            target_entropy=target_entropy,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        check_choice("engine", self.engine, ENGINES)
        check_arguments(self)
        plain = not isinstance(self.observation_space, spaces.Dict) and self.n_steps == 1
        if self.replay_buffer_class is None and plain and not self.optimize_memory_usage:
            self.replay_buffer_class = ReplayBuffer
        super()._setup_model()

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        check_choice("policy", policy_name, self.policy_aliases)
        return super()._get_policy_from_name(policy_name)

    @property
    def update_to_data(self) -> float | None:
        """Gradient steps for each transition collected; ``None`` where updates wait for the end of episodes."""
        if self.gradient_steps < 0:
            return 1.0
        freq = self.train_freq
        if not isinstance(freq, TrainFreq) or freq.unit == TrainFrequencyUnit.EPISODE:
            return None
        return self.gradient_steps / (freq.frequency * self.n_envs)

    @property
    def current_engine(self) -> SoftEngine | EagerEngine:
        """The engine that trains this model, chosen when it is first needed; ``current_engine.name`` says which."""
        return self._current_engine() or EagerEngine()

    def _current_engine(self) -> SoftEngine | None:
        """Return the packed engine, or ``None`` where SB3's own computation trains this model."""
        if self._engine is not None and self._engine.is_current(self) and self._engine_chosen == self.engine:
            return self._engine
        if self._engine is None and self._engine_chosen == self.engine:
            return None
        self._choose_engine()
        return self._engine

    def _choose_engine(self) -> None:
        check_choice("engine", self.engine, ENGINES)
        reason = None if self.engine == "eager" else why_not_soft(self)
        if reason is not None and self.engine == "packed":
            raise ValueError(f"`engine='packed'` cannot train this model because of {reason}; use 'auto' or 'eager'")
        self._engine = SoftEngine(self) if reason is None and self.engine != "eager" else None
        self._engine_chosen = self.engine
        if reason is not None:
            message = f"The packed engine does not know {reason}: training with the eager engine."
            if message != self.engine_message:
                self.engine_message = message
                logger.info(message)
                if self.verbose >= 1:
                    print(message)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        # What changed since the last call is looked at once, hooks and layers too; within a call, what is cheap to see.
        self._engine = self._engine_chosen = None
        last_obs = self._last_obs
        prepared = super()._setup_learn(*args, **kwargs)
        if self._last_obs is not last_obs:  # the environments were reset
            self.__dict__.pop("device_episodes", None)
        self._current_engine()
        return prepared

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: SB3ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Collect transitions; see SB3. With the packed engine, environments on a device are never copied from it."""
        engine = self._current_engine()
        own = all(getattr(type(self), name) is getattr(SAC, name) for name in ("_sample_action", "_store_transition"))
        # VecNormalize keeps and normalises what a buffer stores in numpy.
        direct = own and self._vec_normalize_env is None and steps_on_tensors(env)
        if direct and engine is not None and isinstance(replay_buffer, ReplayBuffer):
            rest = action_noise, learning_starts, log_interval
            return collect_on_device(self, engine.model, env, callback, train_freq, replay_buffer, *rest)
        self._bring_observation_back()
        return super().collect_rollouts(
            env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
        )

    @cached_property
    def device_episodes(self) -> DeviceEpisodes:
        """Counts the episodes of environments on a device."""
        return DeviceEpisodes(self.n_envs, self.device)

    def _bring_observation_back(self) -> None:
        """Let the last observation be arrays, as files and SB3's own loop need it."""
        if isinstance(self._last_obs, torch.Tensor):
            self._last_obs = as_numpy(self._last_obs)

    def _capture_training_state(self) -> dict[str, Any]:
        self._bring_observation_back()
        running = self.device_episodes.get_state() if "device_episodes" in self.__dict__ else None
        return super()._capture_training_state() | {"device_episodes": running}

    def _restore_training_state(self, state: dict[str, Any], resume: Resume) -> None:
        super()._restore_training_state(state, resume)
        if resume is True and state.get("device_episodes") is not None:
            self.device_episodes.set_state(state["device_episodes"])

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        warming_up = self.num_timesteps < learning_starts
        engine = None if warming_up else self._current_engine()
        if engine is None or isinstance(self._last_obs, dict):
            return super()._sample_action(learning_starts, action_noise, n_envs)
        scaled = engine.model.act(self._last_obs).cpu().numpy().copy()
        if not array_is_finite(scaled):
            check_finite("observation", torch.as_tensor(self._last_obs), self.num_timesteps)
            check_finite("action", torch.from_numpy(scaled), self.num_timesteps)
        scaled = scaled.reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
        return self.policy.unscale_action(scaled), scaled

    def _store_transition(
        self,
        replay_buffer: SB3ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if not isinstance(replay_buffer, ReplayBuffer):
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            return
        normalized = self._vec_normalize_env
        if normalized is None:
            self._last_original_obs, raw_obs, raw_reward = self._last_obs, new_obs, reward
        else:
            raw_obs, raw_reward = normalized.get_original_obs(), normalized.get_original_reward()
        if not array_is_finite(raw_reward):
            check_finite("reward", torch.as_tensor(raw_reward), self.num_timesteps)
        successor = raw_obs
        ended = np.flatnonzero(dones)
        if len(ended):
            successor = raw_obs.copy()
            for index in ended:
                final = infos[index].get("terminal_observation")
                if final is not None:
                    successor[index] = final if normalized is None else normalized.unnormalize_obs(final)
        replay_buffer.add(self._last_original_obs, successor, buffer_action, raw_reward, dones, infos)  # type: ignore[arg-type]
        self._last_obs = new_obs
        if normalized is not None:
            self._last_original_obs = raw_obs

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        # Monitor speaks at the end of an episode; our environments build an info when somebody looks at it.
        if dones is None or dones.any():
            super()._update_info_buffer(infos, dones)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Make gradient steps on samples of the replay buffer."""
        engine = self._current_engine()
        if engine is None:
            with _recording(self.actor) as recorded:
                super().train(gradient_steps, batch_size)
            means = {name: float(np.mean(values)) for name, values in recorded.items()}
            logged = self.logger.name_to_value
            checked = {name: logged[f"train/{name}"] for name in ("critic_loss", "actor_loss")}
        else:
            optimizers = [self.actor.optimizer, self.critic.optimizer]
            if self.ent_coef_optimizer is not None:
                optimizers.append(self.ent_coef_optimizer)
            self._update_learning_rate(optimizers)
            checked = means = engine.update(self, gradient_steps, batch_size)
            self._n_updates += gradient_steps
            self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        bad = [name for name, value in checked.items() if not np.isfinite(value)]
        if bad:
            raise NonFiniteError(
                f"{', '.join(bad)} became NaN or Inf in the update after step {self.num_timesteps}; "
                "lower `learning_rate`, or normalise observations and rewards"
            )
        for name, value in means.items():
            self.logger.record(f"train/{name}", value)
        if self.update_to_data is not None:
            self.logger.record("train/update_to_data", self.update_to_data)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "SAC",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` environment steps; as SB3."""
        super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        self._bring_observation_back()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine out of copies: its vectors share memory with this model's policy, not with the copy's."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_engine", "_engine_chosen")}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_engine", "_engine_chosen", "engine_message", "device_episodes"]


@contextmanager
def _recording(actor: Any) -> Iterator[dict[str, list[float]]]:
    """Write down the entropy and deviation of the actor's actions that SB3's update computes and does not log."""
    recorded: dict[str, list[float]] = {}
    compute = actor.action_log_prob

    def recording(observation: Any) -> Any:
        action, log_prob = compute(observation)
        if torch.is_grad_enabled():  # the actions of the states, not of their successors
            recorded.setdefault("entropy", []).append(-log_prob.mean().item())
            if not actor.use_sde:
                std = actor.action_dist.distribution.stddev
                recorded.setdefault("std", []).append(std.mean().item())
        return action, log_prob

    actor.__dict__["action_log_prob"] = recording
    try:
        yield recorded
    finally:
        del actor.__dict__["action_log_prob"]
