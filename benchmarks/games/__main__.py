"""``python -m benchmarks.games``: speed of the solvers of games, and exploitability against CPU time."""

import argparse
from pathlib import Path

from benchmarks.games import curves, speed, tuning
from benchmarks.games.contenders import CONTENDERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.games", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/zero-sum"), help="folder (results/zero-sum)")
    commands = parser.add_subparsers(dest="command", required=True)
    curve = commands.add_parser("curves", help=curves.__doc__.splitlines()[0])  # type: ignore[union-attr]
    curve.add_argument("--games", nargs="+", default=["kuhn_poker", "leduc_poker"], metavar="GAME")
    curve.add_argument("--solvers", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS), metavar="NAME")
    curve.add_argument("--rounds", type=int, default=3)
    curve.add_argument("--seconds", type=float, default=10.0)
    fast = commands.add_parser("speed", help=speed.__doc__.splitlines()[0])  # type: ignore[union-attr]
    fast.add_argument("--rounds", type=int, default=3)
    fast.add_argument("--seconds", type=float, default=5.0)
    tune = commands.add_parser("tune", help=tuning.__doc__.splitlines()[0])  # type: ignore[union-attr]
    tune.add_argument("--jobs", type=int, default=2)
    one = commands.add_parser("serve")
    one.add_argument("game")
    one.add_argument("solver")
    one.add_argument("seconds", type=float)
    other = commands.add_parser("serve-speed")
    other.add_argument("workload")
    other.add_argument("seconds", type=float)
    options = parser.parse_args()
    if options.command == "curves":
        path = options.output / "curves.csv"
        curves.measure(options.games, options.solvers, options.rounds, options.seconds, path)
    elif options.command == "speed":
        speed.measure(options.rounds, options.seconds, options.output / "speed.json")
    elif options.command == "tune":
        tuning.measure(options.output / "tuning.csv", options.jobs)
    elif options.command == "serve":
        curves.serve(options.game, options.solver, options.seconds)
    else:
        speed.serve(options.workload, options.seconds)


if __name__ == "__main__":
    main()
