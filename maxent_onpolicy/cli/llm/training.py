"""One run of a language model, from its directory to its end, on TRL's trainer."""

import logging
import os
import shutil
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.logger import KVWriter
from transformers import PrinterCallback, TrainerCallback

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.llm.settings import TextRun
from maxent_onpolicy.cli.llm.warm_start import warm_start
from maxent_onpolicy.cli.runner import Attempt, Stopped
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.files import replacing
from maxent_onpolicy.evaluation.modes import MODES
from maxent_onpolicy.evaluation.protocol import Episodes, evaluation_seed, log_evaluation
from maxent_onpolicy.evaluation.runs import CsvLog
from maxent_onpolicy.llm.model import load_model
from maxent_onpolicy.llm.rollout import Episode, RolloutSettings, rollout
from maxent_onpolicy.llm.tokenizer import load_tokenizer
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOTrainer
from maxent_onpolicy.llm.trl.games import episode_reward, game_prompts, play_games

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What TRL calls it, and what all runs here call it.
_NAMES = {
    "reward": "rollout/ep_rew_mean",
    "entropy": "train/entropy",
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "entropy_critic/explained_variance": "train/entropy_explained_variance",
    "entropy_critic/loss": "train/entropy_value_loss",
    "entropy_advantage/mean": "train/entropy_advantage_mean",
    "entropy_advantage/std": "train/entropy_advantage_std",
    "clip_ratio/region_mean": "train/clip_fraction",
}
# Counted otherwise, or the same in every row.
_LEFT_OUT = ("epoch", "num_tokens", "step_time", "reward_std")
_EVALUATED_AT_A_TIME = 64


def train(attempt: Attempt) -> int:
    """Train a run to its end; see :func:`maxent_onpolicy.cli.runner.execute`.

    Returns:
        The episodes that were played.

    Raises:
        Stopped: if the run was asked to stop.
        UsageError: if the checkpoint cannot be read.
    """
    run = attempt.run
    config = RunConfig.from_json(run.config)
    setup = TextRun.of(config)
    quiet()
    with tempfile.TemporaryDirectory(dir=run.path, prefix=".trainer-") as name:
        folder = Path(name)
        resumed = unpacked(run.checkpoint, folder / "resumed") if run.checkpoint.exists() else None
        if resumed is None:
            attempt.clock.before = 0.0
        source = resumed or warm_start(setup, attempt.reporter.message)
        trainer = make_trainer(setup, source, folder)
        control = RunControl(attempt, setup, trainer)
        trainer.add_callback(control)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if control.timesteps < config.total_timesteps:
            raise Stopped
        if attempt.keep_model:
            pack_model(trainer, run.model, folder / "model")
    return control.timesteps


def make_trainer(setup: TextRun, source: Path, folder: Path) -> EntropyAdvantageGRPOTrainer:
    """Return the trainer of a run.

    Args:
        setup: the run.
        source: folder of model and tokenizer.
        folder: where the trainer may write.
    """
    tokenizer = load_tokenizer(source)
    trainer = EntropyAdvantageGRPOTrainer(
        load_model(source),
        episode_reward,
        args=setup.arguments(folder),
        train_dataset=game_prompts(setup.split("train")),
        processing_class=tokenizer,
        rollout_func=play_games(setup.tasks, setup.episodes, setup.config.seed),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def play(
    setup: TextRun,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    games: list[str],
    mode: str,
    seed: int,
    progress_bar: bool = False,
) -> list[Episode]:
    """Play games, by the likeliest tokens (``"deterministic"``) or sampled as in training (``"stochastic"``)."""
    temperature = 0.0 if mode == "deterministic" else setup.episodes.temperature
    episodes = setup.episodes
    settings = RolloutSettings(
        temperature, episodes.max_turns, episodes.max_turn_tokens, episodes.max_tokens, _EVALUATED_AT_A_TIME
    )
    return rollout(model, tokenizer, setup.tasks, games, settings, seed=seed, progress_bar=progress_bar)


def as_episodes(played: list[Episode]) -> Episodes:
    """Return what episodes came to: sums of rewards, and commands."""
    returns = np.array([sum(episode.rewards) for episode in played], dtype=np.float64)
    return Episodes(returns, np.array([len(episode.commands) for episode in played], dtype=np.int64))


class RunControl(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Evaluates, logs, writes checkpoints and stops, as every run does.

    Args:
        attempt: at the run.
        setup: its settings.
        trainer: at work.

    Attributes:
        timesteps: episodes played so far.
    """

    def __init__(self, attempt: Attempt, setup: TextRun, trainer: EntropyAdvantageGRPOTrainer) -> None:
        self.attempt, self.setup, self.trainer = attempt, setup, trainer
        self.timesteps = 0
        self._told: dict[str, list[float]] = {}
        self._saved = time.monotonic()
        self._evaluated = -1
        self._logs: list[CsvLog] = []
        self._outputs: list[KVWriter] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the logs where they ended, and evaluate the warm start."""
        self._count(state)
        *self._logs, self._outputs = self.attempt.open_logs(self.timesteps)
        self._evaluated = self.timesteps
        if self.timesteps == 0:
            self._evaluate()
        self.attempt.reporter.progress(self.timesteps, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Between two batches of episodes: evaluate if it is time for it, write a checkpoint, stop if asked."""
        if state.global_step % self.setup.updates:
            return
        self._count(state)
        every = self.setup.config.evaluation["every"]
        ended = state.global_step >= state.max_steps
        if ended or self.timesteps // every > self._evaluated // every:
            self._evaluate()
        asked = self.attempt.stop.requested
        if not ended and (asked or time.monotonic() - self._saved >= self.attempt.checkpoint_seconds):
            control.should_save = True
        if asked:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write what the trainer tells of all updates with a batch of episodes, as their mean."""
        if not logs or "train_runtime" in logs:
            return
        for name, value in logs.items():
            if name not in _LEFT_OUT and not name.startswith(("completions/", "rewards/")) and value is not None:
                self._told.setdefault(_NAMES.get(name, name), []).append(value)
        if state.global_step % self.setup.updates:
            return
        row = {name: fmean(values) for name, values in self._told.items()}
        self._told.clear()
        for output in self._outputs:
            output.write(row, dict.fromkeys(row, ()), self.timesteps)
        self.attempt.reporter.progress(self.timesteps, row.get(_NAMES["reward"]))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put what the trainer wrote into the run's checkpoint, whole or not at all."""
        run = self.attempt.run
        for log in self._logs:
            log.sync()
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        pack(folder, run.checkpoint)
        shutil.rmtree(folder)
        run.write_status("running", timesteps=self.timesteps, wall_seconds=round(self.attempt.clock(), 3))
        self._saved = time.monotonic()

    def _count(self, state: Any) -> None:
        self.timesteps = state.global_step // self.setup.updates * self.setup.config.n_envs

    def _evaluate(self) -> None:
        config, found = self.setup.config, {}
        modes = config.evaluation.get("modes", MODES)
        for name, split in self.setup.splits().items():
            games = self.setup.games(split, config.evaluation["episodes"])
            seed = evaluation_seed(name, config.evaluation["seed"], self.timesteps)
            model: Any = self.trainer.model
            tokenizer: Any = self.trainer.processing_class
            found[name] = {mode: as_episodes(play(self.setup, model, tokenizer, games, mode, seed)) for mode in modes}
        self._evaluated = self.timesteps
        results = log_evaluation(self._logs[1], self.timesteps, found)
        self.attempt.tracker.evaluated(self.timesteps, results)
        self.attempt.reporter.evaluated(self.timesteps, results)


def pack(folder: Path, path: Path) -> None:
    """Write the files of a folder into one, whole or not at all."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                file.write(each, each.relative_to(folder).as_posix())


def unpacked(path: Path, folder: Path) -> Path:
    """Write what :func:`pack` put together into ``folder``, and return it.

    Raises:
        UsageError: if the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            file.extractall(folder)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be loaded ({error}); `--restart` starts the run over") from error
    return folder


def pack_model(trainer: EntropyAdvantageGRPOTrainer, path: Path, folder: Path) -> None:
    """Write model and tokenizer, without what only a training needs."""
    tokenizer: Any = trainer.processing_class
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pack(folder, path)


def quiet() -> None:
    """Keep libraries from writing between a run's own lines."""
    import transformers

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("trl", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(trl|transformers|torch)\..*")
