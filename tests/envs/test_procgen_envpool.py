"""The same levels as EnvPool's Procgen plays, recorded by scripts/freeze_procgen_envpool.py.

It draws with another library, so pixels are alike and not equal; what happens is the same.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from maxent_onpolicy import make_vec_env
from maxent_onpolicy.envs.procgen.games import GAMES
from maxent_onpolicy.envs.procgen.library import load_library
from tests.envs import procgen_levels
from tests.envs.procgen_levels import Trace, actions_of

try:
    load_library()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

CASES = json.loads((Path(__file__).parent / "procgen_envpool.json").read_text(encoding="utf-8"))["cases"]
# Of 255. First pictures of two levels differ by 8 to 90 in most games.
LARGEST_DIFFERENCE = 7.0


def play(case):
    env = make_vec_env(
        f"procgen:{case['game']}",
        1,
        seed=0,
        num_levels=1,
        start_level=case["start_level"],
        distribution_mode=case["distribution_mode"],
        timeouts="termination",
    )
    trace = Trace()
    trace.see(env.reset()[0])
    for action in actions_of(case):
        observation, reward, done, _ = env.step(action.reshape(1))
        if trace.step(float(reward[0]), bool(done[0])):
            break
        trace.see(observation[0])
    env.close()
    return json.loads(json.dumps(trace.found()))


def test_every_game_is_compared():
    assert procgen_levels.GAMES == GAMES
    assert {case["game"] for case in CASES} == set(GAMES)
    assert sum(case["expected"]["end"] is not None for case in CASES) > len(CASES) / 2
    assert sum(bool(case["expected"]["rewards"]) for case in CASES) > len(CASES) / 4


@pytest.mark.parametrize("game", GAMES)
def test_rewards_and_ends_are_envpools_and_pictures_alike(game):
    for case in (each for each in CASES if each["game"] == game):
        found, expected = play(case), case["expected"]
        name = f"{case['distribution_mode']}, level {case['start_level']}"
        assert found["end"] == expected["end"], name
        assert found["rewards"] == expected["rewards"], name
        difference = np.abs(np.array(found["pictures"]) - np.array(expected["pictures"])).mean()
        assert difference < LARGEST_DIFFERENCE, name
