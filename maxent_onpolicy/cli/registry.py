"""Algorithms by name, and their keywords as settings that can be written in a file or on a command line."""

import inspect
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.validation import check_range, did_you_mean

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Algorithm:
    """An algorithm that can be named in commands and suites.

    Attributes:
        name: what it is called in commands, suites and tables.
        module: where the class lives; imported on use, so that listing algorithms loads no PyTorch.
        summary: one line for ``maxent-onpolicy list``.
        class_name: of the class; empty if it is the name.
        install: what to install if the module cannot be imported.
    """

    name: str
    module: str
    summary: str
    class_name: str = ""
    install: str = ""

    @property
    def written(self) -> str:
        """The name as one word on a command line."""
        return self.name.replace(" ", "-")


ALGORITHMS = {
    entry.name: entry
    for entry in (
        Algorithm("PPO", "maxent_onpolicy.algorithms.ppo", "proximal policy optimisation, as SB3's"),
        Algorithm("RPO", "maxent_onpolicy.algorithms.rpo", "PPO whose update shifts the policy's mean at random"),
        Algorithm("TRPO", "maxent_onpolicy.algorithms.trpo", "trust region policy optimisation, as sb3-contrib's"),
        Algorithm("SAC", "maxent_onpolicy.algorithms.sac", "soft actor-critic, off-policy, as SB3's"),
        Algorithm("MaxEntPPO", "maxent_onpolicy.algorithms.maxent_ppo", "PPO with an entropy critic and advantage"),
        Algorithm("MaxEntTRPO", "maxent_onpolicy.algorithms.maxent_trpo", "TRPO with an entropy critic and advantage"),
        Algorithm("SB3 PPO", "stable_baselines3", "Stable-Baselines3's own PPO", "PPO"),
        Algorithm("SB3 SAC", "stable_baselines3", "Stable-Baselines3's own SAC, off-policy", "SAC"),
        Algorithm("SB3 TRPO", "sb3_contrib", "TRPO of sb3-contrib", "TRPO", install="sb3-contrib"),
        Algorithm(
            "GRPO",
            "maxent_onpolicy.cli.llm.settings",
            "group relative policy optimisation of language models, with entropy advantage and methods, as TRL's",
            "GRPOSettings",
            install="'maxent-onpolicy[llm]'",
        ),
    )
}
# what a run decides itself, or what cannot be written as a value
_RESERVED = {
    "self",
    "policy",
    "env",
    "seed",
    "verbose",
    "tensorboard_log",
    "rollout_buffer_class",
    "rollout_buffer_kwargs",
    "replay_buffer_class",
    "replay_buffer_kwargs",
    "action_noise",
    "_init_setup_model",
    # of TRL's trainer
    "data_seed",
    "disable_tqdm",
    "do_eval",
    "do_predict",
    "do_train",
    "eval_strategy",
    "generation_batch_size",
    "logging_dir",
    "logging_first_step",
    "logging_steps",
    "logging_strategy",
    "max_steps",
    "num_train_epochs",
    "output_dir",
    "report_to",
    "resume_from_checkpoint",
    "save_steps",
    "save_strategy",
    "save_total_limit",
}
_ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "elu": "ELU", "gelu": "GELU", "silu": "SiLU", "leaky_relu": "LeakyReLU"}


def find_algorithm(name: str) -> Algorithm:
    """Return the algorithm called ``name``; case, spaces, dashes and underscores do not matter.

    Raises:
        UsageError: if there is none, with the closest name.
    """
    plain = {_plain(known): entry for known, entry in ALGORITHMS.items()}
    if _plain(name) not in plain:
        close = did_you_mean(name, ALGORITHMS) or did_you_mean(name.upper(), ALGORITHMS)
        raise UsageError(f"unknown algorithm {name!r}{close}; there are {', '.join(ALGORITHMS)}")
    return plain[_plain(name)]


def load_class(name: str) -> "type[BaseAlgorithm]":
    """Import the class of the algorithm called ``name``.

    Raises:
        UsageError: if there is no such algorithm, or its package is not installed.
    """
    entry = find_algorithm(name)
    try:
        module = import_module(entry.module)
    except ImportError as error:
        if not entry.install:
            raise
        raise UsageError(f"{entry.name} needs a package that is not installed: pip install {entry.install}") from error
    cls: type[BaseAlgorithm] = getattr(module, entry.class_name or entry.name)
    return cls


def is_stock(cls: type) -> bool:
    """Whether a class is another library's, whose files hold less than ours and which one process trains."""
    return not cls.__module__.startswith("maxent_onpolicy.")


def hyperparameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the keywords of ``cls`` that a run may set, those it passes on to its base class included."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        for name, parameter in parameters.items():
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and name not in _RESERVED:
                found.setdefault(name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def describe_hyperparameters(cls: type) -> dict[str, str]:
    """Return what the docstrings of ``cls`` and its base classes say about each keyword."""
    texts: dict[str, str] = {}
    for base in cls.__mro__:
        docstring = inspect.cleandoc(base.__doc__ or "")
        for name, text in re.findall(r"^:param (\w+): (.*?)(?=^:|^\.\. |\Z)", docstring, re.MULTILINE | re.DOTALL):
            texts.setdefault(name, _plain_text(text))
        arguments = re.search(r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
        if arguments is None:
            continue
        for name, text in re.findall(r"^    (\w+): (.*?)(?=^    \S|\Z)", arguments[1], re.MULTILINE | re.DOTALL):
            texts.setdefault(name, _plain_text(text))
    return texts


def _plain_text(text: str) -> str:
    return " ".join(re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text.replace("``", "")).split())


def check_hyperparameters(algorithm: str, values: Mapping[str, Any], place: str) -> None:
    """Check that every key of ``values`` is a keyword of the algorithm called ``algorithm``.

    Raises:
        UsageError: naming the place, the key and the closest keyword.
    """
    known, entry = hyperparameters(load_class(algorithm)), find_algorithm(algorithm)
    for name in values:
        if name not in known:
            raise UsageError(
                f"{place}: {entry.name} has no hyperparameter {name!r}{did_you_mean(name, known)}; "
                f"`maxent-onpolicy train {entry.written} --help` lists them"
            )


def build_hyperparameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn written values into what the class takes.

    ``linear:3e-4:0`` becomes a schedule from 3e-4 to 0 over the training, ``linear:3e-4:0:0.5`` over its first half,
    ``policy_kwargs.activation_fn: relu`` becomes ``torch.nn.ReLU``, and ``train_freq: [1, episode]`` a tuple.

    Raises:
        UsageError: if a schedule or an activation function is misspelt.
    """
    # SB3's off-policy algorithms write into the `policy_kwargs` they get, which are the run's record
    built = {name: _schedule(name, deepcopy(value)) for name, value in values.items()}
    policy = built.get("policy_kwargs")
    if isinstance(policy, Mapping) and isinstance(policy.get("activation_fn"), str):
        built["policy_kwargs"] = {**policy, "activation_fn": _activation(policy["activation_fn"])}
    if isinstance(built.get("train_freq"), list):  # SB3 takes a list for a number of steps
        built["train_freq"] = tuple(built["train_freq"])
    return built


def written_value(value: Any) -> str:
    """Return a hyperparameter as the command line takes it, or as Python shows it where that takes none."""
    from stable_baselines3.common.utils import LinearSchedule

    if isinstance(value, LinearSchedule):
        fraction = "" if value.end_fraction == 1 else f":{value.end_fraction:g}"
        return f"linear:{value.start:g}:{value.end:g}{fraction}"
    return str(value)


def _schedule(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("linear", "lin_")):
        return value
    from stable_baselines3.common.utils import LinearSchedule

    try:
        kind, start, end, *fraction = value.split(":")
        if kind == "linear" and len(fraction) < 2:
            first, last = (check_range(name, float(text), 0) for text in (start, end))
            until = float(fraction[0]) if fraction else 1.0
            if 0 < until <= 1:
                return LinearSchedule(first, last, until)
    except ValueError:
        pass
    raise UsageError(
        f"`{name}`: a linear schedule is written linear:START:END with numbers of at least 0, such as linear:3e-4:0, "
        f"or linear:START:END:FRACTION to end after that part of the training, above 0 and up to 1; got {value!r}"
    )


def _activation(name: str) -> type:
    from torch import nn

    if name.lower() not in _ACTIVATIONS:
        raise UsageError(
            f"`policy_kwargs.activation_fn` must be one of {', '.join(_ACTIVATIONS)}; got {name!r}"
            f"{did_you_mean(name.lower(), _ACTIVATIONS)}"
        )
    cls: type = getattr(nn, _ACTIVATIONS[name.lower()])
    return cls


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())
