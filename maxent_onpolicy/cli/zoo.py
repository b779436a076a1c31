"""``maxent-onpolicy zoo``: RL-Baselines3-Zoo's training, tuning and playing, with this package's algorithms."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from maxent_onpolicy.cli.registry import ALGORITHMS
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.validation import did_you_mean
from maxent_onpolicy.zoo.registration import SETTINGS, MissingZooError, register, settings_file, zoo_name

DESCRIPTION = """Train, tune and watch agents with RL-Baselines3-Zoo.

The Zoo's own commands, which also know this package's algorithms:

{names}
Train with this package's settings, which `--conf-file` replaces:

  maxent-onpolicy zoo train --algo maxent_ppo --env CartPole-v1
  maxent-onpolicy zoo train --algo maxent_ppo --env Hopper-v5 \\
      --n-timesteps 200000 --eval-freq 20000 -params tau:0.05

Copy an algorithm's settings to a file of your own, and edit them:

  maxent-onpolicy zoo settings maxent_ppo > my.yml
  maxent-onpolicy zoo train --env CartPole-v1 --conf-file my.yml

Play with the trained model, or with the best of its evaluations:

  maxent-onpolicy zoo enjoy --algo maxent_ppo --env CartPole-v1 --load-best
  maxent-onpolicy zoo enjoy --algo maxent_ppo --env CartPole-v1 --no-render

Tune with Optuna; tau, entropy_gamma and entropy_gae_lambda are searched too:

  maxent-onpolicy zoo train --algo maxent_ppo --env CartPole-v1 -optimize \\
      --n-trials 100 --n-timesteps 50000 --no-optim-plots

The Zoo's own algorithms (ppo, sac, ...) work as well. Logs go to logs/, and
`enjoy` looks there. It unpickles what it finds: play only what you trust.

`maxent-onpolicy zoo train --help` lists the Zoo's options.
"""
USAGE = "usage: maxent-onpolicy zoo {train,enjoy,settings} [OPTIONS]\n"
_COMMANDS = ("train", "enjoy", "settings")
_DEFAULTS = {"train": ["--algo", "maxent_ppo"], "enjoy": ["--algo", "maxent_ppo", "--folder", "logs"]}


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status.

    Raises:
        UsageError: if the Zoo is not installed, or cannot do what is asked.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n{_description()}", end="")
        raise SystemExit(0 if arguments else 2)
    command, *rest = arguments
    if command not in _COMMANDS:
        there_are = ", ".join(_COMMANDS)
        raise UsageError(f"zoo: unknown command {command!r}{did_you_mean(command, _COMMANDS)}; there are {there_are}")
    if command == "settings":
        return _show_settings(rest)
    try:
        register()
    except MissingZooError as error:
        raise UsageError(str(error)) from None
    if not {"-h", "--help"} & set(rest):
        _check_options(rest)
    run: Callable[[], None] = {"train": _train, "enjoy": _enjoy}[command]
    replaced = sys.argv
    sys.argv = [f"maxent-onpolicy zoo {command}", *_DEFAULTS[command], *rest]  # where the Zoo reads its options
    try:
        run()
    finally:
        sys.argv = replaced
    return 0


def _train() -> None:
    """Call the Zoo's training; what is wrong before it begins is the user's mistake."""
    train = import_module("rl_zoo3.train")
    from maxent_onpolicy.zoo.manager import Experiment, SettingsError

    train.ExperimentManager = Experiment  # type: ignore[attr-defined]
    try:
        train.train()
    except (SettingsError, ImportError) as error:
        raise UsageError(f"zoo train: {error}") from error


def _enjoy() -> None:
    """Call the Zoo's playing."""
    enjoy = import_module("rl_zoo3.enjoy")
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

    known = dict(enjoy.ALGOS)
    for name, cls in register().items():
        if issubclass(cls, OffPolicyAlgorithm):
            # The Zoo does this for its own by name: playing needs no replay buffer.
            enjoy.ALGOS[name] = SimpleNamespace(load=partial(cls.load, buffer_size=1))
    try:
        enjoy.enjoy()
    except (ValueError, AssertionError, OSError, ImportError) as error:
        raise UsageError(f"zoo enjoy: {error}") from error
    finally:
        enjoy.ALGOS.update(known)


def _show_settings(arguments: list[str]) -> int:
    """Print the settings of an algorithm as they lie in the package."""
    try:
        (name,) = arguments
        print(settings_file(name).read_text(encoding="utf-8"), end="")
    except ValueError:
        there_are = ", ".join(sorted(file.stem for file in SETTINGS.glob("*.yml")))
        raise UsageError(f"zoo settings: name one of {there_are}; got {' '.join(arguments)!r}") from None
    return 0


def _check_options(arguments: list[str]) -> None:
    """Check what the Zoo would answer with a traceback: the environment and the model to go on with."""
    import gymnasium

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--gym-packages", nargs="+", default=[])
    parser.add_argument("-i", "--trained-agent", default="")
    options, _ = parser.parse_known_args(arguments)
    for package in ("rl_zoo3.import_envs", *options.gym_packages):
        try:
            import_module(package)
        except ImportError as error:
            raise UsageError(f"--gym-packages: {error}") from error
    if options.env not in gymnasium.registry:
        close = did_you_mean(options.env, gymnasium.registry)
        raise UsageError(f"--env: there is no environment {options.env!r}{close}")
    agent = Path(options.trained_agent)
    if options.trained_agent and not (agent.suffix == ".zip" and agent.is_file()):
        raise UsageError(f"--trained-agent: there is no model {str(agent)!r}; its name ends in .zip")


def _description() -> str:
    own = [entry for entry in ALGORITHMS.values() if entry.module.startswith("maxent_onpolicy.algorithms")]
    rows = [(zoo_name(entry.name), entry.name, entry.summary) for entry in own]
    return DESCRIPTION.format(names="".join(f"  {name:<11} {cls}: {summary}\n" for name, cls, summary in rows))
