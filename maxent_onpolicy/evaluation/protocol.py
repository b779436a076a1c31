"""The evaluation protocol: how good a policy is, measured without touching its training.

A policy is judged in environments of its own with seeds of their own, on a
fixed number of episodes, acting both deterministically and stochastically, in
the environment's raw reward, with the training's normalisation statistics
copied and frozen. Training continues as if nothing had happened.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from maxent_onpolicy.evaluation.modes import MODES, family
from maxent_onpolicy.evaluation.runs import CsvLog
from maxent_onpolicy.validation import check_choice, check_range


class Episodes(NamedTuple):
    """What ``N`` episodes came to.

    Attributes:
        returns: ``[N]`` float64; the undiscounted sum of the environment's raw reward.
        lengths: ``[N]`` int64; steps.
    """

    returns: np.ndarray
    lengths: np.ndarray


def evaluate_policy(
    model: BaseAlgorithm, env: VecEnv, episodes: int, seed: int, modes: Sequence[str] = MODES
) -> dict[str, Episodes]:
    """Play ``episodes`` episodes in each mode.

    Every environment plays a fixed share of the episodes. Counting whichever
    episodes end first would favour short ones. The result depends on the
    policy, the normalisation statistics and ``seed`` only; the random state of
    the process, the policy's train/eval mode and its exploration noise are as
    before afterwards.

    Args:
        model: any SB3 algorithm.
        env: environments used for nothing else; they are seeded and reset. Normalisation wrappers among them are
            frozen and leave the reward as it is while this runs.
        episodes: how many, in each mode. Environments of a game that can be measured exactly (``exact_score``) play
            none; the one return is then the policy's against best responses, minus its exploitability.
        seed: of the environments and of the sampled actions; the same in every mode.
        modes: ``"deterministic"`` (the distribution's mode) or ``"stochastic"`` (sampled actions).

    Returns:
        For each mode, the episodes in a fixed order.

    Raises:
        ValueError: if an argument is out of range, or a return is NaN or Inf.
    """
    check_range("episodes", episodes, 1)
    check_range("seed", seed, 0, 2**32 - 1)
    for mode in modes:
        check_choice("modes", mode, MODES)
    results = {}
    for mode in modes:
        with _undisturbed(model), frozen_normalization(env):
            _seed_everything(seed)
            _fresh_exploration_noise(model, env.num_envs)
            results[mode] = _measure(model, env, mode) or _play(model, env, int(episodes), int(seed), mode)
    return results


def _measure(model: BaseAlgorithm, env: VecEnv, mode: str) -> Episodes | None:
    """Return the exact score of a policy as one episode without steps, where environments know it."""
    exact_score = getattr(env, "exact_score", None)
    if exact_score is None:
        return None
    if any(isinstance(wrapper, VecNormalize) and wrapper.norm_obs for wrapper in _wrappers(env)):
        raise ValueError(
            "`normalize_observation`: a policy of a game is measured on observations as the game gives them"
        )
    return Episodes(np.array([exact_score(model, mode == "deterministic")]), np.zeros(1, dtype=np.int64))


def _play(model: BaseAlgorithm, env: VecEnv, episodes: int, seed: int, mode: str) -> Episodes:
    quota = np.array([(episodes + index) // env.num_envs for index in range(env.num_envs)])
    monitored = env.env_is_wrapped(Monitor)
    finished: list[list[tuple[float, int]]] = [[] for _ in range(env.num_envs)]
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
    env.seed(seed)
    observation: Any = env.reset()
    start, state = np.ones(env.num_envs, dtype=bool), None
    while any(len(done) < share for done, share in zip(finished, quota, strict=True)):
        action, state = model.predict(
            observation, state=state, episode_start=start, deterministic=mode == "deterministic"
        )
        observation, reward, start, infos = env.step(action)
        returns += reward
        lengths += 1
        for index in np.flatnonzero(start):
            # a Monitor below other wrappers knows the raw reward, and that a lost life is no lost game
            if (episode := infos[index].get("episode")) is not None:
                result = (float(episode["r"]), int(episode["l"]))
            elif monitored[index]:
                continue
            else:
                result = (float(returns[index]), int(lengths[index]))
            if not np.isfinite(result[0]):
                raise ValueError(f"evaluation environment {index} ended an episode with the return {result[0]}")
            if len(finished[index]) < quota[index]:
                finished[index].append(result)
            returns[index], lengths[index] = 0.0, 0
    flat = [episode for done in finished for episode in done]
    return Episodes(np.array([value for value, _ in flat]), np.array([length for _, length in flat], dtype=np.int64))


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random state of torch (CPU and CUDA), numpy and Python on leaving the block."""
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (SB3 and old environments draw from it)
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def frozen_normalization(env: VecEnv) -> Iterator[None]:
    """Stop every ``VecNormalize`` around ``env`` from learning and from scaling the reward, within the block."""
    wrappers = [wrapper for wrapper in _wrappers(env) if isinstance(wrapper, VecNormalize)]
    before = [(wrapper.training, wrapper.norm_reward) for wrapper in wrappers]
    for wrapper in wrappers:
        wrapper.training, wrapper.norm_reward = False, False
    try:
        yield
    finally:
        for wrapper, (training, norm_reward) in zip(wrappers, before, strict=True):
            wrapper.training, wrapper.norm_reward = training, norm_reward


def copy_normalization(source: VecEnv, target: VecEnv) -> None:
    """Copy the statistics of the ``VecNormalize`` around ``source`` to the one around ``target``.

    Other wrappers may differ: SB3 puts one that transposes images around the environments a model is trained in, but
    none around these.

    Raises:
        ValueError: if one of them normalises and the other does not.
    """
    ours, theirs = ([each for each in _wrappers(env) if isinstance(each, VecNormalize)] for env in (source, target))
    if len(ours) != len(theirs):
        raise ValueError(
            f"the training has {len(ours)} VecNormalize, the evaluation has {len(theirs)}; wrap both alike"
        )
    for here, there in zip(ours, theirs, strict=True):
        if hasattr(here, "obs_rms"):
            there.obs_rms = deepcopy(here.obs_rms)
        there.ret_rms = deepcopy(here.ret_rms)


_NOISE = ("exploration_mat", "exploration_matrices", "weights_dist")


@contextmanager
def _undisturbed(model: BaseAlgorithm) -> Iterator[None]:
    policy = model.policy
    training = policy.training
    distribution = getattr(_actor(policy), "action_dist", None)
    noise = {name: getattr(distribution, name) for name in _NOISE if hasattr(distribution, name)}
    with ExitStack() as stack:
        stack.enter_context(preserved_random_state())
        stack.callback(policy.set_training_mode, training)
        for name, value in noise.items():
            stack.callback(setattr, distribution, name, value)
        yield


def _actor(policy: Any) -> Any:
    """Return what holds the action distribution: an off-policy algorithm's actor is a network of its own."""
    return getattr(policy, "actor", policy)


def _fresh_exploration_noise(model: BaseAlgorithm, n_envs: int) -> None:
    """With state-dependent exploration, stochastic actions need noise drawn for these environments."""
    if getattr(model, "use_sde", False):
        _actor(model.policy).reset_noise(n_envs)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def _wrappers(env: VecEnv) -> Iterator[VecEnvWrapper]:
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv


def evaluation_seed(split: str, *entropy: int) -> int:
    """Return the seed of one evaluation: that of the test split is another than that of the training split.

    Args:
        split: ``"train"`` or ``"test"``.
        entropy: what tells evaluations apart, such as the run's seed and the timesteps.
    """
    return int(np.random.SeedSequence([*entropy, *([1] if split == "test" else [])]).generate_state(1)[0])


class EvaluationCallback(BaseCallback):
    """Evaluates at fixed timesteps and logs a row an episode: before training, at multiples of ``every``, at the end.

    Every evaluation has seeds of its own, derived from ``seed`` and the timesteps: the same for every algorithm with
    the same ``seed``, and the same again when a killed run repeats it. With ``test_env`` every checkpoint is evaluated
    in both, rows have a column ``split`` that says where, and results are called ``"stochastic, train"`` and
    ``"stochastic, test"`` instead of ``"stochastic"``.

    Args:
        env: evaluation environments, wrapped as the training's are.
        log: receives rows of ``timesteps, mode, episode, return, length``.
        every: timesteps between evaluations.
        episodes: episodes in each mode.
        seed: of the evaluations, unrelated to the training's.
        modes: which modes, see :func:`evaluate_policy`.
        test_env: environments of the test distribution, wrapped alike.
        on_result: called with the timesteps and the results by name after each evaluation.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        env: VecEnv,
        log: CsvLog,
        *,
        every: int,
        episodes: int,
        seed: int,
        modes: Sequence[str] = MODES,
        test_env: VecEnv | None = None,
        on_result: Callable[[int, dict[str, Episodes]], None] | None = None,
    ) -> None:
        super().__init__()
        self.envs = {"train": env} | ({} if test_env is None else {"test": test_env})
        self.log = log
        self.every = int(check_range("every", every, 1))
        self.episodes = int(check_range("episodes", episodes, 1))
        self.seed = int(check_range("seed", seed, 0))
        self.modes = tuple(check_choice("modes", mode, MODES) for mode in modes)
        self.on_result = on_result
        self._next = 0

    @property
    def every_step(self) -> bool:
        """Whether an evaluation may fall into the coming rollout; otherwise its steps are of no interest."""
        model: Any = self.model
        if type(self)._on_step is not EvaluationCallback._on_step or not hasattr(model, "n_steps"):
            return True
        return bool(self._next <= model.num_timesteps + model.n_steps * getattr(model, "total_envs", model.n_envs))

    def _on_training_start(self) -> None:
        if self.num_timesteps == 0:
            self._evaluate()
        self._next = (self.num_timesteps // self.every + 1) * self.every

    def _on_step(self) -> bool:
        # the evaluation due at the end waits for the last update
        if self._next <= self.num_timesteps < self.locals["total_timesteps"]:
            self._evaluate()
            self._next = (self.num_timesteps // self.every + 1) * self.every
        return True

    def _on_training_end(self) -> None:
        self._evaluate()

    def _evaluate(self) -> None:
        found = {}
        for split, env in self.envs.items():
            copy_normalization(self.training_env, env)
            seed = evaluation_seed(split, self.seed, self.num_timesteps)
            found[split] = evaluate_policy(self.model, env, self.episodes, seed, self.modes)
        results = log_evaluation(self.log, self.num_timesteps, found)
        if self.on_result is not None:
            self.on_result(self.num_timesteps, results)


def log_evaluation(log: CsvLog, timesteps: int, found: Mapping[str, Mapping[str, Episodes]]) -> dict[str, Episodes]:
    """Append a row an episode: of all splits at once, so that a kill leaves a checkpoint with all or with none.

    Args:
        log: receives rows of ``timesteps, mode, episode, return, length``, and ``split`` where there are several.
        timesteps: of the training so far.
        found: by split, by mode, the episodes.

    Returns:
        The episodes by the name of mode and split.
    """
    several = len(found) > 1
    log.append(
        {
            "timesteps": timesteps,
            "mode": mode,
            "episode": index,
            "return": round(float(value), 6),
            "length": int(length),
            **({"split": split} if several else {}),
        }
        for split, modes in found.items()
        for mode, episodes in modes.items()
        for index, (value, length) in enumerate(zip(episodes.returns, episodes.lengths, strict=True))
    )
    return {
        family(mode, split) if several else mode: episodes
        for split, modes in found.items()
        for mode, episodes in modes.items()
    }


# by the first two columns; and SB3 counts iterations and time anew when a run is resumed
_TOLD_OTHERWISE = ("time/total_timesteps", "time/iterations", "time/time_elapsed")


class CsvFormat(KVWriter):
    """Writes what SB3's logger collects as rows of ``train.csv``.

    Args:
        log: receives ``timesteps``, ``wall_seconds`` and every number logged.
        clock: returns the seconds this run has taken, over all its attempts.
        every: timesteps; of the rows between two multiples of it only the first is kept, so that the file of a long
            run with short rollouts stays small. Which rows these are does not depend on kills.
    """

    def __init__(self, log: CsvLog, clock: Callable[[], float], every: int = 1) -> None:
        self.log = log
        self.clock = clock
        self.every = max(every, 1)
        last = log.last("timesteps")
        self._interval = -1 if last is None else int(last) // self.every

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one row; what is no number is left out."""
        if step // self.every == self._interval and self.every > 1:
            return
        self._interval = step // self.every
        row: dict[str, Any] = {"timesteps": step, "wall_seconds": round(self.clock(), 3)}
        for key, value in sorted(key_values.items()):
            if key in _TOLD_OTHERWISE:
                continue
            if isinstance(value, int | float | np.number) or (isinstance(value, torch.Tensor) and value.numel() == 1):
                number = float(value)
                row[key] = int(number) if number.is_integer() and abs(number) < 1e15 else f"{number:.5g}"
        self.log.append([row])

    def close(self) -> None:
        """Nothing to close: every row is handed over as it comes."""
