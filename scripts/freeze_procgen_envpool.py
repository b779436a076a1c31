"""Record what EnvPool's Procgen does, in tests/envs/procgen_envpool.json: an oracle that shares no binary with ours.

EnvPool builds the games from their source into a library of its own, with a drawing library of its own. To run this
again, on Linux:

    python3.12 -m venv envpool-env
    envpool-env/bin/pip install "envpool==1.2.7"
    envpool-env/bin/python scripts/freeze_procgen_envpool.py
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import envpool

_TESTS = Path(__file__).parents[1] / "tests" / "envs"
sys.path.insert(0, str(_TESTS))

from procgen_levels import Trace, actions_of, cases  # noqa: E402


def play(case: dict[str, Any]) -> dict[str, Any]:
    """Play one level until it ends, or the actions do."""
    env = envpool.make_gym(
        f"{case['game'].capitalize()}{case['distribution_mode'].capitalize()}-v0",
        num_envs=1,
        seed=0,
        num_threads=1,
        num_levels=1,
        start_level=case["start_level"],
    )
    trace = Trace()
    trace.see(env.reset()[0][0].transpose(1, 2, 0))
    for action in actions_of(case):
        observation, reward, terminated, truncated, _ = env.step(action.reshape(1).astype("int32"))
        if trace.step(float(reward[0]), bool(terminated[0] or truncated[0])):
            break
        trace.see(observation[0].transpose(1, 2, 0))
    env.close()
    return trace.found()


def main() -> None:
    """Write the file."""
    lines = ",\n".join(json.dumps({**case, "expected": play(case)}) for case in cases())
    made_with = json.dumps({name: version(name) for name in ("envpool", "numpy")})
    text = f'{{"made_with": {made_with},\n"cases": [\n{lines}\n]}}\n'
    json.loads(text)
    (_TESTS / "procgen_envpool.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
