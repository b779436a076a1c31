"""Put this package's algorithms beside those that RL-Baselines3-Zoo knows."""

from pathlib import Path
from typing import TYPE_CHECKING

import maxent_onpolicy
from maxent_onpolicy.validation import check_choice

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

# Before the names of algorithms of which the Zoo has one too: *m*axent-*o*n*p*olicy's.
PREFIX = "mop_"
SETTINGS = Path(__file__).parent
_SHARED_WITH_THE_ZOO = {"ppo", "trpo", "sac"}


class MissingZooError(ImportError):
    """RL-Baselines3-Zoo, or a package that it needs, is not installed."""


def zoo_name(class_name: str) -> str:
    """Return what the Zoo calls one of our classes: ``MaxEntPPO`` is ``maxent_ppo``, ``PPO`` is ``mop_ppo``.

    The Zoo's own ``ppo``, ``trpo`` and ``sac`` stay what they are, so that both can be compared.
    """
    name = class_name.replace("MaxEnt", "maxent_").lower()
    return PREFIX + name if name in _SHARED_WITH_THE_ZOO else name


def algorithms() -> "dict[str, type[BaseAlgorithm]]":
    """Return every public algorithm of this package by its name in the Zoo."""
    from stable_baselines3.common.base_class import BaseAlgorithm

    public = {name: getattr(maxent_onpolicy, name) for name in maxent_onpolicy.__all__}
    return {
        zoo_name(name): value
        for name, value in public.items()
        if isinstance(value, type) and issubclass(value, BaseAlgorithm)
    }


def settings_file(name: str) -> Path:
    """Return the file with the settings of the algorithm called ``name``, in the Zoo's form.

    Args:
        name: in the Zoo, such as ``maxent_ppo``.

    Raises:
        ValueError: if there is none.
    """
    check_choice("name", name, sorted(file.stem for file in SETTINGS.glob("*.yml")))
    return SETTINGS / f"{name}.yml"


def register() -> "dict[str, type[BaseAlgorithm]]":
    """Make the Zoo know this package's algorithms: their classes and the search spaces of their hyperparameters.

    The Zoo's ``train`` looks for settings in its own directory. ``maxent-onpolicy zoo train`` takes those of
    :func:`settings_file`; elsewhere pass that file with ``--conf-file``.

    Returns:
        The classes by their names in the Zoo.

    Raises:
        MissingZooError: naming what to install.
    """
    try:
        import rl_zoo3
        from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
    except ImportError as error:
        raise MissingZooError(
            f'RL-Baselines3-Zoo cannot be imported ({error}); install it with: pip install "maxent-onpolicy[zoo]"'
        ) from error
    from maxent_onpolicy.zoo.search import search_space

    found = algorithms()
    for name, cls in found.items():
        rl_zoo3.ALGOS[name] = cls
        space = search_space(cls)
        if space is not None:
            HYPERPARAMS_SAMPLER[name] = space.sample
            HYPERPARAMS_CONVERTER[name] = space.convert
    return found
