"""Choose the settings of self-play: as many trials for every algorithm, on a seed that no result is reported of.

The trials of an algorithm are the product of the weights of its magnet, the same for all, and of what is its own. What
a game's trials share was found beforehand with MaxEntPPO on seeds 0 and 1, which are not reported either.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import read_rows, write_rows

SEED = 100
TIMESTEPS = {"kuhn_poker": 500_000, "leduc_poker": 1_000_000}
Settings = dict[str, Any]

_SHARED: Settings = {"n_steps": 16, "batch_size": 512, "n_epochs": 2, "learning_rate": "linear:1e-3:0", "gamma": 1.0}
SHARED: dict[str, Settings] = {
    "kuhn_poker": _SHARED,
    "leduc_poker": _SHARED | {"gae_lambda": 1.0, "popart": True, "policy_kwargs": {"net_arch": [128, 128]}},
}
MAGNETS: list[Settings] = [
    {},
    *({"magnet": "ema", "magnet_decay": 0.95, "magnet_coef": weight} for weight in (0.3, 0.7)),
]
_FAST, _SLOW = "linear:1e-3:0", "linear:3e-4:0"
_PPO: list[Settings] = [
    {"learning_rate": rate, "gae_lambda": factor} for rate, factor in product((_FAST, _SLOW), (0.95, 1.0))
]


def _bonus(*weights: float) -> list[Settings]:
    return [{"ent_coef": weight} for weight in weights]


def _taus(entropy_gae_lambda: float, *schedules: str) -> list[Settings]:
    fixed = {"entropy_gamma": 1.0, "entropy_gae_lambda": entropy_gae_lambda}
    return [fixed | {"tau": f"linear:{schedule}"} for schedule in schedules]


#: What is an algorithm's own, as many values for each.
OWN: dict[str, dict[str, list[Settings]]] = {
    "kuhn_poker": {
        "PPO": _PPO,
        "PPO, entropy bonus": _bonus(0.02, 0.05, 0.1, 0.2),
        "MaxEntPPO": _taus(0.95, "0.2:0.02", "0.1:0.02", "0.1:0.05", "0.05:0.02"),
    },
    # The last value of each came later: the best weight and temperature were the largest of the others.
    "leduc_poker": {
        "PPO": [*_PPO, {"learning_rate": "linear:2e-3:0", "gae_lambda": 1.0}],
        "PPO, entropy bonus": _bonus(0.02, 0.05, 0.1, 0.2, 0.4),
        "MaxEntPPO": _taus(1.0, "0.5:0.3", "0.3:0.1", "0.2:0.05", "0.1:0.02", "0.8:0.5"),
    },
}
ALGORITHMS = {"PPO": "PPO", "PPO, entropy bonus": "PPO", "MaxEntPPO": "MaxEntPPO"}
#: What no trial varies: a temperature in units of reward, as that of an equilibrium, and one network for both critics.
FIXED: dict[str, Settings] = {
    "MaxEntPPO": {
        "entropy_vf_coef": 1.0,
        "advantage_normalization": "combined",
        "policy_kwargs": {"entropy_net_arch": None},
    }
}


class Trial(NamedTuple):
    """A trial and what came of it.

    Attributes:
        game: of OpenSpiel.
        algorithm: a key of :data:`ALGORITHMS`.
        settings: as JSON, those that its game's trials do not share.
        timesteps: of training.
        exploitability: afterwards.
    """

    game: str
    algorithm: str
    settings: str
    timesteps: int
    exploitability: float


def trials(game: str) -> Iterator[tuple[str, Settings]]:
    """Yield the algorithm and the settings of each trial."""
    for algorithm in ALGORITHMS:
        for magnet, choice in product(MAGNETS, OWN[game][algorithm]):
            yield algorithm, choice | magnet


def train(game: str, algorithm: str, settings: Settings) -> Trial:
    """Run one trial."""
    import torch

    import maxent_onpolicy
    from maxent_onpolicy import make_vec_env
    from maxent_onpolicy.cli.registry import build_hyperparameters
    from maxent_onpolicy.cli.values import merge
    from maxent_onpolicy.games.selfplay import exploitability

    torch.set_num_threads(1)
    arguments = build_hyperparameters(merge(merge(SHARED[game], settings), FIXED.get(algorithm, {})))
    env = make_vec_env(f"openspiel:{game}", 64, SEED)
    cls = getattr(maxent_onpolicy, ALGORITHMS[algorithm])
    model = cls("MaskedMlpPolicy", env, seed=SEED, device="cpu", **arguments)
    model.learn(TIMESTEPS[game])
    found = float(exploitability(model, game).exploitability)
    return Trial(game, algorithm, json.dumps(settings), TIMESTEPS[game], found)


def measure(path: Path, jobs: int) -> None:
    """Run the trials that the file does not hold yet, and add each when it is done."""
    found = read(path) if path.exists() else []
    done = {trial[:3] for trial in found}
    with ProcessPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(train, game, algorithm, settings)
            for game in SHARED
            for algorithm, settings in trials(game)
            if (game, algorithm, json.dumps(settings)) not in done
        ]
        for future in as_completed(futures):
            trial = future.result()
            print(f"{trial.game}, {trial.algorithm}, {trial.settings}: {trial.exploitability:.4f}", flush=True)
            found.append(trial)
            write(path, found)


def best(found: list[Trial], game: str, algorithm: str) -> Trial:
    """Return an algorithm's least exploitable trial."""
    return min((trial for trial in found if trial[:2] == (game, algorithm)), key=lambda trial: trial.exploitability)


def read(path: Path) -> list[Trial]:
    """Return the trials of a CSV file."""
    rows = read_rows(path)
    return [
        Trial(game, algorithm, settings, int(steps), float(value)) for game, algorithm, settings, steps, value in rows
    ]


def write(path: Path, found: list[Trial]) -> None:
    """Replace a CSV file; trials come in the order they are defined in, whatever the order they ended in."""
    order = [(game, algorithm, json.dumps(settings)) for game in SHARED for algorithm, settings in trials(game)]
    ordered = sorted(found, key=lambda trial: order.index(trial[:3]))
    write_rows(
        path, Trial._fields, (trial._replace(exploitability=round(trial.exploitability, 6)) for trial in ordered)
    )
