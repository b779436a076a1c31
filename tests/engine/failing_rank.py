"""A training in which rank 1 ends in the middle; run as a program by ``test_distributed``."""

import os
import sys

from stable_baselines3.common.callbacks import BaseCallback

from maxent_onpolicy import PPO, make_vec_env
from maxent_onpolicy.engine.distributed import world
from maxent_onpolicy.envs import VecNormalize


class Ends(BaseCallback):
    """Ends the process of rank 1 in its second rollout.

    Args:
        way: ``"raise"`` or ``"exit"``.
    """

    every_rank = True

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def _on_step(self) -> bool:
        if world().rank == 1 and self.n_calls == 20:
            if self.way == "exit":
                os._exit(7)
            raise ValueError("no more oil")
        return True


if __name__ == "__main__":
    if sys.argv[1] == "differ":
        PPO("MlpPolicy", make_vec_env("CartPole-v1"), n_steps=16 << world().rank, batch_size=16).learn(64)
    env = make_vec_env("CartPole-v1")
    if sys.argv[2] == "in every step":
        env = VecNormalize(env)
    PPO("MlpPolicy", env, n_steps=16, batch_size=16, seed=0).learn(128, Ends(sys.argv[1]))
