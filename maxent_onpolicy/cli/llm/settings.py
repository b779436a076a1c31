"""What a run with a language model is: its tasks, its episodes, its warm start, and TRL's trainer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from maxent_onpolicy.cli.config import ENVIRONMENT_DEFAULTS, SETTING_DEFAULTS, RunConfig
from maxent_onpolicy.cli.ranks import rank_and_size
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.env_ids import TEXT, is_text
from maxent_onpolicy.llm.environments import TaskSet, make_tasks
from maxent_onpolicy.llm.methods import compose
from maxent_onpolicy.llm.model import SIZES
from maxent_onpolicy.llm.rollout import RolloutSettings
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig
from maxent_onpolicy.validation import check_choice, check_integer, check_range, did_you_mean

# What may follow the name of a set of tasks and a colon.
_WHICH = {"reasoning_gym": "dataset", "scienceworld": "names"}
# Without it passes are faster; transformers 5 renamed it.
_NAMES = {each.name for each in fields(EntropyAdvantageGRPOConfig)}
_CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _NAMES else "gradient_checkpointing"
_EPISODES = ("max_turns", "max_turn_tokens", "max_tokens")


@dataclass(frozen=True)
class WarmStart:
    """How a model is taught an expert's commands before it is trained.

    Attributes:
        steps: of the optimiser; 0 leaves the model as it is.
        batch_size: episodes a step.
        learning_rate: the highest.
        games: how many of the training games it is taught, the first of them, and the training by reinforcement has the
            others; if not given, both have all.
        vocab_size: of the tokenizer, for a model that is made here.

    Raises:
        ValueError: if a number is out of its range.
    """

    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-3
    games: int | None = None
    vocab_size: int = 1024

    def __post_init__(self) -> None:
        check_integer("warm_start.steps", self.steps, 0)
        for name in ("batch_size", "vocab_size"):
            check_integer(f"warm_start.{name}", getattr(self, name), 1)
        check_range("warm_start.learning_rate", self.learning_rate, 0.0, low_open=True)
        if self.games is not None:
            check_integer("warm_start.games", self.games, 1)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "WarmStart":
        """Read what a run says; what it does not say is as by default.

        Raises:
            ValueError: if a name is unknown, with the closest, or a number out of its range.
        """
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise ValueError(f"`warm_start` has no {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}")
        return cls(**given)


@dataclass
class GRPOSettings(EntropyAdvantageGRPOConfig):  # type: ignore[misc, unused-ignore]
    """Settings of GRPO: those of TRL's ``GRPOConfig``, of the entropy advantage, and of the warm start.

    Attributes:
        warm_start: steps, batch_size, learning_rate, games and vocab_size of the training on an expert's commands
            before; steps 0 for none.
    """

    warm_start: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        WarmStart.read(self.warm_start)
        super().__post_init__()


@dataclass(frozen=True)
class TextRun:
    """A run's settings, as what they stand for.

    Attributes:
        config: the run.
        tasks: the games.
        episodes: how they are played.
        warm_start: what comes before.
        updates: of the optimiser for each batch of episodes.
    """

    config: RunConfig
    tasks: TaskSet
    episodes: RolloutSettings
    warm_start: WarmStart
    updates: int

    @classmethod
    def of(cls, config: RunConfig) -> "TextRun":
        """Read a run's settings.

        Raises:
            ImportError: if a package is not installed.
            ValueError: if one of them is unknown, out of range, or means nothing here.
        """
        _refuse_what_means_nothing(config)
        kwargs = dict(config.environment["kwargs"])
        episodes = {name: kwargs.pop(name) for name in _EPISODES if name in kwargs}
        kwargs.pop("split", None)
        name, colon, which = config.env_id.partition(":")
        if colon and name not in _WHICH:
            raise ValueError(f"{name} takes nothing after a colon, got {config.env_id!r}")
        if colon:
            kwargs[_WHICH[name]] = which
        warm_start = WarmStart.read(config.hyperparameters.get("warm_start", {}))
        _refuse_misspelt(config.policy)
        tasks = make_tasks(name, **kwargs)
        for split in {"train", *_splits(config)}:
            if not tasks.ids(split):
                raise ValueError(f"`{split}` must be at least 1: there is no game to play, got 0")
        if warm_start.games is not None:
            check_range("warm_start.games", warm_start.games, 1, len(tasks.ids("train")) - 1)
        arguments = trainer_arguments(config, Path("."))
        compose(arguments.methods)
        count = int(arguments.steps_per_generation or 1) * arguments.num_iterations
        if count % arguments.gradient_accumulation_steps:
            raise ValueError(
                f"`gradient_accumulation_steps` must divide the {count} steps for each batch of episodes (n_envs / "
                f"per_device_train_batch_size x num_iterations), got {arguments.gradient_accumulation_steps}"
            )
        settings = RolloutSettings(**episodes, temperature=arguments.temperature, batch_size=config.n_envs)
        return cls(config, tasks, settings, warm_start, count // arguments.gradient_accumulation_steps)

    def splits(self) -> dict[str, str]:
        """Return which of the tasks' splits are evaluated, by the name they have in the run's files."""
        return dict(zip(("train", "test"), _splits(self.config), strict=False))

    def split(self, name: str) -> tuple[str, ...]:
        """Return the games of a split; of the training's, those that were not taught before."""
        return self.tasks.ids(name)[(self.warm_start.games or 0) if name == "train" else 0 :]

    def games(self, split: str, count: int) -> list[str]:
        """Return ``count`` games of a split, its first; if it has fewer, all of them several times."""
        ids = self.split(split)
        return [ids[number % len(ids)] for number in range(count)]

    def arguments(self, folder: Path) -> GRPOSettings:
        """Return what TRL's trainer is told.

        Args:
            folder: where it may write.
        """
        batches = -(-self.config.total_timesteps // self.config.n_envs)
        return trainer_arguments(
            self.config, folder, max_steps=batches * self.updates, max_completion_length=self.episodes.max_tokens
        )

    def identity(self) -> dict[str, Any]:
        """Return all that its warm start depends on."""
        kwargs = {
            key: value for key, value in self.config.environment["kwargs"].items()
            if key not in ("split", "validation", "test", "folder", *_EPISODES)
        }  # fmt: skip
        given = {"model": self.config.policy, "tasks": self.config.env_id, "kwargs": kwargs}
        return given | {"warm_start": asdict(self.warm_start), "seed": self.config.seed}


def trainer_arguments(config: RunConfig, folder: Path, **more: Any) -> GRPOSettings:
    """Return the trainer's settings: the run's, and what they leave open.

    Raises:
        ValueError: if one is out of range, or they do not fit together.
    """
    on_gpu = torch.cuda.is_available()
    given = dict(config.hyperparameters)
    size = check_integer(
        "per_device_train_batch_size", given.setdefault("per_device_train_batch_size", config.n_envs), 1
    )
    if config.n_envs % size:
        raise ValueError(f"`per_device_train_batch_size` must divide n_envs, {config.n_envs}; got {size}")
    defaults: dict[str, Any] = {
        "beta": 0.0,
        "bf16": on_gpu,
        "gradient_accumulation_steps": config.n_envs // size,
        _CHECKPOINTING: False,
        "lr_scheduler_type": "constant",
        "use_cpu": not on_gpu,
    }
    decided: dict[str, Any] = {
        "disable_tqdm": True,
        "generation_batch_size": config.n_envs,
        "logging_steps": 1,
        "output_dir": str(folder),
        "report_to": "none",
        "save_strategy": "no",
        "seed": config.seed,
    }
    return GRPOSettings(**(defaults | given | decided | more))


def check_run(config: RunConfig, place: str) -> None:
    """Read a run's settings, so that what cannot work fails before anything runs.

    Raises:
        UsageError: naming the place, and what is wrong.
    """
    try:
        TextRun.of(config)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UsageError(f"{place}: {error}") from error


def _splits(config: RunConfig) -> tuple[str, ...]:
    """Return the tasks' splits in which a run is evaluated: the training's, and the test's if it has one."""
    trained = config.environment["kwargs"].get("split", "train")
    test = config.evaluation.get("test_kwargs")
    if test is None:
        return (trained,)
    if set(test) != {"split"}:
        raise ValueError(f"`test_kwargs` must be a split of the tasks, such as {{split: test}}; got {test!r}")
    return (trained, test["split"])


def _refuse_misspelt(model: str) -> None:
    """Refuse what is nearly one of our sizes before it is asked for on the Hub, which takes a minute without a net."""
    close = did_you_mean(model, SIZES)
    if model not in SIZES and close and "/" not in model and not Path(model).exists():
        raise ValueError(f"`policy` must be {', '.join(SIZES)}, a folder or a name on the Hub; got {model!r}{close}")


def _refuse_what_means_nothing(config: RunConfig) -> None:
    if rank_and_size()[1] > 1:
        raise ValueError(
            f"{config.env_id}: torchrun cannot share this command; start a script that makes an "
            "EntropyAdvantageGRPOTrainer with `accelerate launch`"
        )
    if not is_text(config.env_id):
        raise ValueError(f"{config.algorithm} learns on tasks of text ({', '.join(TEXT)}), got {config.env_id!r}")
    check_choice(f"algorithm of {config.env_id}", config.algorithm, ("GRPO",))
    if config.backend != SETTING_DEFAULTS["backend"]:
        raise ValueError(f"`backend` means nothing for tasks of text, got {config.backend!r}")
    for name, default in ENVIRONMENT_DEFAULTS.items():
        if name != "kwargs" and config.environment[name] != default:
            raise ValueError(f"`{name}` means nothing for tasks of text, got {config.environment[name]!r}")
