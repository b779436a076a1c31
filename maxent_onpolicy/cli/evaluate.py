"""``maxent-onpolicy evaluate``: play episodes with a trained model."""

import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig, has_test, make_config
from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.parse import Flag, option, parse_options
from maxent_onpolicy.cli.registry import find_algorithm, load_class
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.env_ids import is_text
from maxent_onpolicy.evaluation.modes import MODES, SPLITS, family
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError
from maxent_onpolicy.evaluation.tables import number
from maxent_onpolicy.validation import check_choice, check_integer

if TYPE_CHECKING:
    from maxent_onpolicy.evaluation.protocol import Episodes

DESCRIPTION = """Play episodes with a trained model, and show what they return in raw reward.

Environments are the run's own, with its normalisation statistics, frozen. A
run that has a test distribution (test_kwargs of its evaluation) is judged on
both, each in a row of its own; --split chooses one of them.

  maxent-onpolicy evaluate my_results/quick/runs/MaxEntPPO/Hopper-v5/seed_0
  maxent-onpolicy evaluate RUN_DIR --episodes 100 --modes deterministic
  maxent-onpolicy evaluate RUN_DIR --split test --episodes 100 --n-envs 25
  maxent-onpolicy evaluate RUN_DIR --video out.mp4 --video-episodes 3
  maxent-onpolicy evaluate my_model.zip --algorithm PPO --env CartPole-v1

  maxent-onpolicy evaluate Hopper-v5.zip --algorithm MaxEntPPO \\
      --env Hopper-v5 --normalization vecnormalize.pkl --trust-pickle

A model file may contain code that runs when it is read: open only files that
you trust.
"""


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of ``maxent-onpolicy evaluate``.

    Attributes:
        path: a run directory or a model file
        episodes: how many, in each mode
        seed: of the environments and the sampled actions
        modes: deterministic, stochastic or both
        split: train or test, where the run has both: the environments it was trained in, or the others
        n_envs: environments that share the episodes
        video: record the first row's first episodes in this .mp4 or .gif file; the results are the same
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
    modes: Annotated[tuple[str, ...], option("MODE [MODE ...]", "the run's, or both")] = ()
    split: Annotated[str | None, option("SPLIT", "both")] = None
    n_envs: Annotated[int | None, option("N", "the run's, or up to 8")] = None
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
    if is_text(config.env_id):
        return _evaluate_text(config, options)
    normalized = config.environment["normalize_observation"] or config.environment["normalize_reward"]
    if options.normalization is not None and not normalized:
        raise UsageError(f"--normalization: {options.path} was trained without normalisation; leave the option out")

    splits = _splits(config, options)
    if options.n_envs is not None and options.n_envs < 1:
        raise UsageError(f"--n-envs must be at least 1, got {options.n_envs}")

    from maxent_onpolicy.cli.build import device_of, make_evaluation_env, restored_normalization
    from maxent_onpolicy.evaluation.protocol import Episodes, evaluate_policy, evaluation_seed

    cls: Any = load_class(config.algorithm)
    modes = options.modes or tuple(config.evaluation.get("modes", MODES))
    results: dict[str, Episodes] = {}
    try:
        for mode in modes:
            check_choice("--modes", mode, MODES)
        model = cls.load(model_path, device=device_of(config))
        for split in splits:
            env = make_evaluation_env(config, options.episodes, split, options.n_envs)
            if normalization is not None:
                env = restored_normalization(env, normalization, config, options.trust_pickle)
            seed = evaluation_seed("test", options.seed) if split == "test" else options.seed
            with _recording(env, options, first=split == splits[0]) as recorded:
                found = evaluate_policy(model, recorded, options.episodes, seed, modes)
            env.close()
            results |= {family(mode, split) if has_test(config) else mode: played for mode, played in found.items()}
    except (ValueError, OSError, ImportError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{model_path}: {error}") from error
    _show(config, results, options.video)
    return 0


def _evaluate_text(config: RunConfig, options: EvaluateOptions) -> int:
    """Let a language model play; what only other environments have is refused."""
    if options.video is not None:
        raise UsageError(f"--video: there is nothing to see in {config.env_id}")
    from maxent_onpolicy.cli.llm.evaluation import evaluate_run

    splits = _splits(config, options)
    directory = options.path if options.path.is_dir() else options.path.parent
    evaluate_run(make_console(), config, directory, splits, options.episodes, options.seed, modes=options.modes)
    return 0


def _splits(config: RunConfig, options: EvaluateOptions) -> tuple[str, ...]:
    """Return on which distributions the model is to play."""
    if options.split is None:
        return ("train", "test") if has_test(config) else ("train",)
    if options.split not in SPLITS:
        raise UsageError(f"--split must be train or test, got {options.split!r}")
    if options.split == "test" and not has_test(config):
        raise UsageError(f"--split test: {config.name} has no test distribution (test_kwargs of its evaluation)")
    return (options.split,)


def _show(config: RunConfig, results: "Mapping[str, Episodes]", video: Path | None) -> None:
    """Print what the episodes came to, a row a mode."""
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
    if video is not None:
        console.print(Text(f"video: {video}"), soft_wrap=True)


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


def _recording(env: Any, options: EvaluateOptions, first: bool) -> AbstractContextManager[Any]:
    """Return the environments, recorded if that is asked for and they are the first that play."""
    if options.video is None or not first:
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
        model = path if path.is_file() else run.newest_model
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
