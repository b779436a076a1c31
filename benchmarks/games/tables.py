"""Tables of what was measured of games, made from the files in ``results/zero-sum`` alone."""

import json
import math
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks.games import convergence, curves, tuning, values
from benchmarks.games.contenders import CONTENDERS
from maxent_onpolicy.evaluation.scores import Results
from maxent_onpolicy.evaluation.tables import Bootstrap, Table

AT = (0.1, 1.0, 10.0)
TITLES = {"kuhn_poker": "Kuhn poker", "leduc_poker": "Leduc poker", "liars_dice(numdice=1)": "Liar's dice"}
SELF_PLAY_TARGETS = {"kuhn_poker": 0.04, "leduc_poker": 0.48}
# NashPG, arXiv:2510.18183: mean and half-width over five seeds.
PUBLISHED = {"kuhn_poker": "0.041 ± 0.009", "leduc_poker": "0.478 ± 0.066"}
_NONE = "–"


def title(game: str) -> str:
    """Return what a game is called in a table."""
    return TITLES.get(game, game.partition("(")[0].replace("_", " "))


def tiny(value: float) -> str:
    """Return a small number with two digits: ``2.3e-04``."""
    return _NONE if math.isnan(value) else f"{value:.1e}"


def at(points: list[curves.Point], game: str, solver: str, seconds: float) -> dict[int, float]:
    """Return the exploitability last measured by then, or a twentieth later, by round that went on until then."""
    found: dict[int, float] = {}
    ended: dict[int, float] = {}
    for point in points:
        if (point.game, point.solver) == (game, solver):
            ended[point.round] = point.seconds
            if point.seconds <= 1.05 * seconds:
                found[point.round] = point.exploitability
    return {number: value for number, value in found.items() if ended[number] >= 0.9 * seconds}


def rate(points: list[curves.Point], game: str, solver: str) -> float:
    """Return the median over rounds of iterations a second, over a whole process."""
    last: dict[int, curves.Point] = {}
    for point in points:
        if (point.game, point.solver) == (game, solver):
            last[point.round] = point
    return median(point.iterations / point.seconds for point in last.values()) if last else float("nan")


def middle(found: dict[int, float]) -> float:
    """Return the median over rounds, NaN without any."""
    return median(found.values()) if found else float("nan")


def curves_table(points: list[curves.Point], games: list[str]) -> Table:
    """Exploitability of every solver after so much CPU time."""
    data, text = [], []
    for game in games:
        measured = [solver for solver in CONTENDERS if any(point[:2] == (game, solver) for point in points)]
        for solver in measured:
            found = {seconds: middle(at(points, game, solver, seconds)) for seconds in AT}
            speed = rate(points, game, solver)
            rounds = len({point.round for point in points if point[:2] == (game, solver)})
            data.append([game, solver, rounds, speed, *found.values()])
            text.append([title(game), solver, f"{speed:,.0f}", *map(tiny, found.values())])
    headings = [f"{seconds:g} s" for seconds in AT]
    return Table(
        "solvers",
        "Exploitability against CPU time",
        "After so many seconds of CPU time of one thread: the median over rounds, in each of which every solver ran in "
        "a process of its own. OMWU and MMD: the last iterate, all others the average. Reading the game and measuring "
        "do not count. tau 0.05 and alpha 0.05 are fixed temperatures, which end at equilibria of their own.",
        pd.DataFrame(data, columns=["game", "solver", "rounds", "iterations a second", *headings]),
        pd.DataFrame(text, columns=["Game", "Solver", "Iterations/s", *headings]),
    )


def speed_table(speed: dict[str, list[float]]) -> Table:
    """Updates a second."""
    naive = median(speed[next(iter(speed))])
    rows = [[name, median(rates), min(rates), max(rates), median(rates) / naive] for name, rates in speed.items()]
    text = []
    for name, rates in speed.items():
        batch = "games of" in name or "naive" in name
        ratio = f"{median(rates) / naive:,.0f}" if batch else _NONE
        text.append([name, f"{median(rates):.2g}", f"{min(rates):.2g} to {max(rates):.2g}", ratio])
    return Table(
        "updates",
        "Updates of OMWU a second, one CPU thread",
        "Median over rounds and the range. What counts: an update of one game in a batch, of one state of a Markov "
        "game, of a whole game in sequence form. Checks do not count. The naive loop updates one "
        "matrix game after another in numpy.",
        pd.DataFrame(rows, columns=["workload", "median", "low", "high", "ratio to the naive loop"]),
        pd.DataFrame(text, columns=["Workload", "Updates/s", "Range", "Times the loop"]),
    )


def values_table(found: list[values.Value]) -> Table:
    """Values by three sources."""
    text = [
        [
            title(value.game),
            _NONE if math.isnan(value.known) else f"{value.known:.9f}",
            f"{value.programme + 0.0:.9f}",
            f"{value.ours + 0.0:.9f}".replace("-0.000000000", "0.000000000"),
            tiny(value.exploitability),
            f"{value.iterations:,}",
        ]
        for value in found
    ]
    return Table(
        "values",
        "Values of games",
        "To the first player: published, by linear programming (HiGHS), and by OMWU with a falling temperature, whose "
        "strategies' exploitability is given; in sequence form with Newton steps.",
        pd.DataFrame(found, columns=list(values.Value._fields)),
        pd.DataFrame(text, columns=["Game", "Known", "Linear programme", "OMWU", "Exploitability", "Iterations"]),
    )


def convergence_table(points: list[convergence.Point]) -> Table:
    """Where strategies have got to at the end."""
    last = {point[:3]: point for point in points}
    data = [[*key, point.iteration, point.qre_gap, point.nash_conv, point.tau] for key, point in last.items()]
    text = [[*row[:3], f"{row[3]:,}", tiny(row[4]), tiny(row[5]), tiny(row[6])] for row in data]
    columns = ["Game", "Solver", "Iterate", "Iterations", "QRE gap", "NashConv", "tau"]
    return Table(
        "convergence",
        "Last and average iterates",
        f"At the end of the curves. The temperature is {convergence.TAU:g} or falls. The QRE gap is measured at the "
        "solver's own temperature.",
        pd.DataFrame(data, columns=columns),
        pd.DataFrame(text, columns=columns),
    )


def self_play_table(results: Results, bootstrap: Bootstrap) -> Table:
    """Exploitability of what the runs have learnt."""
    data, text = [], []
    for env_id in results.env_ids:
        game = env_id.partition(":")[2]
        for label in results.labels:
            score = results.final(label, env_id, "stochastic")
            if not len(score):
                continue
            value, low, high = bootstrap.mean(-score, label, env_id, "stochastic", "exploitability")
            target = SELF_PLAY_TARGETS.get(game, float("nan"))
            data.append([game, label, len(score), value, low, high, -score.max(), -score.min(), target])
            met = "yes" if value <= target else "no"
            interval, spread = f"[{low:.3f}, {high:.3f}]", f"{-score.max():.3f} to {-score.min():.3f}"
            cells = [f"{value:.3f}", interval, spread, f"{target:g}", met, PUBLISHED.get(game, _NONE)]
            text.append([title(game), label, str(len(score)), *cells])
    columns = ["game", "algorithm", "seeds", "exploitability", "low", "high", "least", "most", "target"]
    headings = [
        "Game",
        "Algorithm",
        "Seeds",
        "Exploitability",
        bootstrap.interval_name,
        "Range",
        "Target",
        "Met",
        "NashPG",
    ]
    return Table(
        "self_play",
        "Self-play",
        "Exploitability of the last policy, mean over seeds, lower is better; settings are each algorithm's best of "
        "trials in tuning.csv, on another seed. NashPG: as published (arXiv:2510.18183), five seeds, "
        "other settings.",
        pd.DataFrame(data, columns=columns),
        pd.DataFrame(text, columns=headings),
    )


def tuning_table(found: list[tuning.Trial]) -> Table:
    """The best trial with and without a magnet."""
    data, text = [], []
    for game in tuning.SHARED:
        for algorithm in tuning.ALGORITHMS:
            own = [trial for trial in found if trial[:2] == (game, algorithm)]
            for name, chosen in (
                ("no", [trial for trial in own if "magnet" not in trial.settings]),
                ("yes", [trial for trial in own if "magnet" in trial.settings]),
            ):
                best = min(chosen, key=lambda trial: trial.exploitability)
                words = ", ".join(f"{key} {value}" for key, value in json.loads(best.settings).items())
                data.append([game, algorithm, name, len(chosen), best.exploitability, words])
                text.append([title(game), algorithm, name, f"{best.exploitability:.3f}", words])
    return Table(
        "tuning",
        "Tuning of self-play",
        f"Each algorithm's least exploitable trial without and with a magnet, seed {tuning.SEED}, "
        + " and ".join(f"{steps:,} steps of {title(game)}" for game, steps in tuning.TIMESTEPS.items())
        + ". All trials are in tuning.csv.",
        pd.DataFrame(data, columns=["game", "algorithm", "magnet", "trials", "exploitability", "settings"]),
        pd.DataFrame(text, columns=["Game", "Algorithm", "Magnet", "Exploitability", "Settings"]),
    )


def targets_table(points: list[curves.Point], speed: dict[str, list[float]]) -> Table:
    """What was aimed at, and what came of it."""
    rates = {name: median(found) for name, found in speed.items()}
    naive, single, double, markov = list(rates.values())[:4]

    def best(game: str, seconds: float) -> float:
        return min(middle(at(points, game, solver, seconds)) for solver in ("OMWU", "OMWU, Newton steps"))

    rows = [
        ("4,096 matrix games, float32, updates/s", 1e7, single, single >= 1e7),
        ("4,096 matrix games, float64, updates/s", 5e6, double, double >= 5e6),
        ("… times a naive numpy loop", 150.0, single / naive, single / naive >= 150),
        ("Markov games, state updates/s", 2e6, markov, markov >= 2e6),
        ("Kuhn poker at 1 s", 1e-12, best("kuhn_poker", 1), best("kuhn_poker", 1) <= 1e-12),
        ("Leduc poker at 10 s, OMWU alone", 5e-4, middle(at(points, "leduc_poker", "OMWU", 10)), None),
    ]
    for peer in ("OpenSpiel CFR+", "LiteEFG CFR+"):
        theirs = middle(at(points, "leduc_poker", peer, 10))
        if not math.isnan(theirs):
            rows.append((f"Leduc poker at 10 s, beside {peer}", theirs, best("leduc_poker", 10), None))
    data = [[name, aim, found, found <= aim if met is None else met] for name, aim, found, met in rows]
    text = [[name, f"{aim:.2g}", f"{found:.2g}", "yes" if met else "no"] for name, aim, found, met in data]
    text.append(["100,000 matrix games on a GPU, updates/s", "5e+08", "not measured", _NONE])
    return Table(
        "targets",
        "Targets",
        "Updates are to be at least as many, exploitabilities at most as large; those of peers are this run's.",
        pd.DataFrame(data, columns=["what", "target", "measured", "met"]),
        pd.DataFrame(text, columns=["What", "Target", "Measured", "Met"]),
    )


def load(folder: Path) -> dict[str, Table]:
    """Return the tables of what a folder holds; nothing of what was not measured."""
    found: list[Table] = []
    points = curves.read(folder / "curves.csv") if (folder / "curves.csv").is_file() else []
    speed = json.loads((folder / "speed.json").read_text("utf-8")) if (folder / "speed.json").is_file() else {}
    if points and speed:
        found.append(targets_table(points, speed))
    if points:
        games = list(dict.fromkeys(point.game for point in points))
        found.append(curves_table(points, games))
    if speed:
        found.append(speed_table(speed))
    if (folder / "convergence.csv").is_file():
        found.append(convergence_table(convergence.read(folder / "convergence.csv")))
    if (folder / "values.csv").is_file():
        found.append(values_table(values.read(folder / "values.csv")))
    if (folder / "tuning.csv").is_file():
        found.append(tuning_table(tuning.read(folder / "tuning.csv")))
    return {table.name: table for table in found}
