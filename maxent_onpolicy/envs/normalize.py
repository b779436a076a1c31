"""Running normalisation of observations and rewards, where the data are: in numpy or on the device."""

import json
import pickle
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env import VecNormalize as NumpyVecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import Tensor

from maxent_onpolicy.envs.shared_statistics import learn_together, reset_together, step_together
from maxent_onpolicy.envs.tensor import Observation, TensorStep, from_numpy_step, step_tensor
from maxent_onpolicy.estimators.normalisation import RunningMoments, running_moments_update
from maxent_onpolicy.validation import check_choice, check_range

_FORMAT = "maxent_onpolicy.VecNormalize"
_VERSION = 1
_SETTINGS = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon")
_PICKLE_START = b"\x80"


class TensorRunningMeanStd(RunningMeanStd):
    """SB3's running mean and variance, kept in float64 tensors on one device.

    ``mean``, ``var`` and ``count`` read and write numpy values, as in SB3.

    Args:
        epsilon: weight of the start values (0, 1).
        shape: of one sample.
        device: where the statistics live.
    """

    def __init__(self, epsilon: float = 1e-4, shape: tuple[int, ...] = (), device: torch.device | str = "cpu") -> None:
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.moments = RunningMoments(
            torch.zeros(shape, **options), torch.ones(shape, **options), torch.tensor(epsilon, **options)
        )

    @property
    def mean(self) -> np.ndarray:
        """Mean of all samples, of the shape of one."""
        return self.moments.mean.cpu().numpy()

    @mean.setter
    def mean(self, value: np.ndarray) -> None:
        self._replace(mean=value)

    @property
    def var(self) -> np.ndarray:
        """Population variance of all samples, of the shape of one."""
        return self.moments.var.cpu().numpy()

    @var.setter
    def var(self, value: np.ndarray) -> None:
        self._replace(var=value)

    @property
    def count(self) -> float:
        """Weight of all samples."""
        return self.moments.count.item()

    @count.setter
    def count(self, value: float) -> None:
        self._replace(count=value)

    def _replace(self, **values: Any) -> None:
        old = self.moments
        fields = {"mean": old.mean, "var": old.var, "count": old.count}
        for name, value in values.items():
            fields[name] = torch.tensor(value, dtype=torch.float64, device=old.mean.device)
        self.moments = RunningMoments(**fields)

    def copy(self) -> "TensorRunningMeanStd":
        """Return an independent copy on the same device."""
        other = TensorRunningMeanStd(shape=self.moments.mean.shape, device=self.moments.mean.device)
        other.moments = RunningMoments(self.moments.mean.clone(), self.moments.var.clone(), self.moments.count.clone())
        return other

    def update(self, arr: np.ndarray | Tensor) -> None:
        """Merge samples ``[N, ...]``."""
        self.moments = running_moments_update(self.moments, torch.as_tensor(arr, device=self.moments.mean.device))

    def std(self, epsilon: float) -> Tensor:
        """Return the standard deviation; ``epsilon`` is added to the variance."""
        return torch.sqrt(self.moments.var + epsilon)


class VecNormalize(NumpyVecNormalize):
    """SB3's ``VecNormalize`` that also stays on the device, and saves to files without pickle.

    Takes SB3's place: callbacks, ``sync_envs_normalization`` and ``model.get_vec_normalize_env()`` work.
    Around numpy environments on the CPU it *is* SB3's, bit for bit. Around tensor environments, or on another
    device, statistics are float64 tensors there and :meth:`step_tensor` never leaves it; the numbers agree to
    rounding (SB3 takes a batch's moments in the precision of the observations, tensors in float64).

    Observations become ``clip((x − mean)/sqrt(var + ε))``; rewards are divided by the running standard deviation of
    the discounted return since the last reset, and clipped.

    Args:
        venv: environments to wrap.
        training: whether the statistics change.
        norm_obs: whether observations are normalised.
        norm_reward: whether rewards are normalised.
        clip_obs: largest absolute value of a normalised observation.
        clip_reward: largest absolute value of a normalised reward.
        gamma: discount of the return whose deviation scales rewards.
        epsilon: added to variances.
        norm_obs_keys: for ``Dict`` observations, the keys to normalise; ``None`` means all.
        device: where the statistics live. ``"auto"`` is the CPU for numpy environments, for which that is faster,
            and the environments' own device for tensor environments.

    Raises:
        ValueError: if an observation to be normalised is no ``Box``, or a number is out of range.
    """

    # SB3 declares these as numpy; here they may hold tensors.
    obs_rms: Any
    ret_rms: Any
    old_obs: Any
    old_reward: Any
    # Set while several processes train together: returns the rows of all of them for those of this one.
    gather_rows: Callable[[Any], Any] | None = None

    def __init__(
        self,
        venv: VecEnv,
        training: bool = True,
        norm_obs: bool = True,
        norm_reward: bool = True,
        clip_obs: float = 10.0,
        clip_reward: float = 10.0,
        gamma: float = 0.99,
        epsilon: float = 1e-8,
        norm_obs_keys: list[str] | None = None,
        device: torch.device | str = "auto",
    ) -> None:
        for name, clip in (("clip_obs", clip_obs), ("clip_reward", clip_reward)):
            if clip != float("inf"):
                check_range(name, clip, 0, low_open=True)
        check_range("gamma", gamma, 0, 1)
        check_range("epsilon", epsilon, 0)
        if norm_obs_keys is not None and isinstance(venv.observation_space, spaces.Dict):
            for key in norm_obs_keys:
                check_choice("norm_obs_keys", key, list(venv.observation_space.spaces))
        tensor_venv = hasattr(type(venv), "step_tensor")
        if device == "auto":
            device = getattr(venv, "device", "auto") if tensor_venv else "cpu"
        self._device = get_device(device)
        self._on_tensors = tensor_venv or self._device.type != "cpu"
        if self._device.type == "mps":
            raise ValueError("`device`: the statistics are in float64, which 'mps' does not have; use 'cpu'")
        super().__init__(venv, training, norm_obs, norm_reward, clip_obs, clip_reward, gamma, epsilon, norm_obs_keys)

    def __setattr__(self, name: str, value: Any) -> None:
        # SB3's __init__ and sync_envs_normalization assign statistics that may be numpy's or on another device.
        if name in ("obs_rms", "ret_rms"):
            value = self._adopt(value)
        super().__setattr__(name, value)

    def _adopt(self, moments: Any) -> Any:
        if isinstance(moments, dict):
            return {key: self._adopt(value) for key, value in moments.items()}
        fits = (
            isinstance(moments, TensorRunningMeanStd) and moments.moments.mean.device == self._device
            if self._on_tensors
            else not isinstance(moments, TensorRunningMeanStd)
        )
        if fits:
            return moments  # the very object: two environments may share their statistics
        shape = np.shape(moments.mean)
        own = (
            TensorRunningMeanStd(shape=shape, device=self._device) if self._on_tensors else RunningMeanStd(shape=shape)
        )
        own.mean, own.var, own.count = np.copy(moments.mean), np.copy(moments.var), moments.count
        return own

    @property
    def returns(self) -> np.ndarray:
        """Discounted return of each environment since its last reset, ``[B]``."""
        return _to_numpy(self._returns)

    @returns.setter
    def returns(self, value: np.ndarray) -> None:
        self._returns: Any = value
        if self._on_tensors:
            self._returns = torch.as_tensor(value, dtype=torch.float64, device=self._device)

    @property
    def works_in_numpy(self) -> bool:
        """Whether the statistics are numpy's, so that ``step`` is shorter than ``step_tensor``."""
        return not self._on_tensors

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step with ``actions`` ``[B, ...]`` and return normalised tensors on the device.

        The final observations of truncated episodes are normalised too.
        """
        if not self._on_tensors:
            return from_numpy_step(*self.step(actions.cpu().numpy()), device=self._device)
        step = step_tensor(self.venv, actions, self._device)
        self.old_obs, self.old_reward = step.observation, step.reward
        reward = self._learn(step.observation, step.reward, step.terminated | step.truncated)
        if step.final_index is not None:  # the infos of the dense form hold no observations
            for info in step.infos:
                if "terminal_observation" in info:
                    info["terminal_observation"] = self.normalize_obs(info["terminal_observation"])
        return step._replace(
            observation=self._normalize(step.observation),
            reward=reward,
            final_observation=None if step.final_observation is None else self._normalize(step.final_observation),
        )

    def reset(self) -> np.ndarray | dict[str, np.ndarray]:
        """Reset all environments; return their normalised observations."""
        return super().reset() if self.gather_rows is None else reset_together(self)

    def step_wait(self) -> VecEnvStepReturn:
        """Return what the environments did, normalised, as numpy arrays."""
        if self.gather_rows is not None:
            return step_together(self)
        result = super().step_wait()
        if self._on_tensors:
            # SB3 writes zeros into `returns`, which is a copy if the statistics are elsewhere.
            self._returns = self._returns.masked_fill(torch.as_tensor(result[2], device=self._device), 0.0)
        return result

    def get_original_obs(self) -> np.ndarray | dict[str, np.ndarray]:
        """Return the observations of the last step or reset as they were before normalisation."""
        return _to_numpy(self.old_obs, copy=True)

    def get_original_reward(self) -> np.ndarray:
        """Return the rewards of the last step as they were before normalisation, ``[B]``."""
        return _to_numpy(self.old_reward, copy=True)

    def _learn(self, observation: Observation, reward: Tensor, done: Tensor) -> Tensor:
        """Update the statistics with one raw step, and return the normalised reward ``[B]``."""
        if self.training:
            self._returns = self._returns * self.gamma + reward
            if self.gather_rows is not None:
                learn_together(self, observation, self._returns)
            else:
                for key, moments in self._obs_moments().items():
                    moments.update(observation[key] if isinstance(observation, dict) else observation)
                self.ret_rms.update(self._returns)
        self._returns = self._returns.masked_fill(done, 0.0)
        if self.norm_reward:
            reward = torch.clamp(reward.double() / self.ret_rms.std(self.epsilon), -self.clip_reward, self.clip_reward)
        return reward.to(torch.float32)

    def _normalize(self, observation: Observation) -> Observation:
        if not self.norm_obs:
            return observation
        if not isinstance(observation, dict):
            return self._normalize_one(observation, self.obs_rms)
        moments = self._obs_moments()
        return {
            key: self._normalize_one(value, moments[key]) if key in moments else value
            for key, value in observation.items()
        }

    def _normalize_one(self, value: Tensor, moments: TensorRunningMeanStd) -> Tensor:
        centred = (value.double() - moments.moments.mean) / moments.std(self.epsilon)
        return torch.clamp(centred, -self.clip_obs, self.clip_obs).to(torch.float32)

    def _obs_moments(self) -> dict[Any, Any]:
        if not self.norm_obs:
            return {}
        return self.obs_rms if isinstance(self.obs_rms, dict) else {None: self.obs_rms}

    def _all_moments(self) -> dict[str, RunningMeanStd]:
        """Return the statistics by the names that they have in files."""
        named = {"obs" if key is None else f"obs/{key}": moments for key, moments in self._obs_moments().items()}
        return {**named, "return": self.ret_rms}

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.__dict__.items()
            # Neither the environments nor what depends on them, as in SB3.
            if name not in ("venv", "class_attributes", "_returns")
        }

    def save(self, save_path: str | PathLike[str]) -> None:
        """Write statistics and settings to exactly this path, as an ``.npz`` file without pickle."""
        values = {name: getattr(self, name) for name in _SETTINGS}
        settings = {name: value if isinstance(value, bool) else float(value) for name, value in values.items()}
        meta = {"format": _FORMAT, "version": _VERSION, "norm_obs_keys": self.norm_obs_keys, **settings}
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta))}
        for name, moments in self._all_moments().items():
            arrays |= {f"{name}/mean": moments.mean, f"{name}/var": moments.var, f"{name}/count": moments.count}
        with open(save_path, "wb") as file:  # numpy appends .npz to names, not to files
            np.savez(file, **arrays)

    @staticmethod
    def load(load_path: str | PathLike[str], venv: VecEnv, device: torch.device | str = "auto") -> "VecNormalize":
        """Wrap ``venv`` with the statistics and settings that :meth:`save` wrote.

        Raises:
            ValueError: if the file is something else or damaged, or ``venv`` has other observations.
        """
        arrays = _read(Path(load_path))
        meta = json.loads(str(arrays["meta"]))
        result = VecNormalize(
            venv, **{name: meta[name] for name in _SETTINGS}, norm_obs_keys=meta["norm_obs_keys"], device=device
        )
        for name, moments in result._all_moments().items():
            _fill(moments, name, [arrays.get(f"{name}/{part}") for part in ("mean", "var", "count")], load_path)
        return result

    @staticmethod
    def from_sb3_pickle(
        path: str | PathLike[str], venv: VecEnv, trust: bool = False, device: torch.device | str = "auto"
    ) -> "VecNormalize":
        """Wrap ``venv`` with the statistics and settings that SB3's ``VecNormalize`` saved.

        Args:
            path: the pickle file.
            venv: environments to wrap.
            trust: must be ``True``: reading a pickle runs whatever code its author put there.
            device: where the statistics live.

        Raises:
            ValueError: without ``trust=True``, if the file is something else, or ``venv`` has other observations.
        """
        if trust is not True:
            raise ValueError("a pickle can run any code: pass `trust=True` if you made this file yourself")
        with open(path, "rb") as file:
            saved = pickle.load(file)
        if not isinstance(saved, NumpyVecNormalize):
            raise ValueError(f"{str(path)!r} holds a {type(saved).__name__}, not SB3's VecNormalize")
        keys = saved.norm_obs_keys if saved.norm_obs else None
        settings = {name: getattr(saved, name) for name in _SETTINGS}
        result = VecNormalize(venv, **settings, norm_obs_keys=keys, device=device)
        for name, moments in result._all_moments().items():
            found = saved.ret_rms if name == "return" else saved.obs_rms
            if isinstance(found, dict):
                found = found[name.removeprefix("obs/")]
            _fill(moments, name, [found.mean, found.var, found.count], path)
        return result


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file that :meth:`VecNormalize.save` wrote."""
    with open(path, "rb") as file:
        if file.read(1) == _PICKLE_START:
            raise ValueError(
                f"{str(path)!r} is a pickle, as SB3's VecNormalize saves; if you trust its author, use "
                "`VecNormalize.from_sb3_pickle(path, venv, trust=True)`"
            )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] != _FORMAT:
            raise ValueError(f"its format is {meta['format']!r}")
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is not a file of VecNormalize, or is damaged: {error}") from error
    if meta["version"] > _VERSION:
        raise ValueError(f"{str(path)!r} has version {meta['version']}; this package reads up to {_VERSION}")
    return arrays


def _fill(moments: RunningMeanStd, name: str, values: list[Any], path: str | PathLike[str]) -> None:
    mean, var, count = values
    if any(value is None for value in values):
        raise ValueError(f"{str(path)!r} has no complete statistics for {name!r}")
    shape = np.shape(mean)
    if shape != np.shape(moments.mean):
        raise ValueError(
            f"{str(path)!r} has statistics of shape {shape} for {name!r}, but these environments need "
            f"{np.shape(moments.mean)}"
        )
    moments.mean, moments.var, moments.count = mean, var, float(count)


def _to_numpy(value: Any, copy: bool = False) -> Any:
    if isinstance(value, dict):
        return {key: _to_numpy(item, copy) for key, item in value.items()}
    array = value.cpu().numpy() if isinstance(value, Tensor) else value
    return array.copy() if copy else array
