"""Why an optimiser is not the Adam that the faster engines repeat on flat vectors."""

from collections.abc import Iterable

import torch


def why_not_one_adam(optimizer: torch.optim.Optimizer) -> str | None:
    """Return why an optimiser is not plain Adam with one group of parameters, or ``None``."""
    if type(optimizer) is not torch.optim.Adam:
        return f"the optimiser {type(optimizer).__name__}"
    if len(optimizer.param_groups) != 1:
        return "an optimiser with several parameter groups"
    return None


def why_not_options(optimizer: torch.optim.Optimizer, refused: Iterable[str]) -> str | None:
    """Return which of the ``refused`` options an Adam with one group has set, or how its state is uneven."""
    group = optimizer.param_groups[0]
    option = next((name for name in refused if group.get(name)), None)
    if option is not None:
        return f"Adam's option {option}={group[option]}"
    steps = {float(state["step"]) for state in optimizer.state.values() if "step" in state}
    return "an optimiser whose parameters have made different numbers of steps" if len(steps) > 1 else None
