"""Trainings whose results one process and several ranks must agree on; run as a program by ``test_distributed``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from maxent_onpolicy import PPO, RPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.engine import distributed
from maxent_onpolicy.engine.distributed import disconnect, world
from maxent_onpolicy.envs import VecNormalize

N_ENVS = 4
SMALL: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 48,  # does not divide 4·32: remainder minibatches, and odd shares of them
    "n_epochs": 3,
    "learning_rate": 1e-3,
    "seed": 3,
    "policy_kwargs": {"net_arch": [16]},
}
CONTROLLERS = [
    "ppo_br",
    "target_entropy",
    {"kl_adaptive_lr": {"every": "epoch"}, "entropy_ratio_clip": {"low": 0.98, "high": 1.01}},
]


class Rows(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        kept = {key: value for key, value in key_values.items() if not key.startswith("time/")}
        self.rows.append({key: float(value) for key, value in kept.items()})


def make_env(env_id: str) -> VecEnv:
    ranks = world()
    share = ranks.share(N_ENVS)
    return make_vec_env(env_id, n_envs=share, seed=SMALL["seed"] + ranks.rank * share, backend="gymnasium")


def normalized(env_id: str) -> VecEnv:
    return VecNormalize(make_env(env_id))


class Turns(VecEnvWrapper):
    """Two players who act in turn, whatever the environment makes of it."""

    steps = 0

    @property
    def acting_player(self) -> np.ndarray:
        return np.full(self.num_envs, self.steps % 2)

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        self.steps += 1
        return self.venv.step_wait()


def train(algorithm: Callable[..., PPO], env: VecEnv, steps: int = 512, **kwargs: Any) -> PPO:
    settings = SMALL | kwargs
    model = algorithm("MlpPolicy", env, **settings)
    model.set_logger(Logger(None, [Rows()]))
    return model.learn(steps)


def train_and_resume(engine: str) -> PPO:
    path = Path(sys.argv[1]) / f"{engine}.zip"
    train(PPO, normalized("Pendulum-v1"), 256, engine=engine).save(path)
    if world().size > 1:
        distributed.gather_objects(None)  # until rank 0 has written the file
    model = PPO.load(path, env=normalized("Pendulum-v1"), resume=True)
    model.set_logger(Logger(None, [Rows()]))
    return model.learn(256, reset_num_timesteps=False)


CASES: dict[str, Callable[[str], PPO]] = {
    "PPO, categorical": lambda engine: train(PPO, make_env("CartPole-v1"), engine=engine),
    "PPO, more settings": lambda engine: train(
        PPO, make_env("CartPole-v1"), engine=engine, ent_coef=0.01, clip_range_vf=0.1, normalize_advantage=False
    ),
    "PPO, stopped early": lambda engine: train(
        PPO, make_env("Pendulum-v1"), engine=engine, target_kl=0.0005, learning_rate=3e-3
    ),
    "PPO, normalised environment": lambda engine: train(PPO, normalized("Pendulum-v1"), engine=engine),
    "PPO, saved and resumed": train_and_resume,
    "PPO, small minibatches": lambda engine: train(
        PPO, make_env("CartPole-v1"), 128, engine=engine, batch_size=3, n_epochs=1
    ),
    "PPO, a sample for one rank alone": lambda engine: train(
        PPO, make_env("CartPole-v1"), 256, engine=engine, batch_size=127
    ),
    "MaxEntPPO, PopArt": lambda engine: train(
        MaxEntPPO, normalized("Pendulum-v1"), engine=engine, popart=True, tau=0.1, entropy_centering=True
    ),
    "MaxEntPPO, separate normalisation": lambda engine: train(
        MaxEntPPO, make_env("CartPole-v1"), engine=engine, tau=0.1, advantage_normalization="separate"
    ),
    "MaxEntPPO, automatic temperature": lambda engine: train(
        MaxEntPPO, make_env("Pendulum-v1"), engine=engine, tau="auto", entropy_reward="exact"
    ),
    "PPO, controllers": lambda engine: train(PPO, make_env("CartPole-v1"), engine=engine, controllers=CONTROLLERS),
    "RPO": lambda engine: train(RPO, make_env("Pendulum-v1"), engine=engine),
    # The packed engine does not know these.
    "MaxEntPPO, two players and a magnet": lambda _: train(
        MaxEntPPO, Turns(make_env("CartPole-v1")), engine="eager", tau=0.1, magnet="ema", magnet_decay=0.5
    ),
}


def outcome(model: PPO) -> dict[str, np.ndarray]:
    """What must agree: parameters, temperature, statistics, the log, the minibatches' order and the episodes."""
    values = {f"parameter {name}": value.numpy() for name, value in model.policy.state_dict().items()}
    if hasattr(model, "log_tau"):
        values["log_tau"] = model.log_tau.detach().numpy()
    env = model.get_vec_normalize_env()
    if env is not None:
        values |= {"obs mean": env.obs_rms.mean, "obs var": env.obs_rms.var, "return var": env.ret_rms.var}
        values["count"] = np.array(env.obs_rms.count)
    for format_ in model.logger.output_formats:
        for index, row in enumerate(format_.rows):
            values |= {f"log {index} {key}": np.array(value) for key, value in row.items()}
    episodes = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer]
    values["episodes"] = np.array(episodes).reshape(-1, 2)
    values["timesteps"] = np.array(model.num_timesteps)
    values["generator"] = np.random.random(3)
    values["torch generator"] = torch.rand(3).numpy()
    return values


def run_all(folder: Path) -> None:
    ranks = world()
    for engine in ("eager", "packed"):
        # Whether minibatches are split is of no consequence in a single process.
        for split in (True, False) if ranks.size > 1 else (True,):
            distributed.WORTH_SPLITTING.update(dict.fromkeys(distributed.WORTH_SPLITTING, 0.0 if split else np.inf))
            for name, case in CASES.items():
                way = "" if ranks.size == 1 else ", split" if split else ", whole"
                np.savez(folder / f"{engine}, {name}{way}, rank {ranks.rank}.npz", **outcome(case(engine)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(Path(sys.argv[1]))
    disconnect()
