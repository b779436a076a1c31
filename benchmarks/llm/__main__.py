"""``python -m benchmarks.llm``: what entropy control costs, and trials of settings for the suite ``textworld-mini``.

  python -m benchmarks.llm cost      measure time and memory beside GRPO; an hour on two cores
  python -m benchmarks.llm tune      run the trials; half an hour on two cores
  python -m benchmarks.llm report    tables and a figure of what is there

Interrupted, each goes on where it was when given again. Nothing else should run on the machine while cost is measured.
"""

import argparse
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.llm import entropies, measure, report, training, tuning
from benchmarks.llm.contenders import CONTENDERS
from benchmarks.llm.shapes import SHAPES
from benchmarks.llm.turns import Piped, Turn
from maxent_onpolicy.cores import available_cores
from maxent_onpolicy.evaluation.files import write_atomic
from maxent_onpolicy.evaluation.provenance import collect_provenance

_PACKAGES = ("accelerate", "torch", "transformers", "trl")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.llm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    cost = commands.add_parser("cost", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    cost.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b", help="of the model and the batch")
    cost.add_argument("--layers", type=int, default=2, metavar="N", help="of the model")
    cost.add_argument("--rounds", type=int, default=1, metavar="N", help="of everything")
    cost.add_argument("--steps", type=int, default=3, metavar="N", help="of each, in turn, that count in a round")
    cost.add_argument("--rows", type=int, default=1024, metavar="N", help="tokens whose entropies are computed")
    cost.add_argument("--threads", type=int, default=available_cores(), metavar="N", help="of each")
    for option, choices in (("--contenders", list(CONTENDERS)), ("--parts", list(measure.PARTS))):
        cost.add_argument(option, nargs="+", choices=choices, default=choices, metavar="NAME", help="which")
    tune = commands.add_parser("tune", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    tune.add_argument("--runs", type=Path, default=Path("my_results"), help="folder of the trials' own directories")
    tune.add_argument("--jobs", type=int, default=available_cores(), metavar="N", help="trials at a time")
    for command in (
        cost,
        tune,
        commands.add_parser("report", formatter_class=argparse.ArgumentDefaultsHelpFormatter),
    ):
        command.add_argument("--output", type=Path, default=Path("results/llm_cost"), help="folder")
    commands.add_parser("serve").add_argument("job", type=json.loads)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run a command."""
    options = parser().parse_args(arguments)
    if options.command == "serve":
        serve(**options.job, turn=Piped())
        return
    if options.command == "cost":
        plan = measure.Plan(
            options.shape,
            options.layers,
            tuple(options.contenders),
            options.rounds,
            options.steps,
            options.rows,
            options.threads,
            tuple(options.parts),
        )
        note(plan, options.output)
        measure.measure(plan, options.output / "cost.csv")
    if options.command == "tune":
        tuning.measure(options.runs, options.output / "tuning.csv", options.jobs)
    report.write(options.output)
    print(f"tables and figure: {options.output}")


def serve(part: str, name: str, layers: int, shape: str, steps: int, rows: int, threads: int, turn: Turn) -> None:
    """Make one side of a pair of measurements in this process."""
    import torch

    torch.set_num_threads(threads)
    if part == measure.ENTROPY:
        entropies.measure(name, SHAPES[shape], rows, steps, turn)
    else:
        training.measure(name, SHAPES[shape], layers, steps, turn)


def note(plan: measure.Plan, folder: Path) -> None:
    """Write down what is measured on what.

    Raises:
        SystemExit: if the folder holds another machine's measurements, or those of other settings.
    """
    found = collect_provenance([])
    settings = {"layers": plan.layers, "steps": plan.steps, "rows": plan.rows, "threads": plan.threads}
    shape = {"name": plan.shape} | vars(SHAPES[plan.shape])
    new: dict[str, Any] = {key: found[key] for key in ("cpu", "os", "python", "git")}
    new |= {"packages": {name: metadata.version(name) for name in _PACKAGES}, "shape": shape, "settings": settings}
    path = folder / "cost.json"
    old = json.loads(path.read_text("utf-8")) if path.is_file() else new
    for key in ("cpu", "packages", "shape", "settings"):
        if old[key] != new[key]:
            raise SystemExit(f"{folder} holds measurements of another {key}; give another --output")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(old, indent=1) + "\n")


if __name__ == "__main__":
    main()
