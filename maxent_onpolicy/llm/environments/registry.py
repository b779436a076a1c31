"""Sets of tasks by name, so that command lines and files can ask for them."""

import inspect
from typing import Any

from maxent_onpolicy.llm.environments.base import TaskSet
from maxent_onpolicy.llm.environments.reasoning import ReasoningTasks
from maxent_onpolicy.llm.environments.scienceworld import ScienceWorldTasks
from maxent_onpolicy.llm.environments.textworld import TextWorldTasks
from maxent_onpolicy.validation import check_choice, did_you_mean

TASK_SETS: dict[str, type[TaskSet]] = {
    "textworld": TextWorldTasks,
    "scienceworld": ScienceWorldTasks,
    "reasoning_gym": ReasoningTasks,
}


def make_tasks(name: str, **arguments: Any) -> TaskSet:
    """Return a set of tasks.

    Args:
        name: ``"textworld"``, ``"scienceworld"`` or ``"reasoning_gym"``.
        **arguments: of :class:`TextWorldTasks`, :class:`ScienceWorldTasks` or :class:`ReasoningTasks`.

    Raises:
        ImportError: if it needs a package that is not installed.
        ValueError: if there is no such set, naming the closest, or it has no such argument.
    """
    kind = TASK_SETS[check_choice("name", name, TASK_SETS)]
    parameters = inspect.signature(kind).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        for argument in arguments:
            if argument not in parameters:
                known = ", ".join(parameters)
                raise ValueError(
                    f"{name} has no argument {argument!r}{did_you_mean(argument, parameters)}; it has {known}"
                )
    missing = [
        each.name for each in parameters.values()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD and each.name not in arguments
    ]  # fmt: skip
    if missing:
        raise ValueError(f"{name} needs the argument {missing[0]!r}")
    return kind(**arguments)


def list_tasks() -> list[tuple[str, str]]:
    """Return names of sets of tasks and what they are."""
    return [(name, inspect.cleandoc(kind.__doc__ or "").splitlines()[0]) for name, kind in TASK_SETS.items()]
