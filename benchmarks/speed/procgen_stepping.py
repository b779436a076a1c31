"""Measure how fast Procgen steps: the C library alone, our VecEnv, OpenAI's gym3 interface, EnvPool.

All play one game with random actions and hand over observations, rewards, ends and infos. The library alone leaves
them in its memory, and so do gym3 and ours with `copy_observations=False`. They take turns, round after round, each in
a process of its own and every time in another order; the table shows medians in environment steps a second, and of the
ratios within a round. gym3 and EnvPool live in environments of their own, of which the interpreter is
given; without one they are left out:

    python3.11 -m venv gym3-env && gym3-env/bin/pip install procgen-mirror==0.10.7
    python3.12 -m venv envpool-env && envpool-env/bin/pip install envpool==1.2.7
    python -m benchmarks.speed.procgen_stepping --gym3-python gym3-env/bin/python \
        --envpool-python envpool-env/bin/python --output results/speed_procgen/stepping.json

Beside the JSON a table is written, as Markdown.

Run it on a machine that does nothing else; "load" says what else ran.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Step = Callable[[Any], Any]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.procgen_stepping",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--game", default="coinrun", help="coinrun")
    add("--n-envs", nargs="+", type=int, metavar="N", default=[1, 8, 64], help="1 8 64")
    add("--threads", type=int, default=2, help="that step, where there is more than one environment (2)")
    add("--seconds", type=float, default=0.25, help="length of one window (0.25)")
    add("--rounds", type=int, default=60, help="windows of each contender (60)")
    add("--gym3-python", metavar="PATH", help="interpreter of an environment with procgen-mirror and gym3")
    add("--envpool-python", metavar="PATH", help="interpreter of an environment with EnvPool")
    add("--output", type=Path, help="write the results here, as JSON")
    add("--serve", choices=tuple(MAKERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0 or min(options.n_envs) < 1 or options.threads < 0:
        parser.error("--rounds, --seconds and --n-envs must be positive")
    return options


def make_library(game: str, n_envs: int, threads: int) -> Step:
    from maxent_onpolicy.envs.procgen.batch import GameBatch
    from maxent_onpolicy.envs.procgen.games import make_options

    games = GameBatch(n_envs, make_options(game, _EASY).for_library(0, threads, False))

    def step(actions: Any) -> None:
        games.act(actions)
        games.observe()

    return step


def make_ours(game: str, n_envs: int, threads: int, **options: Any) -> Step:
    from maxent_onpolicy import make_vec_env

    vec_env = make_vec_env(f"procgen:{game}", n_envs, seed=0, num_threads=threads, **_EASY, **options)
    vec_env.reset()
    return vec_env.step


def make_gym3(game: str, n_envs: int, threads: int) -> Step:
    from procgen import ProcgenGym3Env

    env = ProcgenGym3Env(num=n_envs, env_name=game, rand_seed=0, num_threads=threads, **_EASY)

    def step(actions: Any) -> Any:
        env.act(actions)
        return env.observe(), env.get_info()

    return step


def make_envpool(game: str, n_envs: int, threads: int) -> Step:
    import envpool

    # Its 0 means a number of its own.
    env = envpool.make_gym(
        f"{game.capitalize()}Easy-v0", num_envs=n_envs, seed=0, num_threads=max(threads, 1), num_levels=200
    )
    env.reset()

    def step(actions: Any) -> Any:
        return env.step(actions.astype("int32"))

    return step


_EASY: dict[str, Any] = {"distribution_mode": "easy", "num_levels": 200}
MAKERS: dict[str, Callable[[str, int, int], Step]] = {
    "library": make_library,
    "ours": make_ours,
    "uncopied": partial(make_ours, copy_observations=False),
    "gym3": make_gym3,
    "envpool": make_envpool,
}
LABELS = {
    "library": "C library alone",
    "ours": "ours",
    "uncopied": "ours, uncopied",
    "gym3": "gym3 interface",
    "envpool": "EnvPool",
}
OURS, OTHERS = ("ours", "uncopied"), ("gym3", "envpool")
_IN_THIS_INTERPRETER = ("library", *OURS)
_PACKAGES = {
    "library": ("procgen-mirror", "procgen-gym", "numpy"),
    **dict.fromkeys(OURS, ("procgen-mirror", "procgen-gym", "stable-baselines3", "numpy")),
    "gym3": ("procgen-mirror", "gym3", "numpy"),
    "envpool": ("envpool", "numpy"),
}


def serve(contender: str) -> None:
    """Answer each request on standard input with the seconds that its steps took."""
    import numpy as np

    step: Step | None = None
    made: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if "versions" in request:
            print(json.dumps(versions(contender)), flush=True)
            continue
        wanted = (request["game"], request["n_envs"], request["threads"])
        if step is None or wanted != made:
            step, made = MAKERS[contender](*wanted), wanted
        actions = np.random.RandomState(request["round"]).randint(0, 15, (request["steps"], request["n_envs"]))
        started = time.perf_counter()
        for each in actions:
            step(each)
        print(json.dumps(time.perf_counter() - started), flush=True)


def versions(contender: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in _PACKAGES[contender]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Contender:
    """A process that steps when it is asked to."""

    def __init__(self, name: str, python: str) -> None:
        # Only what needs this package runs it as a part of it.
        place = ["-m", "benchmarks.speed.procgen_stepping"] if name in _IN_THIS_INTERPRETER else [__file__]
        self.process = subprocess.Popen(
            [python, *place, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        while line := self.process.stdout.readline():
            try:
                return json.loads(line)
            except json.JSONDecodeError:  # something else that a package prints
                continue
        raise RuntimeError(f"{self.process.args} ended without an answer")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(contenders: dict[str, Contender], n_envs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return steps a second of each contender, in all rounds and their median."""
    threads = 0 if n_envs == 1 else options.threads
    request = {"game": options.game, "n_envs": n_envs, "threads": threads}
    for contender in contenders.values():  # loads pictures, and warms up
        contender.ask(**request, steps=max(1, 400 // n_envs), round=0)
    trial = max(1, 2000 // n_envs)
    pace = [trial / contender.ask(**request, steps=trial, round=0) for contender in contenders.values()]
    steps = max(10, int(options.seconds * statistics.median(pace)))
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(options.rounds):
        for name in order:
            speeds[name].append(steps * n_envs / contenders[name].ask(**request, steps=steps, round=number))
        order.append(order.pop(0))
    return {
        "n_envs": n_envs,
        "threads": threads,
        "steps": steps,
        "load": round(os.getloadavg()[0], 2),
        "median": {name: round(statistics.median(values)) for name, values in speeds.items()},
        "rounds": {name: [round(value) for value in values] for name, values in speeds.items()},
    }


def markdown(document: dict[str, Any]) -> str:
    """Return the medians as a table with a caption."""
    names = list(document["rows"][0]["median"])
    lines = [
        f"**Stepping Procgen.** {document['game']}, random actions, environment steps a second, medians of "
        f"{len(document['rows'][0]['rounds'][names[0]])} windows in turn, on {document['cores']} cores.",
        "",
        "| Environments | Threads | " + " | ".join(LABELS[name] for name in names) + " |",
        "| --: | --: |" + " --: |" * len(names),
    ]
    for row in document["rows"]:
        speeds = " | ".join(f"{row['median'][name]:,}" for name in names)
        lines.append(f"| {row['n_envs']} | {max(1, row['threads'])} | {speeds} |")
    return "\n".join([*lines, "", *ratio_table(document)]) + "\n"


def ratio_table(document: dict[str, Any]) -> list[str]:
    """Return how much faster ours is than each of the others: medians over rounds, with intervals."""
    pairs = [(ours, other) for ours in OURS for other in OTHERS if other in document["rows"][0]["rounds"]]
    if not pairs:
        return []
    lines = [
        "Ratios within a round: their median, and its 95 % bootstrap interval over rounds.",
        "",
        "| Environments | " + " | ".join(f"{LABELS[ours]} / {LABELS[other]}" for ours, other in pairs) + " |",
        "| --: |" + " --: |" * len(pairs),
    ]
    for row in document["rows"]:
        ratios = (median_ratio(row["rounds"][ours], row["rounds"][other]) for ours, other in pairs)
        cells = (f"{median:.2f} [{low:.2f}, {high:.2f}]" for median, low, high in ratios)
        lines.append(f"| {row['n_envs']} | " + " | ".join(cells) + " |")
    return lines


def median_ratio(ours: list[float], other: list[float]) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios and the ends of its interval."""
    import numpy as np

    ratios = np.array(ours) / np.array(other)
    resampled = np.random.RandomState(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    from maxent_onpolicy.cores import available_cores  # not in the interpreters of the others

    pythons = dict.fromkeys(_IN_THIS_INTERPRETER, sys.executable)
    pythons |= {"gym3": options.gym3_python, "envpool": options.envpool_python}
    contenders = {name: Contender(name, python) for name, python in pythons.items() if python}
    try:
        document = {
            "game": options.game,
            "cores": available_cores(),
            "versions": {name: contender.ask(versions=True) for name, contender in contenders.items()},
            "rows": [],
        }
        for n_envs in options.n_envs:
            row = measure(contenders, n_envs, options)
            document["rows"].append(row)
            cells = "  ".join(f"{name} {value}" for name, value in row["median"].items())
            print(f"n_envs {n_envs}  {cells}  load {row['load']}", flush=True)
    finally:
        for contender in contenders.values():
            contender.close()
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        options.output.with_suffix(".md").write_text(markdown(document), encoding="utf-8")
        print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
