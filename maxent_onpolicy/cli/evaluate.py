"""``maxent-onpolicy evaluate``: play episodes with a trained model."""

import zipfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig, make_config
from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.parse import Flag, option, parse_options
from maxent_onpolicy.cli.registry import find_algorithm, load_class
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError
from maxent_onpolicy.evaluation.tables import number
from maxent_onpolicy.validation import check_choice, check_integer

DESCRIPTION = """Play episodes with a trained model, and show what they return in raw reward.

Environments are the run's own, with its normalisation statistics, frozen.

  maxent-onpolicy evaluate my_results/quick/runs/MaxEntPPO/Hopper-v5/seed_0
  maxent-onpolicy evaluate RUN_DIR --episodes 100 --modes deterministic
  maxent-onpolicy evaluate RUN_DIR --video out.mp4 --video-episodes 3
  maxent-onpolicy evaluate my_model.zip --algorithm PPO --env CartPole-v1

  maxent-onpolicy evaluate Hopper-v5.zip --algorithm MaxEntPPO \\
      --env Hopper-v5 --normalization vecnormalize.pkl --trust-pickle

A model file may contain code that runs when it is read: open only files that
you trust.
"""
_MODES = ("deterministic", "stochastic")


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of ``maxent-onpolicy evaluate``.

    Attributes:
        path: a run directory or a model file
        episodes: how many, in each mode
        seed: of the environments and the sampled actions
        modes: deterministic, stochastic or both
        video: record the first mode's first episodes in this .mp4 or .gif file; the results are the same
        video_episodes: how many of them
        video_length: steps of an episode to record at most
        algorithm: of a model file that lies in no run directory
        env: of a model file that lies in no run directory
        normalization: statistics saved by VecNormalize, for such a model file
        trust_pickle: read them from a pickle, as SB3 and its Zoo save them
    """

    path: Annotated[tyro.conf.Positional[Path], option("PATH")]
    episodes: Annotated[int, option("N", "20")] = 20
    seed: Annotated[int, option("N", "20000")] = 20_000
    modes: Annotated[tuple[str, ...], option("MODE [MODE ...]", "both")] = _MODES
    video: Annotated[Path | None, option("FILE")] = None
    video_episodes: Annotated[int, option("N", "1")] = 1
    video_length: Annotated[int | None, option("N", "all")] = None
    algorithm: Annotated[str | None, option("NAME")] = None
    env: Annotated[str | None, option("ID")] = None
    normalization: Annotated[Path | None, option("FILE")] = None
    trust_pickle: Flag = False


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status.

    Raises:
        UsageError: if there is no such model, or it is not said what it is.
    """
    options = parse_options(EvaluateOptions, "evaluate", DESCRIPTION, arguments)
    if options.normalization is not None and not options.normalization.is_file():
        raise UsageError(f"--normalization: there is no file {options.normalization}")
    _check_video(options)
    config, model_path, normalization = find_model(options)
    normalized = config.environment["normalize_observation"] or config.environment["normalize_reward"]
    if options.normalization is not None and not normalized:
        raise UsageError(f"--normalization: {options.path} was trained without normalisation; leave the option out")

    from maxent_onpolicy.cli.build import device_of, make_evaluation_env, restored_normalization
    from maxent_onpolicy.evaluation.protocol import evaluate_policy

    cls: Any = load_class(config.algorithm)
    try:
        for mode in options.modes:
            check_choice("--modes", mode, _MODES)
        env = make_evaluation_env(config, options.episodes)
        if normalization is not None:
            env = restored_normalization(env, normalization, config, options.trust_pickle)
        model = cls.load(model_path, device=device_of(config))
        with _recording(env, options) as env:
            results = evaluate_policy(model, env, options.episodes, options.seed, options.modes)
    except (ValueError, OSError, ImportError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{model_path}: {error}") from error
    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{config.label} on {config.env_id}", title_justify="left")
    table.add_column("mode")
    for name in ("episodes", "return", "± SD", "min", "max", "length"):
        table.add_column(name, justify="right", no_wrap=True)
    for mode, found in results.items():
        values = (found.returns.mean(), found.returns.std(), found.returns.min(), found.returns.max())
        cells = (mode, str(len(found.returns)), *map(number, map(float, values)), number(float(found.lengths.mean())))
        table.add_row(*map(Text, cells))
    console = make_console()
    console.print(table)
    if options.video is not None:
        console.print(Text(f"video: {options.video}"), soft_wrap=True)
    return 0


def _check_video(options: EvaluateOptions) -> None:
    """Refuse what cannot be recorded before anything is loaded or played."""
    if options.video is None:
        if options.video_episodes != 1 or options.video_length is not None:
            raise UsageError("--video-episodes and --video-length need --video FILE")
        return
    from maxent_onpolicy.video.files import check_video_path

    try:
        check_video_path("--video", options.video)
        check_integer("--video-episodes", options.video_episodes, 1)
        if options.video_length is not None:
            check_integer("--video-length", options.video_length, 1)
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from None
    if options.video_episodes > options.episodes:
        raise UsageError(
            f"--video-episodes must be at most --episodes, {options.episodes}; got {options.video_episodes}"
        )


def _recording(env: Any, options: EvaluateOptions) -> AbstractContextManager[Any]:
    """Return the environments, recorded if that is asked for."""
    if options.video is None:
        return nullcontext(env)
    from maxent_onpolicy.video.recorder import VideoRecorder

    count, length = options.video_episodes, options.video_length
    return VideoRecorder(env, options.video, count, played=options.episodes, length=length)


def find_model(options: EvaluateOptions) -> tuple[RunConfig, Path, Path | None]:
    """Return what the model is, where it is, and where its normalisation statistics are, if it has any.

    Raises:
        UsageError: if there is no such model, or it is not said what it is.
    """
    path = options.path
    if not path.exists():
        raise UsageError(f"there is no run directory and no model at {path}")
    directory = path if path.is_dir() else path.parent
    if path.is_dir() or (directory / "config.json").is_file():
        try:
            run = RunDirectory(directory)
            config = RunConfig.from_json(run.config)
        except RunError as error:
            raise UsageError(str(error)) from None
        model = path if path.is_file() else next((p for p in (run.model, run.checkpoint) if p.exists()), None)
        if model is None:
            raise UsageError(f"{path} keeps no model; train it without --no-model")
        statistics = run.normalization if run.normalization.exists() else None
        if options.env is not None:
            config = replace(config, env_id=options.env)
        return config, model, options.normalization or statistics
    if options.algorithm is None or options.env is None:
        raise UsageError(f"{path} lies in no run directory; say what it is with --algorithm and --env")
    normalize = {"environment": {"normalize_observation": options.normalization is not None}}
    name = find_algorithm(options.algorithm).name
    who = {"suite": "local", "label": name, "algorithm": name, "env_id": options.env, "seed": 0}
    return make_config({"total_timesteps": 1, **normalize}, "evaluate", **who), path, options.normalization  # type: ignore[arg-type]
