"""How often a language model wins, with intervals, and what it says while it plays."""

import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.llm.settings import TextRun
from maxent_onpolicy.cli.llm.training import play, quiet, unpacked
from maxent_onpolicy.cli.llm.warm_start import warm_start
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.modes import MODES
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError
from maxent_onpolicy.evaluation.statistics import aggregate
from maxent_onpolicy.llm.environments.base import SPLITS
from maxent_onpolicy.llm.model import load_model
from maxent_onpolicy.llm.rollout import Episode
from maxent_onpolicy.llm.tokenizer import load_tokenizer
from maxent_onpolicy.validation import check_choice, check_integer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def evaluate_run(
    console: Console,
    config: RunConfig,
    path: Path,
    splits: tuple[str, ...],
    episodes: int,
    seed: int,
    *,
    modes: tuple[str, ...] = (),
    show: int = 0,
    start_only: bool = False,
) -> None:
    """Let a run's model play, and print what came of it.

    Args:
        console: where.
        config: the run's settings.
        path: its directory.
        splits: of the games.
        episodes: how many, in each mode.
        seed: of the sampling.
        modes: ``"deterministic"``, ``"stochastic"``; both if none is given.
        show: how many episodes are printed.
        start_only: whether its warm start plays, which is made if it is not there.

    Raises:
        UsageError: if there is no model, or an argument is out of range.
    """
    setup = TextRun.of(config)
    try:
        for mode in modes:
            check_choice("--modes", mode, MODES)
        for split in splits:
            check_choice("--split", split, SPLITS)
        check_integer("--episodes", episodes, 1)
        check_integer("--show", show, 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    quiet()
    if start_only:
        source = warm_start(setup, lambda text: console.print(Text(text), soft_wrap=True), console.is_terminal)
        show_evaluation(console, setup, source, splits, episodes, seed, modes or MODES, show)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = unpacked(_model_of(path), Path(folder))
        show_evaluation(console, setup, source, splits, episodes, seed, modes or MODES, show)


def show_evaluation(
    console: Console,
    setup: TextRun,
    source: Path,
    splits: tuple[str, ...],
    episodes: int,
    seed: int = 20_000,
    modes: tuple[str, ...] = MODES,
    show: int = 0,
) -> None:
    """Print a row a split and mode, with intervals over games, and the first episodes in full."""
    model, tokenizer = load_model(source), load_tokenizer(source)
    table = Table(
        box=None, padding=(0, 2, 0, 0), title=f"{setup.config.env_id}, by split and mode", title_justify="left"
    )
    for name in ("split", "mode"):
        table.add_column(name)
    for name in ("games", "episodes", "won", "95 % interval", "reward", "commands"):
        table.add_column(name, justify="right", no_wrap=True)
    shown: list[Episode] = []
    for split in splits:
        games = setup.games(split, episodes)
        for mode in modes:
            played = play(setup, model, tokenizer, games, mode, seed, progress_bar=console.is_terminal)
            shown = shown or played
            table.add_row(split, mode, *_row(played))
    console.print(table)
    for episode in shown[:show]:
        verdict = "won" if episode.success else "not won"
        console.print(Text(f"\n{episode.task_id}, {verdict}, {len(episode.commands)} commands", style="bold"))
        console.print(Text(transcript(episode, tokenizer)), soft_wrap=True)


def _row(played: list[Episode]) -> list[str]:
    by_game: dict[str, list[float]] = {}
    for episode in played:
        by_game.setdefault(episode.task_id, []).append(float(episode.success))
    won = aggregate(
        [[float(np.mean(each)) for each in by_game.values()]], rng=np.random.default_rng(0), statistics=("mean",)
    )
    _, low, high = won["mean"]
    interval = "" if np.isnan(low) else f"{low:.2f} to {high:.2f}"
    reward = np.mean([sum(episode.rewards) for episode in played])
    commands = np.mean([len(episode.commands) for episode in played])
    return [
        str(len(by_game)),
        str(len(played)),
        f"{won['mean'].value:.3f}",
        interval,
        f"{reward:.3f}",
        f"{commands:.1f}",
    ]


def transcript(episode: Episode, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return an episode as a text, each command behind a prompt."""
    lines = []
    tokens = zip(episode.turn.tolist(), episode.tokens.tolist(), strict=True)
    for turn, part in groupby(tokens, key=itemgetter(0)):
        said: Any = tokenizer.decode([token for _, token in part], skip_special_tokens=True)
        lines.append(("> " if turn >= 0 else "") + said.strip())
    return "\n".join(lines)


def _model_of(path: Path) -> Path:
    try:
        run = RunDirectory(path)
    except RunError as error:
        raise UsageError(f"{error}; `maxent-onpolicy llm train` makes the run") from None
    if run.newest_model is None:
        raise UsageError(f"{path} keeps no model; train it without --no-model")
    return run.newest_model
