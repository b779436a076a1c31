"""``maxent-onpolicy llm``: language models that learn on tasks of text."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.output import make_console
from maxent_onpolicy.cli.parse import Flag, option, parse_options, read_assignments
from maxent_onpolicy.cli.plan import PlannedRun, discard_run, plan_run, preparation
from maxent_onpolicy.cli.suite import find_suite, load_suite
from maxent_onpolicy.cli.values import UsageError, merge
from maxent_onpolicy.env_ids import is_text
from maxent_onpolicy.evaluation.provenance import collect_provenance
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError, run_path
from maxent_onpolicy.validation import did_you_mean

HELP = """Language models that learn on tasks of text, one step at a time.

usage: maxent-onpolicy llm COMMAND --suite SUITE [OPTIONS]

  sft       warm start: teach a model an expert's commands
  train     train a model by reinforcement, from its warm start
  evaluate  let a model play games that it has not seen

  maxent-onpolicy llm sft --suite textworld-mini
  maxent-onpolicy llm train --suite textworld-mini --algorithm "MaxEnt GRPO"
  maxent-onpolicy llm evaluate --suite textworld-mini \\
      --algorithm "MaxEnt GRPO" --show 1

Games, model and tokenizer are made here, and nothing is downloaded, unless
--model names a model on the Hub. `maxent-onpolicy bench SUITE` trains all
algorithms of a suite with all seeds; `llm COMMAND --help` says more.

Needs the extra llm: pip install 'maxent-onpolicy[llm]'.
"""
_SFT = """Make a run's warm start: a tokenizer and a model that knows an expert's commands.

It is kept in the cache directory, and every run with the same model, tasks,
settings and seed starts from it. Interrupted, the same command goes on.

  maxent-onpolicy llm sft --suite textworld-mini --seed 10
  maxent-onpolicy llm sft --suite textworld-mini --set warm_start.steps=900
  maxent-onpolicy llm sft --suite textworld-mini --model small
"""
_TRAIN = """Train a model with one of a suite's algorithms. Interrupted, the same command
goes on.

  maxent-onpolicy llm train --suite textworld-mini --algorithm GRPO
  maxent-onpolicy llm train --suite textworld-mini --algorithm "MaxEnt GRPO" \\
      --set tau=0.2 --results my_results
  maxent-onpolicy llm train --suite textworld-mini --algorithm GRPO \\
      --set "methods=[clip_cov, {name: epo, coef: 0.01}]"
"""
_EVALUATE = """Let a trained model, or a warm start, play games; by default those of the test
split, which are in no training.

  maxent-onpolicy llm evaluate --suite textworld-mini --algorithm GRPO
  maxent-onpolicy llm evaluate --suite textworld-mini --warm-start --show 2
  maxent-onpolicy llm evaluate --run my_results/textworld-mini/runs/GRPO/...
"""
_FAILURE, _MISUSE = 1, 2


@dataclass(frozen=True)
class SuiteOptions:
    """Which run of a suite is meant.

    Attributes:
        suite: name of a suite, or path of a YAML file
        algorithm: label of one of its algorithms
        env: one of its sets of tasks
        seed: of the training
        model: tiny, small, base, a folder, or a name on the Hub, in place of the suite's
        set: hyperparameter, such as tau=0.2 or warm_start.steps=900; repeat for more
        results: folder of all results
    """

    suite: Annotated[str | None, option("SUITE")] = None
    algorithm: Annotated[str | None, option("LABEL", "the first")] = None
    env: Annotated[str | None, option("ID", "the first")] = None
    seed: Annotated[int | None, option("N", "the first")] = None
    model: Annotated[str | None, option("MODEL", "the suite's")] = None
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("KEY=VALUE")] = ()
    results: Annotated[Path, option("DIR", "results")] = Path("results")


@dataclass(frozen=True)
class SftOptions(SuiteOptions):
    """Options of ``maxent-onpolicy llm sft``.

    Attributes:
        episodes: of each kind that the model then plays, to see how good it is; 0 for none
    """

    episodes: Annotated[int, option("N", "32")] = 32


@dataclass(frozen=True)
class TrainOptions(SuiteOptions):
    """Options of ``maxent-onpolicy llm train``.

    Attributes:
        timesteps: episodes to train for, in place of the suite's
        restart: discard the run that is there already
        checkpoint_seconds: wall time between checkpoints
        no_model: do not keep the trained model
        threads: torch's threads
    """

    timesteps: Annotated[int | None, option("N", "the suite's")] = None
    restart: Flag = False
    checkpoint_seconds: Annotated[float, option("SECONDS", "60")] = 60.0
    no_model: Flag = False
    threads: Annotated[int | None, option("N", "1")] = None


@dataclass(frozen=True)
class EvaluateOptions(SuiteOptions):
    """Options of ``maxent-onpolicy llm evaluate``.

    Attributes:
        run: a run's directory, in place of a suite and what of it
        warm_start: play with the warm start, not with what was trained
        split: train, validation or test
        episodes: how many, in each mode; each game once before one is played again
        modes: deterministic (the likeliest command), stochastic, or both
        sampling_seed: of the episodes
        show: how many of them to print
    """

    run: Annotated[Path | None, option("RUN_DIR")] = None
    warm_start: Flag = False
    split: Annotated[str, option("SPLIT", "test")] = "test"
    episodes: Annotated[int, option("N", "64")] = 64
    modes: Annotated[tuple[str, ...], option("MODE [MODE ...]", "both")] = ()
    sampling_seed: Annotated[int, option("N", "20000")] = 20_000
    show: Annotated[int, option("N", "0")] = 0


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status.

    Raises:
        UsageError: for anything that the command line, the suite or a run directory does not allow.
    """
    commands = {"sft": _sft, "train": _train, "evaluate": _evaluate}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else _MISUSE
    name, *rest = arguments
    if name not in commands:
        raise UsageError(f"unknown command llm {name!r}{did_you_mean(name, commands)}; see maxent-onpolicy llm --help")
    try:
        return commands[name](rest)
    except ImportError as error:
        raise UsageError(str(error)) from error


def find_config(options: SuiteOptions, timesteps: int | None = None) -> RunConfig:
    """Return the run of a suite that options mean.

    Raises:
        UsageError: if there is no such suite, or nothing of that name in it.
    """
    if options.suite is None:
        raise UsageError("--suite says which suite, such as textworld-mini")
    seeds = () if options.seed is None else (options.seed,)
    suite = load_suite(find_suite(options.suite), seeds=seeds, timesteps=timesteps)
    runs = [run for run in suite.runs if is_text(run.env_id)]
    if not runs:
        raise UsageError(f"--suite {options.suite}: it has no tasks of text")
    env_id = _chosen("--env", options.env, [run.env_id for run in runs])
    runs = [run for run in runs if run.env_id == env_id]
    label = _chosen("--algorithm", options.algorithm, [run.label for run in runs])
    config = next(run for run in runs if run.label == label)
    if options.model is not None:
        config = replace(config, policy=options.model)
    given = read_assignments(options.set, "--set")
    return replace(config, hyperparameters=merge(config.hyperparameters, given))


def _chosen(name: str, given: str | None, there: list[str]) -> str:
    if given is not None and given not in there:
        known = list(dict.fromkeys(there))
        raise UsageError(f"{name}: the suite has no {given!r}{did_you_mean(given, known)}; it has {', '.join(known)}")
    return given or there[0]


def _checked(config: RunConfig, options: SuiteOptions) -> RunConfig:
    from maxent_onpolicy.cli.build import check_runs

    check_runs([config], str(options.suite))
    return config


def _sft(arguments: list[str]) -> int:
    options = parse_options(SftOptions, "llm sft", _SFT, arguments)
    config = _checked(find_config(options), options)

    from maxent_onpolicy.cli.llm.evaluation import show_evaluation
    from maxent_onpolicy.cli.llm.settings import TextRun
    from maxent_onpolicy.cli.llm.training import quiet
    from maxent_onpolicy.cli.llm.warm_start import read_note, warm_start

    console, setup = make_console(), TextRun.of(config)
    quiet()
    folder = warm_start(setup, lambda text: console.print(Text(text), soft_wrap=True), sys.stderr.isatty())
    note = read_note(folder)
    last = f", loss {note['losses'][-1]:.3f} nats a token at the end" if note["losses"] else ""
    console.print(Text(f"{config.policy}: {note['parameters']:,} parameters, {len(note['losses'])} steps{last}"))
    console.print(Text(f"model: {folder}"), soft_wrap=True)
    if options.episodes:
        show_evaluation(console, setup, folder, ("train", "test"), options.episodes)
    return 0


def _train(arguments: list[str]) -> int:
    options = parse_options(TrainOptions, "llm train", _TRAIN, arguments)
    config = _checked(find_config(options, options.timesteps), options)

    from maxent_onpolicy.cli import train

    planned = plan_run(config, options.results / config.suite)
    if options.restart and planned.path.exists():
        discard_run(planned.path)
        planned = replace(planned, action="start", detail="")
    shared = train.TrainOptions(
        checkpoint_seconds=options.checkpoint_seconds, no_model=options.no_model, threads=options.threads
    )
    return train.run_to_its_end(_opened(planned, options.threads or 1), shared)


def _opened(planned: PlannedRun, threads: int) -> RunDirectory:
    """Return the run's directory: a new one, or the one in which the same run was interrupted."""
    path, detail = planned.path, planned.detail
    refused = {
        "corrupt": f"a run that cannot be read ({detail}); --restart discards it",
        "conflict": f"a run with other settings ({detail}); --restart discards it, --results DIR keeps both",
        "skip": "this run, completed; --restart discards it, --seed N makes another",
    }
    if planned.action in refused:
        raise UsageError(f"{path} holds {refused[planned.action]}")
    return preparation(planned, collect_provenance(threads=threads), restart=False)()


def _evaluate(arguments: list[str]) -> int:
    options = parse_options(EvaluateOptions, "llm evaluate", _EVALUATE, arguments)
    if (options.run is None) == (options.suite is None):
        raise UsageError("either --run RUN_DIR or --suite SUITE says what is to play")
    if options.run is None:
        config = _checked(find_config(options), options)
        path = run_path(options.results / config.suite, config.label, config.env_id, config.seed)
    else:
        path = options.run
        config = read_config(path)

    from maxent_onpolicy.cli.llm.evaluation import evaluate_run

    evaluate_run(
        make_console(),
        config,
        path,
        (options.split,),
        options.episodes,
        options.sampling_seed,
        modes=options.modes,
        show=options.show,
        start_only=options.warm_start,
    )
    return 0


def read_config(path: Path) -> RunConfig:
    """Return the settings of a run.

    Raises:
        UsageError: if there is no run, or it is not one of a language model.
    """
    try:
        config = RunConfig.from_json(RunDirectory(path).config)
    except RunError as error:
        raise UsageError(str(error)) from None
    if not is_text(config.env_id):
        raise UsageError(f"{path} is no run of a language model; see maxent-onpolicy evaluate")
    return config
