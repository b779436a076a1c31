"""Small batches of Procgen's games; test modules that import this are skipped where the games cannot be loaded."""

import pytest

from maxent_onpolicy.envs import make_vec_env
from maxent_onpolicy.envs.procgen.library import load_library

try:
    load_library()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

NOOP = 4
EASY = {"distribution_mode": "easy", "num_levels": 10}


def make(game="coinrun", n_envs=3, seed=2, **kwargs):
    return make_vec_env(f"procgen:{game}", n_envs, seed=seed, **{**EASY, **kwargs})
