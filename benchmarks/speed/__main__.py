"""Measure the speed of this package and of its peers, alternately, and write tables and a figure.

Each measurement is a process of its own; contenders take turns, round after round. Every process is written down as
it ends: an interrupted run goes on where it was when the same command is given again. Run it on a machine that does
nothing else.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed import report, workloads
from benchmarks.speed.homes import HOMES, Homes, InstallError
from benchmarks.speed.image_workloads import IMAGE_WORKLOADS, SECTION
from benchmarks.speed.runner import Runner
from benchmarks.speed.store import Store
from maxent_onpolicy.evaluation.provenance import collect_provenance
from maxent_onpolicy.validation import did_you_mean

EXAMPLES = """
examples:
  python -m benchmarks.speed                              all of it, into results/speed
  python -m benchmarks.speed --cleanrl ../cleanrl --leanrl ../LeanRL
  python -m benchmarks.speed --quick                      does everything work? A few minutes, into my_results/speed
  python -m benchmarks.speed --only envs-8 --contenders sb3 ours --rounds 3 --out my_results/speed
  python -m benchmarks.speed --only images --out results/speed_procgen    Procgen, SB3 and ours; in no other run
  python -m benchmarks.speed --report-only                tables and figure again, from runs.csv
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="how often everybody runs (5); medians and spread are over rounds")
    add("--quick", action="store_true", help="one round of two iterations: shows that everything works, not how fast")
    add("--only", nargs="+", metavar="WORKLOAD", help="only these workloads or sections (--list names them)")
    add("--contenders", nargs="+", metavar="NAME", help="only these contenders (--list names them)")
    add("--cleanrl", metavar="PATH", help="a checkout of CleanRL; without it CleanRL is left out")
    add("--leanrl", metavar="PATH", help="a checkout of LeanRL; without it LeanRL is left out")
    add("--out", type=Path, help="where results go (results/speed; with --quick my_results/speed)")
    add("--environments", type=Path, default=Path(".speed_envs"), help="where peers are installed (.speed_envs)")
    add("--torch-index", metavar="URL", help="package index to install PyTorch from, for its build without CUDA")
    add("--here", action="store_true", help="install nothing: run every peer with this Python")
    add("--restart", action="store_true", help="forget what has been measured")
    add("--report-only", action="store_true", help="measure nothing; write tables and figure from what is there")
    add("--list", action="store_true", help="name workloads and contenders, and end")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    for library in ("cleanrl", "leanrl"):
        path = getattr(options, library)
        if path and not (Path(path) / library).is_dir():
            parser.error(f"--{library}: {path!r} is no checkout of it: there is no folder {library!r} in it")
    options.out = options.out or Path("my_results/speed" if options.quick else "results/speed")
    available = available_workloads()
    check_names(parser, "--only", options.only, {name for each in available for name in (each.name, each.section)})
    check_names(parser, "--contenders", options.contenders, {c.name for each in available for c in each.contenders})
    return options


def check_names(parser: argparse.ArgumentParser, option: str, given: list[str] | None, known: set[str]) -> None:
    """End with an error that names the closest, if a name is unknown."""
    for name in given or ():
        if name not in known:
            parser.error(f"{option}: there is no {name!r}{did_you_mean(name, known)}; --list names them")


def available_workloads() -> list[workloads.Workload]:
    """Return the workloads of this machine: those for a GPU only where there is one."""
    import torch  # late: --help should not wait for it

    on_gpus = workloads.GPU_WORKLOADS if torch.cuda.is_available() else ()
    return [*workloads.CPU_WORKLOADS, *on_gpus, *IMAGE_WORKLOADS]


def select(options: argparse.Namespace) -> tuple[list[workloads.Workload], set[str]]:
    """Return the workloads to run, and the names of contenders to leave out."""
    # Images need the extra procgen, and half an hour.
    wanted = set(options.only or ()) or {each.section for each in available_workloads()} - {SECTION}
    chosen = [each for each in available_workloads() if {each.name, each.section} & wanted]
    if options.quick:
        chosen = [workloads.quick(each) for each in chosen]
    names = {contender.name for each in chosen for contender in each.contenders}
    absent = names - set(options.contenders or names)
    absent |= {
        contender.name
        for each in chosen
        for contender in each.contenders
        if contender.options.get("library") and not getattr(options, contender.options["library"])
    }
    return chosen, absent


def describe_machine(checkouts: dict[str, str]) -> dict[str, Any]:
    """Return what the numbers depend on, but for the libraries' versions; and the commits of checkouts, by library."""
    found = collect_provenance([])
    commits = {}
    for name, path in checkouts.items():
        done = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        commits[name] = done.stdout.strip() or "unknown"
    return {key: found[key] for key in ("cpu", "gpu", "os", "python", "git")} | {"checkouts": commits}


def find_checkouts(options: argparse.Namespace) -> dict[str, str]:
    """Return the absolute folders of the checkouts that were named, by library."""
    return {
        name: str(Path(getattr(options, name)).resolve()) for name in ("cleanrl", "leanrl") if getattr(options, name)
    }


def prepare(options: argparse.Namespace, store: Store) -> None:
    """Clear or continue what is there.

    Raises:
        ValueError: if it is another machine's.
    """
    if options.restart:
        store.clear()
    machine = describe_machine(find_checkouts(options))
    if store.rows and store.machine.get("cpu") != machine["cpu"]:
        raise ValueError(f"{options.out} holds another machine's measurements; --restart, or another --out")
    if store.rows and store.machine.get("git") != machine["git"]:
        say("The code has changed since the first of these measurements; --restart measures all of them again")
    store.machine |= machine


def measure(options: argparse.Namespace, store: Store) -> list[str]:
    """Install, run, and return what failed."""
    chosen, absent = select(options)
    jobs = workloads.jobs(chosen, options.rounds, absent)
    homes = Homes(options.environments, options.torch_index, options.here)
    failures = []
    for home in sorted({job.contender.home for job in jobs} & HOMES.keys()):
        try:
            homes.install(home, say)
        except InstallError as error:
            failures.append(str(error))
            for job in jobs:
                if job.contender.home == home and job.round == 0:
                    store.add(job, {}, str(error))
            jobs = [job for job in jobs if job.contender.home != home]
    runner = Runner(store, homes, find_checkouts(options), options.environments / "caches", say)
    return failures + runner.run_all(jobs)


def say(line: str) -> None:
    """Show progress."""
    print(line, flush=True)


def show_list() -> None:
    """Print workloads and contenders."""
    for each in available_workloads():
        names = ", ".join(contender.name for contender in each.contenders)
        print(f"{each.section:10} {each.name:18} {each.title}\n{'':29} {names}")


def main() -> int:
    """Run the command; the exit status is 1 if a peer could not be installed or a measurement failed."""
    options = parse_arguments()
    if options.list:
        show_list()
        return 0
    store = Store(options.out)
    if options.report_only and not store.rows:
        print(f"error: there are no measurements in {options.out}", file=sys.stderr)
        return 1
    failures: list[str] = []
    if not options.report_only:
        try:
            prepare(options, store)
            failures = measure(options, store)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted. What was measured is kept: the same command goes on from here.", file=sys.stderr)
            return 130
    report.write(Store(options.out))  # as it was written down, with as many digits: --report-only says the same
    say(f"Tables and figure are in {options.out}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
