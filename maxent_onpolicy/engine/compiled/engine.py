"""The compiled tier as an engine: for policies that the packed tier does not know."""

import logging
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.compiled.fits import why_not_compiled
from maxent_onpolicy.engine.compiled.observed import NotTraceableError
from maxent_onpolicy.engine.compiled.update import CompiledUpdate
from maxent_onpolicy.engine.eager import EagerEngine
from maxent_onpolicy.engine.images import RolloutCollector
from maxent_onpolicy.engine.metrics import UpdateMetrics

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO

# A loss that depends on a Python value which changes at every update would be compiled at every update.
MOST_COMPILATIONS = 4

logger = logging.getLogger(__name__)


class CompiledEngine:
    """Traces the algorithm's own loss once, compiles it with its gradient and Adam's step, and calls that.

    Args:
        required: raise an error if the model does not trace or compile, instead of training it eagerly.
        backend: of ``torch.compile``; ``None`` interprets what was traced, for tests.
    """

    name = "compiled"

    def __init__(self, required: bool = False, backend: str | None = "inductor") -> None:
        self._required, self._backend = required, backend
        self._update: CompiledUpdate | None = None
        self._compilations = 0
        self._eager: EagerEngine | None = None
        self._rollouts = RolloutCollector(deferred=True)

    def collect(
        self,
        algorithm: "OnPolicyAlgorithm",
        env: VecEnv,
        callback: BaseCallback,
        buffer: RolloutBuffer,
        n_steps: int,
    ) -> bool:
        """Fill the buffer with the actor alone, unless it sees images; the critics come afterwards, all at once."""
        return self._rollouts.collect(algorithm, env, callback, buffer, n_steps)

    def critic_values(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, critic: str) -> Tensor:
        """Return a critic's values ``[T, B]`` of the rollout's observations."""
        return self._rollouts.critic_values(algorithm, buffer, critic)

    def update(self, algorithm: "PPO", clip: "ClipRanges") -> UpdateMetrics:
        """Train on the rollout for all epochs, or until the KL divergence is too large.

        Raises:
            ValueError: if the model cannot be compiled, and the engine is required.
        """
        if self._eager is None:
            update = self._prepare(algorithm, clip)
            if update is not None:
                return update.run(algorithm, clip)
            self._eager = EagerEngine()
        return self._eager.update(algorithm, clip)

    def _prepare(self, algorithm: "PPO", clip: "ClipRanges") -> CompiledUpdate | None:
        """Return programs that fit the model as it is now, or ``None`` if there are none."""
        changed = None
        try:
            # Asked before every update: a callback may have put a hook or another optimiser in place.
            reason = why_not_compiled(algorithm)
            if reason is not None:
                raise NotTraceableError(reason)
            if self._update is not None:
                changed = self._update.difference(algorithm, clip)
                if changed is None:
                    return self._update
            if self._compilations == MOST_COMPILATIONS:
                raise NotTraceableError(f"{changed}, which keeps changing")
            self._compilations += 1
            self._update = CompiledUpdate(algorithm, clip, self._backend)
        except Exception as error:  # whatever a policy's own code, the tracer, the compiler or the C++ compiler raises
            reason = str(error) if isinstance(error, NotTraceableError) else _summary(error)
            if self._required:
                raise ValueError(
                    f"`engine='compiled'` cannot train this model because of {reason}; use 'auto' or 'eager'"
                ) from error
            _say(algorithm, f"This model cannot be compiled because of {reason}: training with the eager engine.")
            return None
        self._report(algorithm, changed)
        return self._update

    def _report(self, algorithm: "PPO", changed: str | None) -> None:
        assert self._update is not None
        seconds = self._update.seconds
        algorithm.was_compiled = True
        algorithm.logger.record("time/compile_seconds", seconds)
        why = "" if changed is None else f" again, because of {changed}, which has changed"
        _say(algorithm, f"Compiled the update{why} in {seconds:.1f} s.")


def _say(algorithm: "PPO", message: str) -> None:
    logger.info(message)
    if algorithm.verbose >= 1:
        print(message)


def _summary(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
