"""The warm start of a run: a tokenizer and a model that was taught an expert's commands, made once for all alike."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maxent_onpolicy.cli.llm.settings import TextRun
from maxent_onpolicy.cli.lock import locked
from maxent_onpolicy.llm.environments.base import cache_directory
from maxent_onpolicy.llm.model import SIZES, count_parameters, make_model
from maxent_onpolicy.llm.sft import fine_tune, oracle_texts, oracle_traces, play_oracle
from maxent_onpolicy.llm.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOTE = "warm_start.json"
_MODEL = "model"


def warm_start(setup: TextRun, message: Callable[[str], None], progress_bar: bool = False) -> Path:
    """Return the folder of a run's warm start, in which model and tokenizer are; it is made if it is not there.

    Whatever says the same of model, tasks and warm start, and has the same seed, shares it, whichever its algorithm.
    Other processes that want it wait. A training that was killed goes on.

    Args:
        setup: the run.
        message: receives lines for the user.
        progress_bar: whether to show them.

    Raises:
        ValueError: if the model cannot be had, or the expert does not win its games.
    """
    home = folder_of(setup)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home, wait=True):
        if not (home / _MODEL).is_dir():
            message(f"warm start of {setup.config.policy}, seed {setup.config.seed} → {home}")
            _make(setup, home, progress_bar)
    return home / _MODEL


def folder_of(setup: TextRun) -> Path:
    """Return where a run's warm start is kept: below the user's cache directory."""
    identity = json.dumps(setup.identity() | {"versions": _versions()}, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_directory() / "warm_starts" / f"{Path(setup.config.policy).name}-seed_{setup.config.seed}-{digest}"


def _make(setup: TextRun, home: Path, progress_bar: bool) -> None:
    config, settings = setup.config, setup.warm_start
    setup.tasks.prepare("train", progress_bar=progress_bar)
    games = setup.tasks.ids("train")[: settings.games]
    episodes = play_oracle(setup.tasks, games, progress_bar=progress_bar) if settings.steps or _is_made(setup) else []
    tokenizer: PreTrainedTokenizerBase = (
        train_tokenizer(oracle_texts(episodes), settings.vocab_size)
        if _is_made(setup)
        else load_tokenizer(config.policy)
    )
    model = make_model(config.policy, tokenizer, seed=config.seed)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    losses: list[float] = []
    checkpoint = home / "fine_tuning.pt"
    if settings.steps:
        losses = fine_tune(
            model,
            oracle_traces(episodes, tokenizer),
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=config.seed,
            progress_bar=progress_bar,
            checkpoint=checkpoint,
        )
    made = home / ".making"
    shutil.rmtree(made, ignore_errors=True)  # what a killed process left
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    note = setup.identity() | {"versions": _versions(), "parameters": count_parameters(model), "losses": losses}
    (made / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
    os.replace(made, home / _MODEL)
    checkpoint.unlink(missing_ok=True)


def read_note(model: Path) -> dict[str, Any]:
    """Return what is written beside a warm start: how it was made, its parameters, the loss of each step."""
    found: dict[str, Any] = json.loads((model / _NOTE).read_text(encoding="utf-8"))
    return found


def _is_made(setup: TextRun) -> bool:
    return setup.config.policy in SIZES


def _versions() -> dict[str, str]:
    """Return versions on which games and models depend."""
    found = {}
    for package in ("textworld", "scienceworld", "reasoning-gym", "transformers", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
