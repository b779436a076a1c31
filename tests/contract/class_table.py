"""Every public algorithm class, with what its tests need to know. A new class is covered by adding a line."""

import inspect
from importlib import import_module
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm

import maxent_onpolicy

ON_POLICY = {"n_steps": 32, "batch_size": 32}
FIRST_ORDER = {**ON_POLICY, "n_epochs": 2}
OFF_POLICY = {"learning_starts": 16, "batch_size": 16, "buffer_size": 500, "train_freq": 8, "gradient_steps": 2}


class Entry(NamedTuple):
    """What the contract's tests need to know of a class.

    Attributes:
        stock: "module:Class" whose arguments and defaults it takes over.
        kwargs: that make a training short.
        steps: that make it learn twice.
        spaces: names of the action spaces it takes.
    """

    stock: str
    kwargs: dict[str, Any]
    steps: int = 64
    spaces: tuple[str, ...] = ("box", "discrete", "multi_discrete", "multi_binary")


CLASSES = {
    "PPO": Entry("stable_baselines3:PPO", FIRST_ORDER),
    "MaxEntPPO": Entry("stable_baselines3:PPO", FIRST_ORDER),
    "RPO": Entry("stable_baselines3:PPO", FIRST_ORDER, spaces=("box",)),
    "SAC": Entry("stable_baselines3:SAC", OFF_POLICY, spaces=("box",)),
    "TRPO": Entry("sb3_contrib:TRPO", ON_POLICY),
    "MaxEntTRPO": Entry("sb3_contrib:TRPO", ON_POLICY),
}


def public_classes() -> set[str]:
    """Names of the algorithm classes among the package's public names."""
    names = {name: getattr(maxent_onpolicy, name) for name in maxent_onpolicy.__all__}
    return {name for name, value in names.items() if inspect.isclass(value) and issubclass(value, BaseAlgorithm)}


def algorithm(name: str) -> Any:
    """Return the class called ``name``."""
    return getattr(maxent_onpolicy, name)


def stock(name: str) -> Any:
    """Return the class of another library that the class called ``name`` takes the place of."""
    module, _, cls = CLASSES[name].stock.partition(":")
    return getattr(import_module(module), cls)
