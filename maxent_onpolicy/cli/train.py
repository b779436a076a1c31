"""``maxent-onpolicy train``: one run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig, check_settings, differences, make_config
from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.parse import Flag, option, parse_options, read_assignments, split_hyperparameters
from maxent_onpolicy.cli.plan import discard_run
from maxent_onpolicy.cli.ranks import MistakeOfRank0, end_with_torchrun, follow, leave, open_together, rank_and_size
from maxent_onpolicy.cli.registry import (
    describe_hyperparameters,
    find_algorithm,
    hyperparameters,
    load_class,
    written_value,
)
from maxent_onpolicy.cli.tracking import read_tracking
from maxent_onpolicy.cli.values import UsageError, check_checkpoint_seconds, check_mapping, merge, read_yaml, set_path
from maxent_onpolicy.evaluation.provenance import collect_provenance
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError, run_path
from maxent_onpolicy.validation import did_you_mean

DESCRIPTION = """Train one algorithm in one environment.

Every keyword of the algorithm is an option: see `train ALGORITHM --help`.

  maxent-onpolicy train PPO CartPole-v1 --learning-rate linear:3e-4:0
  maxent-onpolicy train MaxEntPPO HalfCheetah-v5 --timesteps 1_000_000 \\
      --n-envs 8 --normalize-observation --tau 0.02
  maxent-onpolicy train MaxEntPPO Hopper-v5 --set policy_kwargs.net_arch=[64,64]
  maxent-onpolicy train PPO CartPole-v1 --controllers kl_adaptive_lr
  maxent-onpolicy train PPO CartPole-v1 --set controllers.ppo_br.window=5
  maxent-onpolicy train --config RUN_DIR/config.json --seed 7
  maxent-onpolicy train --resume RUN_DIR
  maxent-onpolicy train PPO CartPole-v1 --tracker wandb --project my-project

Controllers adapt an update while training; `list controllers` shows them.
A run is a directory: config, provenance, train.csv, eval.csv, status, model,
and TensorBoard's files: tensorboard --logdir results.
Ctrl-C stops after the current iteration, and --resume goes on from there.

Several processes train one run, with its environments divided among them:

  torchrun --nproc-per-node=2 -m maxent_onpolicy train PPO Humanoid-v5 \\
      --n-envs 16
"""
_MISUSE, _INTERRUPTED = 2, 130
_IDENTITY = ("suite", "label", "algorithm", "env_id", "seed")


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``maxent-onpolicy train``.

    Attributes:
        algorithm: `maxent-onpolicy list algorithms` shows which there are
        env_id: a Gymnasium id, or procgen: or openspiel: and a game
        timesteps: environment steps, over all environments
        seed: of the training
        n_envs: parallel environments
        normalize_observation: scale observations by their running mean and deviation
        normalize_reward: scale rewards by the running deviation of the return
        discretize_bins: choices per dimension that replace continuous actions
        env_kwarg: argument of the environment, such as ctrl_cost_weight=0.5; repeat for more
        backend: how environments are stepped
        policy: MlpPolicy, CnnPolicy, MultiInputPolicy, ImpalaPolicy, MiniGridCnnPolicy or MaskedMlpPolicy
        set: hyperparameter, also inside another: policy_kwargs.log_std_init=-1; repeat for more
        config: YAML file of settings as in a suite, or a run's config.json; options here override it
        eval_every: timesteps between evaluations
        eval_episodes: episodes of an evaluation, in each mode
        eval_mode: deterministic or stochastic; repeat for both
        test_kwarg: argument of the environment of a test distribution, such as num_levels=0; repeat for more
        label: name of these settings in tables
        suite: name of the group of runs it belongs to
        results: folder of all results
        resume: go on with the unfinished run in this directory, with its settings
        restart: discard the run that is there already
        tracker: also track the run in wandb, mlflow or trackio; repeat for more
        project: the project's name there
        no_tensorboard: write no TensorBoard files
        checkpoint_seconds: wall time between checkpoints
        no_model: do not keep the trained model
        threads: torch's threads; for small networks one is fastest
    """

    algorithm: Annotated[tyro.conf.Positional[str], option("ALGORITHM")] = ""
    env_id: Annotated[tyro.conf.Positional[str], option("ENVIRONMENT")] = ""
    timesteps: Annotated[int | None, option("N", "100000")] = None
    seed: Annotated[int | None, option("N", "0")] = None
    n_envs: Annotated[int | None, option("N", "1")] = None
    normalize_observation: Flag = False
    normalize_reward: Flag = False
    discretize_bins: Annotated[int | None, option("N")] = None
    env_kwarg: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("KEY=VALUE")] = ()
    backend: Annotated[str | None, option("NAME", "auto")] = None
    policy: Annotated[str | None, option("NAME", "MlpPolicy, for self-play MaskedMlpPolicy")] = None
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("KEY=VALUE")] = ()
    config: Annotated[Path | None, option("FILE")] = None
    eval_every: Annotated[int | None, option("N", "a tenth of the training")] = None
    eval_episodes: Annotated[int | None, option("N", "10")] = None
    eval_mode: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("MODE", "both")] = ()
    test_kwarg: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("KEY=VALUE")] = ()
    label: Annotated[str | None, option("NAME", "the algorithm")] = None
    suite: Annotated[str, option("NAME", "local")] = "local"
    results: Annotated[Path, option("DIR", "results")] = Path("results")
    resume: Annotated[Path | None, option("RUN_DIR")] = None
    restart: Flag = False
    tracker: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("NAME")] = ()
    project: Annotated[str | None, option("NAME", "maxent-onpolicy")] = None
    no_tensorboard: Flag = False
    checkpoint_seconds: Annotated[float, option("SECONDS", "60")] = 60.0
    no_model: Flag = False
    threads: Annotated[int | None, option("N", "1")] = None


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status: 0, or 130 if it was interrupted.

    Raises:
        UsageError: for anything that the command line, a file in it or the run directory does not allow.
    """
    options, written = _parse(arguments)
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads must be at least 1, got {options.threads}")
    check_checkpoint_seconds(options.checkpoint_seconds)
    read_tracking(options.tracker, options.project, options.no_tensorboard)  # a mistake is told before anything is made
    if rank_and_size()[1] > 1:
        return _train_together(options, written)
    return run_to_its_end(_open(options, written), options)


def _train_together(options: TrainOptions, written: Mapping[str, Any]) -> int:
    from maxent_onpolicy.cli.runner import Stopped

    end_with_torchrun()
    status = 0
    try:
        run, goes_on = open_together(lambda: _open(options, written))
        if rank_and_size()[0] == 0:
            status = run_to_its_end(run, options)
        else:
            follow(run, goes_on, _threads(run, options))
    except UsageError:
        leave()  # a process that ends without parting is aborted
        raise
    except MistakeOfRank0:
        status = _MISUSE
    except Stopped:
        status = _INTERRUPTED
    leave()
    return status


def _threads(run: RunDirectory, options: TrainOptions) -> int:
    """Return how many threads to compute with: sums over another number of them would differ in the last digit."""
    return options.threads or (run.provenance.get("threads") if options.resume else None) or 1


def _open(options: TrainOptions, written: Mapping[str, Any]) -> RunDirectory:
    if options.resume is not None:
        return _resumed(options.resume, options, written)
    return _new_run(make_run_config(options, written), options)


def run_to_its_end(run: RunDirectory, options: TrainOptions) -> int:
    """Train a run from where it is, and show how far it is; return the exit status.

    Args:
        run: its directory.
        options: of the command; those that say what is run do not count any more.
    """
    console = make_console()

    from maxent_onpolicy.cli.progress import TrainingProgress
    from maxent_onpolicy.cli.runner import Stopped, execute

    console.print(Text(f"{RunConfig.from_json(run.config).name} → {run.path}"), soft_wrap=True)
    try:
        with TrainingProgress(console, int(run.config["total_timesteps"])) as progress:
            execute(
                run,
                reporter=progress.reporter,
                checkpoint_seconds=options.checkpoint_seconds,
                keep_model=not options.no_model,
                threads=_threads(run, options),
                # torchrun repeats the signals that the terminal has sent already
                insist=rank_and_size()[1] == 1,
                tracking=read_tracking(options.tracker, options.project, options.no_tensorboard),
            )
    except Stopped:
        console.print(Text(f"interrupted; go on with: maxent-onpolicy train --resume {run.path}"), soft_wrap=True)
        return _INTERRUPTED
    kept = "" if options.no_model else f"; model in {run.model}"
    console.print(Text(f"completed{kept}"), soft_wrap=True)
    return 0


def make_run_config(options: TrainOptions, written: Mapping[str, Any]) -> RunConfig:
    """Put together what the file, the options and the hyperparameters say.

    Args:
        options: the command's own options.
        written: hyperparameters written as options of their own.

    Raises:
        UsageError: naming what is unknown, missing or not allowed.
    """
    base, who = _read_config(options.config)
    algorithm = options.algorithm or who.get("algorithm", "")
    env_id = options.env_id or who.get("env_id", "")
    if not algorithm or not env_id:
        missing = "an algorithm" if not algorithm else "an environment"
        raise UsageError(f"train needs {missing}: maxent-onpolicy train ALGORITHM ENVIRONMENT")
    name = find_algorithm(str(algorithm)).name
    given = merge(read_assignments(options.set, "--set"), written)
    _check_names(name, given)
    settings = merge(base, _settings(options))
    settings = merge(settings, {"hyperparameters": given})
    settings.setdefault("total_timesteps", 100_000)
    # the evaluations of a config.json carry the seed of their run already
    seed = options.seed if options.seed is not None else int(who.get("seed", 0))
    if who and "seed" in settings.get("evaluation", {}):
        settings["evaluation"]["seed"] -= int(who.get("seed", 0))
    label = options.label or (str(who["label"]) if "label" in who and not options.algorithm else name)
    place = str(options.config) if options.config else "command line"
    return make_config(settings, place, suite=options.suite, label=label, algorithm=name, env_id=env_id, seed=seed)


def _parse(arguments: list[str]) -> tuple[TrainOptions, dict[str, Any]]:
    names = {item.name for item in fields(TrainOptions) if item.name not in ("algorithm", "env_id")}
    rest, written = split_hyperparameters(arguments, names)
    if not {"-h", "--help"} & set(rest):
        return parse_options(TrainOptions, "train", DESCRIPTION, rest), written
    try:
        # alone, for an algorithm that is named already would be missing from the usage
        return parse_options(TrainOptions, "train", DESCRIPTION, ["--help"]), written
    finally:
        named = [argument for argument in rest if not argument.startswith("-")]
        show_hyperparameters(make_console(), named[0] if named else None)


def show_hyperparameters(console: Console, algorithm: str | None) -> None:
    """Print the keywords of an algorithm with their defaults; without one, how to see them."""
    if algorithm is None:
        console.print(Text("Hyperparameters of an algorithm: maxent-onpolicy train ALGORITHM --help"))
        return
    cls = load_class(algorithm)
    texts = describe_hyperparameters(cls)
    title = f"hyperparameters of {find_algorithm(algorithm).name}"
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
    )
    table.add_column("option", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=17)
    table.add_column("meaning", overflow="fold")
    for name, parameter in hyperparameters(cls).items():
        table.add_row(_as_option(name), Text(written_value(parameter.default)), Text(texts.get(name, "")))
    console.print(table)


def _read_config(path: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a file, and which run it describes if it is a ``config.json``."""
    if path is None:
        return {}, {}
    content = check_mapping(read_yaml(path), str(path))
    who = {key: content.pop(key) for key in _IDENTITY if key in content}
    return check_settings(content, str(path)), who


def _settings(options: TrainOptions) -> dict[str, Any]:
    """Return the settings that were written as options."""
    settings: dict[str, Any] = {}
    places = {
        "total_timesteps": options.timesteps,
        "n_envs": options.n_envs,
        "backend": options.backend,
        "policy": options.policy,
        "environment.normalize_observation": options.normalize_observation or None,
        "environment.normalize_reward": options.normalize_reward or None,
        "environment.discretize_bins": options.discretize_bins,
        "environment.kwargs": read_assignments(options.env_kwarg, "--env-kwarg") or None,
        "evaluation.every": options.eval_every,
        "evaluation.episodes": options.eval_episodes,
        "evaluation.modes": list(options.eval_mode) or None,
        "evaluation.test_kwargs": read_assignments(options.test_kwarg, "--test-kwarg") or None,
    }
    for place, value in places.items():
        if value is not None:
            set_path(settings, place, value)
    return settings


def _check_names(algorithm: str, given: Mapping[str, Any]) -> None:
    known = hyperparameters(load_class(algorithm))
    options = [_as_option(name) for name in (*known, *(item.name for item in fields(TrainOptions)))]
    word = find_algorithm(algorithm).written
    for name in given:
        if name not in known:
            written = _as_option(name)
            hint = did_you_mean(written, options)
            raise UsageError(f"unknown option {written}{hint}; `maxent-onpolicy train {word} --help` lists all")


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _resumed(path: Path, options: TrainOptions, written: Mapping[str, Any]) -> RunDirectory:
    if written or options.algorithm or options.config or _settings(options) or options.seed is not None:
        raise UsageError("--resume takes all settings from the run; leave out the others")
    try:
        run = RunDirectory(path)
    except RunError as error:
        raise UsageError(f"{path} is no run that can be resumed: {error}") from None
    if run.completed:
        run.discard_checkpoint()
        raise UsageError(f"{path} is completed; there is nothing to resume")
    return run


def _new_run(config: RunConfig, options: TrainOptions) -> RunDirectory:
    from maxent_onpolicy.cli.build import check_runs

    check_runs([config], str(options.config) if options.config else "train")
    path = run_path(options.results / config.suite, config.label, config.env_id, config.seed)
    if path.exists() and options.restart:
        discard_run(path)
    elif path.exists() and any(path.iterdir()):
        raise UsageError(_occupied(path, config))
    try:
        return RunDirectory.create(path, config.to_json(), collect_provenance(threads=options.threads or 1))
    except OSError as error:
        raise UsageError(f"--results: cannot write the run directory {path}: {error.strerror}") from None


def _occupied(path: Path, config: RunConfig) -> str:
    """Say what is in the way, and what can be done about it."""
    try:
        run = RunDirectory(path)
    except RunError as error:
        return f"{path} holds a run that cannot be read ({error}); --restart discards it"
    changed = differences(run.config, config.to_json())
    if changed:
        listed = "; ".join(changed)
        return f"{path} holds a run with other settings ({listed}); --restart discards it, --label NAME keeps both"
    if run.completed:
        return f"{path} holds this run, completed; --restart discards it, --seed N makes another"
    return f"{path} holds this run, unfinished; go on with --resume {path}, or discard it with --restart"
