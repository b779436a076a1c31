"""Which tier trains a model: packed where it fits, compiled where that pays, and a reason in the log otherwise."""

import logging
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.compiled.engine import CompiledEngine
from maxent_onpolicy.engine.compiled.fits import break_even, minibatches_to_come, why_not_compiled
from maxent_onpolicy.engine.packed.engine import PackedEngine
from maxent_onpolicy.engine.packed.fits import why_not_packed
from maxent_onpolicy.policies.nature_cnn import set_chunks
from maxent_onpolicy.validation import check_choice

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm

EngineName = Literal["auto", "eager", "compiled", "packed"]
ENGINES: tuple[EngineName, ...] = ("auto", "eager", "compiled", "packed")
Compile = bool | Literal["auto"]

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """One way to do the work of an on-policy algorithm; all ways compute the same.

    Attributes:
        name: of the tier.
    """

    name: str

    def collect(
        self, algorithm: "OnPolicyAlgorithm", env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, n_steps: int
    ) -> bool:
        """Fill the buffer, with values and log-probabilities; return whether it is complete."""
        ...

    def critic_values(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, critic: str) -> Tensor:
        """Return a critic's (``"value"``, ``"entropy_value"``) values ``[T, B]`` of the rollout's observations."""
        ...

    def update(self, algorithm: Any, *settings: Any) -> Any:
        """Train on the rollout; what it is told and what it reports are the algorithm's own."""
        ...


def check_engine(engine: object, compile: object) -> None:
    """Check the two arguments that choose a tier.

    Raises:
        ValueError: for an unknown value, or two that contradict each other.
    """
    check_choice("engine", engine, ENGINES)
    check_choice("compile", compile, (True, False, "auto"))
    if engine == "compiled" and compile is False:
        raise ValueError("`compile=False` forbids what `engine='compiled'` needs; leave one of them out")
    if engine in ("eager", "packed") and compile is True:
        raise ValueError(f"`engine={engine!r}` compiles nothing, so that `compile=True` has no effect; leave one out")


def make_engine(algorithm: "OnPolicyAlgorithm", requested: EngineName) -> Engine:
    """Make the engine for an algorithm whose policy exists, and let the policy's images pass as suits it.

    Args:
        algorithm: the model.
        requested: ``"auto"`` takes the fastest tier that fits, and logs why if that is not the packed one.

    Raises:
        ValueError: if the tier asked for cannot train this model.
    """
    engine = _choose(algorithm, requested)
    # `engine="eager"` is SB3's computation; a program would hold a copy of the network for each chunk.
    set_chunks(algorithm.policy, requested == "auto" and engine.name == "eager")
    return engine


def _choose(algorithm: "OnPolicyAlgorithm", requested: EngineName) -> Engine:
    if requested == "eager":
        return algorithm.eager_engine()
    if requested == "compiled":
        reason = why_not_compiled(algorithm)
        if reason is not None:
            raise ValueError(f"`engine='compiled'` cannot train this model because of {reason}; use 'auto' or 'eager'")
        return CompiledEngine(required=True)
    not_packed = algorithm.why_not_packed() or why_not_packed(algorithm.policy)
    if requested == "packed":
        if not_packed is None:
            return algorithm.packed_engine(algorithm)
        raise ValueError(f"`engine='packed'` cannot train this model because of {not_packed}; use 'auto' or 'eager'")
    return _fastest_engine(algorithm, not_packed)


def is_outdated(engine: Engine, algorithm: "OnPolicyAlgorithm") -> bool:
    """Whether an engine cannot go on with a model: another optimiser, other layers, frozen parameters, a hook.

    The compiled engine asks itself before every update, and traces again.
    """
    return isinstance(engine, PackedEngine) and not engine.fits(algorithm)


def _fastest_engine(algorithm: "OnPolicyAlgorithm", not_packed: str | None) -> Engine:
    not_compiled = None if not_packed is None and algorithm.compile is not True else _why_not_compile_now(algorithm)
    engine: Engine
    if not_compiled is None and (not_packed is not None or algorithm.compile is True):
        engine = CompiledEngine()
    else:
        engine = algorithm.packed_engine(algorithm) if not_packed is None else algorithm.eager_engine()
    reasons = []
    if not_packed is not None and algorithm.compile is not True:
        reasons.append(f"the packed engine does not know {not_packed}")
    if not_compiled is not None:
        reasons.append(f"nothing is compiled because of {not_compiled}")
    if reasons:
        text = " and ".join(reasons)
        _say_once(algorithm, f"{text[0].upper()}{text[1:]}: training with the {engine.name} engine.")
    return engine


def _why_not_compile_now(algorithm: "OnPolicyAlgorithm") -> str | None:
    """Return why ``"auto"`` should not compile a model now, or ``None``."""
    if algorithm.compile is False:
        return "`compile=False`"
    reason = why_not_compiled(algorithm)
    # A model that was compiled before stays with those programs: a resumed run ends as an uninterrupted one.
    if reason is not None or algorithm.compile is True or algorithm.was_compiled:
        return reason
    slower = next((m for m in algorithm.policy.modules() if _is_slower_compiled(m, algorithm)), None)
    if slower is not None:
        return f"{type(slower).__name__}, which trains faster without on a CPU (`compile=True` compiles anyway)"
    left, needed = minibatches_to_come(algorithm), break_even(algorithm)
    if left >= needed:
        return None
    return f"a short run ({left:,} minibatches, and compiling takes {needed:,} to pay; `compile=True` compiles anyway)"


def _is_slower_compiled(module: Any, algorithm: Any) -> bool:
    """Whether a module says that on a CPU it trains faster as it is, with minibatches of this size."""
    most = getattr(module, "compiles_well_up_to", None)
    return most is not None and algorithm.device.type == "cpu" and algorithm.batch_size > most


def _say_once(algorithm: "OnPolicyAlgorithm", message: str) -> None:
    if message == algorithm.engine_message:
        return
    algorithm.engine_message = message
    logger.info(message)
    if algorithm.verbose >= 1:
        print(message)
