"""Record the episodes of tests/envs/procgen_golden.json with OpenAI's own interface, ``ProcgenGym3Env``.

It needs gym3, gym, cffi and numpy 1, so it is an oracle here and not a dependency. To run this again, on Linux:

    python3.11 -m venv procgen-env
    procgen-env/bin/pip install "procgen-mirror==0.10.7"
    procgen-env/bin/python scripts/freeze_procgen_episodes.py
"""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from procgen import ProcgenGym3Env

_TESTS = Path(__file__).parents[1] / "tests" / "envs"
sys.path.insert(0, str(_TESTS))

from procgen_episodes import Digest, actions_of, cases  # noqa: E402


def play(case: dict) -> dict:
    """Play the steps of one case; return its digests."""
    env = ProcgenGym3Env(
        num=case["n_envs"], env_name=case["game"], rand_seed=case["seed"], num_threads=0, **case["options"]
    )
    digest = Digest()
    digest.begin(env.observe()[1]["rgb"])
    for actions in actions_of(case):
        env.act(actions)
        reward, observation, first = env.observe()
        digest.add(observation["rgb"], reward, first, env.get_info())
    env.close()
    return digest.found


def main() -> None:
    """Write the file."""
    made_with = {name: version(name) for name in ("procgen-mirror", "gym3", "numpy")}
    document = {
        "made_with": {**made_with, "python": platform.python_version(), "interface": "procgen.ProcgenGym3Env"},
        "cases": [{**case, "expected": play(case)} for case in cases()],
    }
    lines = ",\n".join(json.dumps(case) for case in document["cases"])
    text = f'{{"made_with": {json.dumps(document["made_with"])},\n"cases": [\n{lines}\n]}}\n'
    assert json.loads(text) == document
    (_TESTS / "procgen_golden.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
