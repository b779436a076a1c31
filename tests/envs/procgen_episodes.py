"""Episodes of Procgen that are compared across implementations: what is played, and what of it is kept.

Imports nothing of this package: ``scripts/freeze_procgen_episodes.py`` plays them on OpenAI's own interface.
"""

import hashlib
import random

import numpy as np

EVERY = 20  # steps between two digests
INFOS = ("prev_level_seed", "prev_level_complete", "level_seed")
EXTREME = ("chaser", "dodgeball", "leaper", "starpilot")
MEMORY = ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner")
EXPLORATION = ("coinrun", "caveflyer", "leaper", "jumper", "maze", "heist", "climber", "ninja")
GAMES = sorted({*EXTREME, *MEMORY, *EXPLORATION, "bigfish", "bossfight", "fruitbot", "plunder"})


def cases():
    """Every game in each of its modes for a few steps, and some settings and whole episodes for longer."""
    short = {"seed": 11, "n_envs": 3, "steps": 40}
    for game in GAMES:
        modes = ["easy", "hard"]
        modes += [
            mode
            for mode, games in (("extreme", EXTREME), ("memory", MEMORY), ("exploration", EXPLORATION))
            if game in games
        ]
        for mode in modes:
            levels = {} if mode == "exploration" else {"num_levels": 50, "start_level": 7}
            yield {"game": game, "options": {"distribution_mode": mode, **levels}, **short}
    for name in ("use_monochrome_assets", "restrict_themes", "use_generated_assets", "paint_vel_info"):
        yield {"game": "coinrun", "options": {name: True}, **short}
    yield {"game": "caveflyer", "options": {"center_agent": False, "use_backgrounds": False}, **short}
    yield {"game": "coinrun", "options": {"debug_mode": 14}, **short}
    yield {"game": "fruitbot", "options": {}, "seed": 2**31 - 1, "n_envs": 2, "steps": 40}
    easy = {"distribution_mode": "easy"}
    yield {"game": "maze", "options": {"num_levels": 3, **easy}, "seed": 5, "n_envs": 2, "steps": 520}
    sequential = {"use_sequential_levels": True, "num_levels": 1, **easy}
    yield {"game": "maze", "options": sequential, "seed": 3, "n_envs": 8, "steps": 520}
    yield {"game": "starpilot", "options": {}, "seed": 0, "n_envs": 4, "steps": 200}


def actions_of(case):
    """Actions ``[T, B]``; Python's generator gives the same numbers in all versions."""
    rng = random.Random(case["seed"])
    count = case["steps"] * case["n_envs"]
    return np.array([int(15 * rng.random()) for _ in range(count)]).reshape(case["steps"], case["n_envs"])


class Digest:
    """Digests of what was observed, and of the rewards, ends and levels, after every ``EVERY`` steps."""

    def __init__(self):
        self.hashes = {"frames": hashlib.sha256(), "events": hashlib.sha256()}
        self.found = {"frames": [], "events": [], "ends": 0, "reward": 0.0}
        self.steps = 0

    def begin(self, observation):
        self.hashes["frames"].update(np.ascontiguousarray(observation, dtype=np.uint8).tobytes())

    def add(self, observation, reward, first, infos):
        """Take in one step; ``infos`` is one dict per environment."""
        self.begin(observation)
        self.hashes["events"].update(np.asarray(reward, dtype=np.float32).tobytes())
        self.hashes["events"].update(np.asarray(first, dtype=np.uint8).tobytes())
        numbers = [[int(info[name]) for name in INFOS] for info in infos]
        self.hashes["events"].update(np.array(numbers, dtype=np.int32).tobytes())
        self.found["ends"] += int(np.sum(first))
        self.found["reward"] = round(self.found["reward"] + float(np.sum(reward, dtype=np.float64)), 6)
        self.steps += 1
        if self.steps % EVERY == 0:
            for name, each in self.hashes.items():
                self.found[name].append(each.hexdigest()[:16])
