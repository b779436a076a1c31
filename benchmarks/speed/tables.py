"""Tables of the measurements, made from ``runs.csv`` alone."""

from collections.abc import Iterable, Sequence
from math import isinf
from typing import Any

import pandas as pd

from benchmarks.speed import workloads
from benchmarks.speed.image_tables import images
from benchmarks.speed.image_workloads import IMAGE_WORKLOADS
from benchmarks.speed.summary import Measurements, Summary, break_even
from benchmarks.speed.targets import SAC_LIMITS, TARGETS, TRPO_LIMIT, evaluate, is_met
from benchmarks.speed.workloads import Contender, Workload
from maxent_onpolicy.evaluation.tables import Table

ALL = (*workloads.CPU_WORKLOADS, *workloads.GPU_WORKLOADS)
HEADLINE = ("sb3", "sbx", "tianshou", "cleanrl", "leanrl", "leanrl-compiled", "ours")
PEERS = tuple(each for each in workloads.CPU_WORKLOADS if each.section == "peers")
TRPO = next(each for each in workloads.CPU_WORKLOADS if each.name == "trpo")
SAC = next(each for each in workloads.CPU_WORKLOADS if each.name == "sac")
#: Whose fastest setting counts, by what ``SAC_LIMITS`` calls them.
SAC_SETTINGS = {"SB3": ("sb3-sac", "sb3-sac-2t"), "SBX": ("sbx-sac",), "ours": ("ours-sac", "ours-sac-2t")}
TIERS = ("ours", "ours-no-compiler", "ours-compiled", "ours-eager", "ours-dummy", "maxent", "maxent-own")
#: Observation and action sizes, for counting operations.
SIZES = {"HalfCheetah-v5": (17, 6)}
NOT_RUN, FAILED = "–", "failed"


def all_tables(measured: Measurements) -> list[Table]:
    """Return every table, in the order of the report."""
    known = {row["workload"] for row in measured.rows}
    return [
        peers(measured),
        targets(measured),
        details(measured),
        tiers(measured),
        start_up(measured),
        breakdown(measured),
        scaling(measured),
        widths(measured),
        floor(measured),
        gpu(measured),
        *([trust_regions(measured)] if TRPO.name in known else []),
        *([soft(measured, SAC), soft_targets(measured)] if SAC.name in known else []),
        *([soft(measured, workloads.GPU_SAC)] if workloads.GPU_SAC.name in known else []),
        *([images(measured)] if known & {each.name for each in IMAGE_WORKLOADS} else []),
    ]


def peers(measured: Measurements) -> Table:
    """Steps a second of everybody, for the README."""
    labels = {contender.name: contender.label for each in PEERS for contender in each.contenders}
    data, text = [], []
    for workload in PEERS:
        speeds = [measured.summary(workload.name, name) for name in HEADLINE]
        times = measured.ratio(workload.name, "ours", "sb3")
        row: dict[str, Any] = {"Workload": workload.title}
        words = dict(row)
        for name, speed in zip(HEADLINE, speeds, strict=True):
            row[labels[name]] = speed.median if speed else None
            words[labels[name]] = cell(measured, workload.name, name, speed)
        row["ours / SB3"] = times.median if times else None
        words["ours / SB3"] = ratio_text(times)
        data.append(row)
        text.append(words)
    caption = (
        "PPO on HalfCheetah-v5 unless named otherwise: 2,048 steps a rollout, 10 epochs, two 64×64 tanh networks. "
        "Environment steps a second of the whole training loop after warm-up; medians over fresh processes that take "
        "turns. The last column has the spread over rounds in brackets. A dash: not run."
    )
    return Table("peers", "Training speed", caption, pd.DataFrame(data), pd.DataFrame(text))


def targets(measured: Measurements) -> Table:
    """What was aimed at, what came out."""
    data, text = [], []
    for target in TARGETS:
        found = evaluate(target, measured)
        verdict = "not measured" if found is None else "met" if is_met(target, found.median) else "missed"
        sense = "≥" if target.at_least else "≤"
        data.append((target.text, sense, target.limit, found and found.median, verdict))
        text.append((target.text, f"{sense} {target.limit:g}", ratio_text(found, digits=2), verdict))
    return Table(
        "targets",
        "Targets",
        "Ratios of medians, in brackets the spread within rounds. Of several settings the fastest counts.",
        pd.DataFrame(data, columns=["Target", "Sense", "Limit", "Measured", "Verdict"]),
        pd.DataFrame(text, columns=["Target", "Limit", "Measured", "Verdict"]),
    )


def details(measured: Measurements) -> Table:
    """Every contender of every comparison with the peers."""
    data, text = [], []
    for workload in PEERS:
        for contender in workload.contenders:
            if contender.home == "ours" and contender.script != "run_ours.py":
                continue
            speed = measured.summary(workload.name, contender.name)
            times = measured.ratio(workload.name, "ours", contender.name)
            update = measured.summary(workload.name, contender.name, "update_ms")
            memory = measured.summary(workload.name, contender.name, "peak_rss_mb")
            numbers = [summary and summary.median for summary in (speed, times, update, memory)]
            data.append((workload.title, contender.label, contender.threads, *numbers))
            text.append(
                (
                    workload.title,
                    contender.label,
                    str(contender.threads) if contender.home != "sbx" else "JAX's",
                    cell(measured, workload.name, contender.name, speed, spread=True),
                    ratio_text(times),
                    number(update),
                    number(memory),
                )
            )
    columns = ["Workload", "Library", "Threads", "Steps/s", "ours is faster by", "Update, ms", "Peak memory, MB"]
    caption = (
        "Medians and, in brackets, spread over rounds. Update: the milliseconds of ten epochs. Everybody has the "
        "setting that its documentation advises: SB3 on the CPU, SBX jitted, LeanRL's compiled script with and without "
        "`--compile` (CUDA graphs need a GPU); normalisation is off everywhere."
    )
    frames = pd.DataFrame(data, columns=columns), pd.DataFrame(text, columns=columns)
    return Table("details", "All comparisons", caption, *frames)


def trust_regions(measured: Measurements) -> Table:
    """TRPO against sb3-contrib's, whose limit is not among the targets: older measurements do not have it."""
    rows = []
    for contender in TRPO.contenders:
        speed, update = (
            measured.summary(TRPO.name, contender.name, column) for column in ("steps_per_second", "update_ms")
        )
        rows.append((contender.label, speed, update, measured.ratio(TRPO.name, contender.name, "sb3-trpo")))
    columns = ["Library", "Steps/s", "Update, ms", "times sb3-contrib"]
    caption = "HalfCheetah-v5, 8 environments, 2,048 steps a rollout, two 64×64 tanh networks, each at its defaults. "
    caption += f"Aimed at: {TRPO_LIMIT:g} times sb3-contrib."
    return _table("trpo", "Trust regions", caption, columns, rows, (0, 0, 1))


def soft(measured: Measurements, workload: Workload) -> Table:
    """SAC against SB3's and SBX's, apart from the other comparisons: older measurements do not have it."""
    best = measured.fastest(workload.name, SAC_SETTINGS["SB3"])
    rows = []
    for contender in workload.contenders:
        speed, update = (
            measured.summary(workload.name, contender.name, column) for column in ("steps_per_second", "update_ms")
        )
        times = measured.ratio(workload.name, contender.name, best) if best else None
        rows.append((contender.label, speed, update, times))
    columns = ["Library", "Steps/s", "Update, ms", "times SB3's fastest"]
    caption = (
        f"HalfCheetah-v5, 1 environment, one update a step, batches of {SAC.batch_size}, {SAC.width}×{SAC.width} relu "
        f"networks, each at its defaults. Update: the milliseconds of {SAC.n_steps} updates. SBX's threads are JAX's."
    )
    title = "Soft actor-critic"
    if workload.device == "cuda":
        title, caption = f"{title} on a GPU", f"{caption} Networks and replay buffers on the GPU, the environment not."
    return _table(workload.name, title, caption, columns, rows, (0, 0, 1))


def soft_targets(measured: Measurements) -> Table:
    """What was aimed at with SAC, what came out."""
    data, text = [], []
    ours = measured.fastest(SAC.name, SAC_SETTINGS["ours"])
    for library, limit in SAC_LIMITS.items():
        other = measured.fastest(SAC.name, SAC_SETTINGS[library])
        found = measured.ratio(SAC.name, ours, other) if ours and other else None
        verdict = "not measured" if found is None else "met" if found.median >= limit else "missed"
        data.append((f"SAC: times {library}", limit, found and found.median, verdict))
        text.append((f"SAC: times {library}", f"≥ {limit:g}", ratio_text(found, digits=2), verdict))
    columns = ["Target", "Limit", "Measured", "Verdict"]
    caption = "Ratios of medians, in brackets the spread within rounds. Of several settings the fastest counts."
    frames = pd.DataFrame(data, columns=columns), pd.DataFrame(text, columns=columns)
    return Table("sac-targets", "Targets of SAC", caption, *frames)


def tiers(measured: Measurements) -> Table:
    """Our own settings against our default."""
    rows = []
    labels = {contender.name: contender.label for contender in PEERS[0].contenders}
    for name in TIERS:
        time = measured.ratio("envs-8", "ours", name)
        rows.append(
            (labels[name], *(measured.summary("envs-8", name, c) for c in ("steps_per_second", "update_ms")), time)
        )
    columns = ["Setting", "Steps/s", "Update, ms", "Iteration time over the default's"]
    return _table("tiers", "This package in its settings", "8 environments, minibatch 64.", columns, rows, (0, 0, 2))


def start_up(measured: Measurements) -> Table:
    """Seconds to the end of the first iteration, and when that is regained."""
    chosen = [("envs-8", name) for name in (*HEADLINE, "ours-no-compiler", "ours-compiled", "ours-eager")]
    chosen.append(("start-up", "ours-compiled-cold"))
    baseline = [measured.summary("envs-8", "sb3", column) for column in ("startup_s", "steps_per_second")]
    data, text = [], []
    for workload, name in chosen:
        start = measured.summary(workload, name, "startup_s")
        speed = measured.summary(workload, name)
        steps = None
        if start and speed and baseline[0] and baseline[1]:
            steps = break_even(start.median, speed.median, baseline[0].median, baseline[1].median, workloads.ROLLOUT)
        label = contender_label(workload, name)
        data.append((label, start and start.median, steps))
        reached = NOT_RUN if steps is None else "never" if isinf(steps) else f"{steps:,.0f}"
        text.append((label, number(start, 1, spread=True), "" if name == "sb3" else reached))
    columns = ["Setting", "Start-up, s", "Steps until it has overtaken SB3"]
    caption = (
        "From the first import to the end of the first iteration (8 environments, minibatch 64), compilation included; "
        "compilers' caches are filled unless it says so. Steps: when a run of so many takes no longer than SB3's."
    )
    frames = pd.DataFrame(data, columns=columns), pd.DataFrame(text, columns=columns)
    return Table("startup", "Start-up", caption, *frames)


def breakdown(measured: Measurements) -> Table:
    """Where an iteration's milliseconds go."""
    parts = ("env_ms", "policy_ms", "buffer_ms", "update_ms", "logging_ms")
    rows = []
    for name in ("sb3", "ours"):
        summaries = [measured.summary("breakdown", name, part) for part in (*parts, "iteration_ms")]
        rows.append((contender_label("breakdown", name), *summaries))
    columns = ["Library", "Environment", "Policy and loop", "Buffer and GAE", "Update", "Logging", "Iteration"]
    caption = (
        "Milliseconds of an iteration of 2,048 steps, 8 environments, minibatch 64, timed around the methods that do "
        "the work. Policy and loop: what remains of the rollout."
    )
    return _table("breakdown", "Parts of an iteration", caption, columns, rows, (1,) * 6)


def scaling(measured: Measurements) -> Table:
    """Steps a second and memory by the number of environments."""
    rows = []
    for n_envs in (1, 2, 4, 8, 16, 32, 64):
        name = f"envs-{n_envs}"
        found = [
            measured.summary(name, who, what) for what in ("steps_per_second", "peak_rss_mb") for who in ("sb3", "ours")
        ]
        rows.append((str(n_envs), found[0], found[1], measured.ratio(name, "ours", "sb3"), found[2], found[3]))
    columns = ["Environments", "SB3, steps/s", "ours, steps/s", "ours / SB3", "SB3, MB", "ours, MB"]
    caption = "HalfCheetah-v5, minibatch 64, on the CPU; peak resident memory of the process."
    return _table("scaling", "Number of environments", caption, columns, rows, (0, 0, 1, 0, 0))


def widths(measured: Measurements) -> Table:
    """Iteration and update by the networks' width."""
    rows = []
    for width, name in ((64, "envs-8"), (128, "width-128"), (256, "width-256")):
        found = [measured.summary(name, who, what) for what in ("iteration_ms", "update_ms") for who in ("sb3", "ours")]
        rows.append((f"{width}×{width}", found[0], found[1], measured.ratio(name, "ours", "sb3"), found[2], found[3]))
    columns = ["Networks", "SB3, ms", "ours, ms", "ours / SB3", "SB3's update, ms", "our update, ms"]
    caption = "Milliseconds of an iteration, 8 environments, minibatch 64."
    return _table("width", "Width of the networks", caption, columns, rows, (0, 0, 1, 0, 0))


def floor(measured: Measurements) -> Table:
    """How far we are from what the hardware must do anyway."""
    data, text = [], []
    for workload in (PEERS[0], next(each for each in PEERS if each.name == "batch-512")):
        gflop, megabytes = update_cost(workload)
        ours = measured.fastest(workload.name, ("ours", "ours-2t"))
        found = {
            name: measured.summary(workload.name, name, "update_ms") for name in (ours or "ours", "sb3", "products")
        }
        for name, update in found.items():
            rate = gflop / (update.median / 1e3) if update else None
            label = contender_label(workload.name, name)
            speed = measured.summary(workload.name, name)
            above = measured.ratio(workload.name, "environments", name) if name != "products" else None
            data.append(
                (workload.title, label, update and update.median, gflop, megabytes, rate, above and above.median)
            )
            rates = f"{rate:.1f}" if rate else NOT_RUN
            times = ratio_text(above, 2) if name != "products" and speed else ""
            text.append((workload.title, label, number(update, 1), f"{gflop:.2f}", f"{megabytes:,.0f}", rates, times))
    columns = [
        *("Workload", "Who", "Update, ms", "GFLOP", "Adam's MB", "GFLOP/s"),
        "Time over that of the environments alone",
    ]
    caption = (
        "GFLOP: multiplications and additions of the matrix products in ten epochs. Adam's MB: what ten epochs read "
        "and write of parameters, gradients and moments. The products alone are eight batched products and two tanh a "
        "minibatch, with neither loss nor optimiser; the environments alone step with random actions on all cores."
    )
    frames = pd.DataFrame(data, columns=columns), pd.DataFrame(text, columns=columns)
    return Table("floor", "Distance to the floor", caption, *frames)


def update_cost(workload: Workload) -> tuple[float, float]:
    """Return the GFLOP of the matrix products of one update, and the MB that Adam reads and writes in it."""
    observation, action = SIZES[workload.env_id]
    width = workload.width
    products = parameters = 0
    for outputs in (action, 1):
        first, hidden, last = observation * width, width * width, width * outputs
        # forward and weights' gradients for each layer, inputs' gradients for all but the first
        products += 2 * (2 * (first + hidden + last) + hidden + last)
        parameters += first + hidden + last + 2 * width + outputs
    parameters += action  # log standard deviations
    samples = workload.n_epochs * workload.rollout
    # four vectors are read, three written, four bytes each
    return products * samples / 1e9, 28 * parameters * (samples // workload.batch_size) / 1e6


def gpu(measured: Measurements) -> Table:
    """Steps a second on a GPU, by number of environments."""
    rows = []
    for workload in (each for each in workloads.GPU_WORKLOADS if each.section == "gpu"):
        found = {c.name: measured.summary(workload.name, c.name) for c in workload.contenders}
        if not any(found.values()):
            continue
        named = {
            name.removesuffix("-torch").removesuffix("-mjx"): name for name in found if not name.endswith("-eager")
        }
        eager = next((found[name] for name in found if name.endswith("-eager")), None)
        default = next(name for name in found if name in ("ours-torch", "ours-mjx"))
        times = measured.ratio(workload.name, default, "sb3") if "sb3" in found else None
        speeds = (found.get("sb3"), found.get("ours"), eager, found[default], found[named["environments"]], times)
        rows.append((workload.title, *speeds))
    columns = [
        *("Workload", "SB3", "ours, environments on the CPU", "ours, eager", "ours"),
        *("environments alone", "ours / SB3"),
    ]
    caption = (
        f"Environment steps a second; {workloads.GPU_HORIZON} steps a rollout and environment, 4 minibatches, 5 "
        "epochs. Environments are on the GPU unless it says otherwise; SB3's are always on the CPU."
    )
    return _table("gpu", "On a GPU", caption, columns, rows, (0, 0, 0, 0, 0, 1))


def _table(
    name: str,
    title: str,
    caption: str,
    columns: Sequence[str],
    rows: Iterable[tuple[Any, ...]],
    digits: tuple[int, ...],
) -> Table:
    """A table whose first column is text and whose others are summaries, with that many digits."""
    rows = list(rows)
    data = [(row[0], *(summary and summary.median for summary in row[1:])) for row in rows]
    text = [
        (row[0], *(number(summary, places, spread=True) for summary, places in zip(row[1:], digits, strict=True)))
        for row in rows
    ]
    return Table(name, title, caption, pd.DataFrame(data, columns=columns), pd.DataFrame(text, columns=columns))


def contender_label(workload: str, name: str) -> str:
    """Return what tables call a contender."""
    found: Contender = next(
        contender for each in ALL if each.name == workload for contender in each.contenders if contender.name == name
    )
    return found.label


def cell(measured: Measurements, workload: str, name: str, summary: Summary | None, spread: bool = False) -> str:
    """Return a number, "failed", or a dash where nothing was run."""
    if summary is None and measured.failed(workload, name):
        return FAILED
    return number(summary, spread=spread)


def number(summary: Summary | None, digits: int = 0, spread: bool = False) -> str:
    """Return a median as text, with its spread if there is one and it is asked for."""
    if summary is None:
        return NOT_RUN
    if not spread or summary.rounds == 1:
        return f"{summary.median:,.{digits}f}"
    return f"{summary.median:,.{digits}f} [{summary.low:,.{digits}f}, {summary.high:,.{digits}f}]"


def ratio_text(summary: Summary | None, digits: int = 1) -> str:
    """Return a ratio as text, with its spread."""
    return number(summary, digits, spread=True)
