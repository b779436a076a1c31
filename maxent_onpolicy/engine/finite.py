"""NaN and Inf, reported where they appear rather than where they surface."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor, nn

from maxent_onpolicy.envs.tensor import Observation

REMEDY = "lower `learning_rate` or `max_grad_norm`, or normalise observations and rewards"


class NonFiniteError(ValueError):
    """An environment or the policy produced NaN or Inf."""


def check_finite(what: str, value: Observation, num_timesteps: int, environments: Tensor | None = None) -> None:
    """Raise if any element is NaN or Inf.

    Args:
        what: ``"observation"``, ``"final observation"``, ``"reward"`` or ``"action"``.
        value: ``[B, ...]`` or a dictionary of such.
        num_timesteps: environment steps taken before this one, over all environments.
        environments: ``[B]`` indices of the environments that the rows belong to; ``None`` if there is one row each.

    Raises:
        NonFiniteError: naming the environment, the step and the first bad value.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            check_finite(f"{what}[{key!r}]", part, num_timesteps, environments)
        return
    if is_finite(value):
        return
    flat = value.reshape(value.shape[0], -1)
    bad = ~flat.isfinite()
    row = int(bad.any(dim=1).nonzero()[0])
    first = flat[row][bad[row]][0].item()
    environment = row if environments is None else int(environments[row])
    source = "the policy's parameters have diverged" if what == "action" else "check the environment"
    raise NonFiniteError(
        f"{what} of environment {environment} is {first} at step {num_timesteps} "
        f"(counted over all environments); {source}"
    )


def array_is_finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor Inf; three times faster on small arrays than ``np.isfinite(…).all()``."""
    return b"\0" not in np.isfinite(array).tobytes()


def is_finite(value: Observation) -> bool:
    """Whether a tensor, or all of a dictionary, holds neither NaN nor Inf."""
    if isinstance(value, dict):
        return all(is_finite(part) for part in value.values())
    return not value.is_floating_point() or bool(value.isfinite().all())


@contextmanager
def naming_divergence(policy: nn.Module, where: str, remedy: str = REMEDY) -> Iterator[None]:
    """Turn torch's rejection of NaN distribution parameters, a dump of the tensor, into an error that says why.

    Args:
        policy: whose parameters may have diverged.
        where: what failed and when, the start of the message.
        remedy: what may help, its end.

    Raises:
        NonFiniteError: if a parameter of the policy is NaN or Inf, or one of the actions' distribution is not valid, a
            standard deviation of 0 for instance; any other ValueError passes unchanged.
    """
    try:
        yield
    except ValueError as error:
        check_parameters(policy, where, error, remedy)
        rejected = re.match(r"Expected parameter (\w+) .* of distribution (\w+)", str(error))
        if rejected is None:
            raise
        parameter, distribution = rejected.groups()
        raise NonFiniteError(
            f"{where}: the policy has diverged ({parameter} of the actions' {distribution} distribution is not valid); "
            f"{remedy}"
        ) from error


def check_parameters(policy: nn.Module, where: str, cause: Exception | None = None, remedy: str = REMEDY) -> None:
    """Raise if a parameter is NaN or Inf.

    Args:
        policy: whose parameters may have diverged.
        where: what failed and when, the start of the message.
        cause: what it surfaced as.
        remedy: what may help, the message's end.

    Raises:
        NonFiniteError: naming the parameters.
    """
    bad = [name for name, parameter in policy.named_parameters() if not parameter.isfinite().all()]
    if bad:
        raise NonFiniteError(
            f"{where}: the policy's parameters have diverged (NaN or Inf in {', '.join(bad)}); {remedy}"
        ) from cause
