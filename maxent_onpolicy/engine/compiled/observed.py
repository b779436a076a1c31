"""What Python state a loss reads, so that a traced program is not used after that has changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

Plain = bool | int | float | str | None
_PLAIN = (bool, int, float, str, type(None))


class NotTraceableError(Exception):
    """A model whose step does more than tensor operations; the message completes "because of ..."."""


class Observed:
    """A stand-in for an algorithm that notes which of its attributes a loss reads.

    Args:
        algorithm: whose attributes it shares; what is assigned stays on the stand-in.
        replacements: values to hand out in place of attributes.

    Attributes:
        stand_in: behaves as the algorithm.
        reads: attributes of the instance that were read, with their values.
    """

    def __init__(self, algorithm: Any, replacements: dict[str, Tensor] | None = None) -> None:
        self.reads: dict[str, Any] = {}
        kind: Any = type(algorithm)
        replaced, reads = replacements or {}, self.reads
        own = dict(vars(algorithm))

        def __getattribute__(stand_in: Any, name: str) -> Any:
            value = kind.__getattribute__(stand_in, name)
            if name not in own:
                return value
            reads.setdefault(name, own[name])
            return replaced.get(name, value)

        observed = type(kind.__name__, (kind,), {"__getattribute__": __getattribute__})
        self.stand_in: Any = object.__new__(observed)
        object.__getattribute__(self.stand_in, "__dict__").update(own)
        self._own = own

    def check_unchanged(self) -> None:
        """Raise if the loss assigned an attribute, which a program would do only once.

        Raises:
            NotTraceableError: naming the attribute.
        """
        now = object.__getattribute__(self.stand_in, "__dict__")
        changed = [name for name, value in now.items() if name not in self._own or value is not self._own[name]]
        if changed:
            raise NotTraceableError(f"`{changed[0]}`, which the loss assigns")


class Guard:
    """The Python state that a program was traced with.

    Args:
        algorithm: whose policy it is.
        reads: the algorithm's attributes that the loss reads, but for those that the program takes as inputs.
    """

    def __init__(self, algorithm: Any, reads: dict[str, Any]) -> None:
        self._reads = reads
        self._policy = plain_state(algorithm.policy)

    def difference(self, algorithm: Any) -> str | None:
        """Return what has changed since, or ``None``."""
        for name, value in self._reads.items():
            if not _same(value, getattr(algorithm, name, None)):
                return f"`{name}`"
        now = plain_state(algorithm.policy)
        for key in self._policy.keys() | now.keys():
            if self._policy.get(key, Guard) != now.get(key, Guard):
                return f"the policy's `{key.lstrip('.')}`"
        return None


def plain_state(policy: ActorCriticPolicy) -> dict[str, Plain]:
    """Return every number, flag and text that is an attribute of a policy's module or its action distribution."""
    owners = {name: vars(module) for name, module in policy.named_modules()}
    owners["action_dist"] = vars(policy.action_dist)
    return {
        f"{owner}.{name}": value
        for owner, attributes in owners.items()
        for name, value in attributes.items()
        if isinstance(value, _PLAIN)
    }


def _same(old: Any, new: Any) -> bool:
    return old is new or (isinstance(old, _PLAIN) and type(old) is type(new) and old == new)


@contextmanager
def without_traces(policy: ActorCriticPolicy) -> Iterator[None]:
    """Undo what a forward pass stores outside of tensors; refuse modules that store more than their distribution.

    Raises:
        NotTraceableError: if a module of the policy changes an attribute while it runs.
    """
    distribution = dict(vars(policy.action_dist))
    modules = {name: (module, dict(vars(module))) for name, module in policy.named_modules()}
    try:
        yield
        for name, (module, before) in modules.items():
            after = vars(module)
            changed = [
                key for key in before.keys() | after.keys() if after.get(key, Guard) is not before.get(key, Guard)
            ]
            if changed:
                raise NotTraceableError(f"`{changed[0]}`, which {name or 'the policy'} assigns while it runs")
    finally:
        vars(policy.action_dist).clear()
        vars(policy.action_dist).update(distribution)
        for module, before in modules.values():
            vars(module).clear()
            vars(module).update(before)
