"""``python -m benchmarks.games``: solvers of zero-sum games measured, self-play tuned, and a report of both.

  python -m benchmarks.games curves         exploitability against CPU time
  python -m benchmarks.games speed          updates a second
  python -m benchmarks.games convergence    last and average iterates, by iteration
  python -m benchmarks.games values         beside linear programming
  python -m benchmarks.games tune           settings of self-play
  python -m benchmarks.games report         tables and figures of all that is there
  python -m benchmarks.games all            everything but for the tuning

Interrupted, each goes on where it was when given again. Nothing else should run on the machine while time is measured.
"""

import argparse
import json
import os
from importlib import metadata
from pathlib import Path

from benchmarks.games import convergence, curves, report, speed, tuning, values
from benchmarks.games.contenders import CONTENDERS
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.provenance import collect_provenance

_PACKAGES = ("LiteEFG", "numba", "numpy", "open_spiel", "scipy", "torch")
_TIMED = ("curves", "speed")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.games", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--output", type=Path, default=Path("results/zero-sum/solvers"), help="folder (results/zero-sum/solvers)"
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("curves", "speed", "convergence", "values", "tune", "report", "all"):
        command = commands.add_parser(name)
        if name in ("curves", "all"):
            games = ["kuhn_poker", "leduc_poker"]
            command.add_argument("--games", nargs="+", default=games, metavar="GAME", help="of OpenSpiel")
            solvers = list(CONTENDERS)
            command.add_argument("--solvers", nargs="+", default=solvers, choices=solvers, metavar="NAME")
            command.add_argument("--seconds", type=float, default=10.0, help="of CPU time for each (10)")
        if name in ("curves", "speed", "all"):
            command.add_argument("--rounds", type=int, default=3, help="in which all take turns (3)")
        if name == "tune":
            command.add_argument("--jobs", type=int, default=2, help="trials at a time (2)")
    one = commands.add_parser("serve")
    one.add_argument("game")
    one.add_argument("solver")
    one.add_argument("seconds", type=float)
    other = commands.add_parser("serve-speed")
    other.add_argument("workload")
    other.add_argument("seconds", type=float)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run a command."""
    options = parser().parse_args(arguments)
    folder, command = options.output, options.command
    if command == "serve":
        return curves.serve(options.game, options.solver, options.seconds)
    if command == "serve-speed":
        return speed.serve(options.workload, options.seconds)
    wanted = {command} if command != "all" else {"curves", "speed", "convergence", "values"}
    if wanted & set(_TIMED):
        note_machine(folder)
    if "curves" in wanted:
        curves.measure(options.games, options.solvers, options.rounds, options.seconds, folder / "curves.csv")
    if "speed" in wanted:
        speed.measure(options.rounds, 5.0, folder / "speed.json")
    if wanted & {"convergence", "values"}:
        # of matrices of a few hundred rows, threads only make trouble
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if "convergence" in wanted:
        convergence.measure(folder / "convergence.csv")
    if "values" in wanted:
        values.measure(folder / "values.csv")
    if "tune" in wanted:
        tuning.measure(folder / "tuning.csv", options.jobs)
    report.write(folder, folder.parent)
    print(f"report: {folder / 'report.md'}")
    return None


def note_machine(folder: Path) -> None:
    """Write down on what is measured.

    Raises:
        SystemExit: if the folder holds another machine's measurements.
    """
    found = collect_provenance([])
    machine = {key: found[key] for key in ("cpu", "os", "python", "git")}
    path = folder / "machine.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else machine
    if before["cpu"] != machine["cpu"]:
        raise SystemExit(f"{folder} holds another machine's measurements; give another --output")
    machine["packages"] = before.get("packages", {})
    for name in _PACKAGES:
        try:
            machine["packages"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
