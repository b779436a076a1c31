"""The packed tier as an engine: what users get unless their policy does not fit."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.engine.distributed import worth_splitting
from maxent_onpolicy.engine.metrics import UpdateMetrics
from maxent_onpolicy.engine.packed.fits import why_not_packed
from maxent_onpolicy.engine.packed.layout import Layout, make_layout
from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.engine.packed.rollout import collect_packed
from maxent_onpolicy.engine.packed.shared import SharedPackedUpdate
from maxent_onpolicy.engine.packed.threads import few_threads
from maxent_onpolicy.engine.packed.update import PackedUpdate
from maxent_onpolicy.engine.rollout import check_rollout, collect_rollout, steps_on_tensors
from maxent_onpolicy.engine.shared_buffer import SharedRolloutBuffer

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO


class PackedEngine:
    """Runs MLP actor-critics as one flat vector with hand-derived gradients.

    Args:
        algorithm: its policy must fit; see :func:`~maxent_onpolicy.engine.packed.fits.why_not_packed`.
    """

    name = "packed"
    layout: Callable[[ActorCriticPolicy], Layout] = staticmethod(make_layout)

    def __init__(self, algorithm: "OnPolicyAlgorithm") -> None:
        self.model = PackedModel(algorithm.policy, self.layout(algorithm.policy))
        # For the rollout, and where several ranks train, for this one's part of it too.
        self._updates: dict[tuple[int, int], PackedUpdate] = {}
        self._values: dict[str, Tensor] = {}

    def fits(self, algorithm: "OnPolicyAlgorithm") -> bool:
        """Whether it still can train the algorithm, whose policy consists of the layers that it was made for."""
        policy = algorithm.policy
        if (algorithm.why_not_packed() or why_not_packed(policy)) is not None:
            return False
        return policy.device == self.model.device and self.layout(policy) == self.model.parameters.layout

    def collect(
        self,
        algorithm: "OnPolicyAlgorithm",
        env: VecEnv,
        callback: BaseCallback,
        buffer: RolloutBuffer,
        n_steps: int,
    ) -> bool:
        """Fill the buffer with the actor alone; values and log-probabilities come afterwards, all at once."""
        # Whatever was loaded or moved since the last rollout is taken over now, before the networks run.
        self.model.parameters.adopt(algorithm.policy)
        self._values = {}
        if self.model.device.type != "cpu" or steps_on_tensors(env):
            return collect_rollout(algorithm, env, callback, buffer, n_steps, deferred=True)
        start = algorithm.num_timesteps
        if not collect_packed(algorithm, env, callback, buffer, n_steps, self.model):
            return False
        update = self._update_of(algorithm, buffer)
        with self._threads(algorithm):
            check_rollout(algorithm.policy, buffer, start)
            self._values = update.evaluate(buffer)
        buffer.log_prob, buffer.value = self._values["log_prob"], self._values["value"]
        return True

    def _threads(self, algorithm: "OnPolicyAlgorithm") -> AbstractContextManager[None]:
        """Return a context in which small work is left to one thread."""
        if self.model.device.type != "cpu":
            return nullcontext()
        return few_threads(self.model.operations(getattr(algorithm, "batch_size", 1)))

    def critic_values(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, critic: str) -> Tensor:
        """Return a critic's values ``[T, B]`` of the rollout's observations."""
        if critic in self._values:
            return self._values[critic]
        return buffer.evaluate(getattr(algorithm.policy, f"predict_{critic}s"))

    def update(self, algorithm: "PPO", clip: "ClipRanges") -> UpdateMetrics:
        """Train on the rollout for all epochs, or until the KL divergence is too large."""
        self.model.parameters.adopt(algorithm.policy)
        update = self._update_of(algorithm, algorithm.rollout_buffer)
        with self._threads(algorithm):
            return update.run(algorithm, clip)

    def _update_of(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer) -> PackedUpdate:
        shape = (buffer.buffer_size, buffer.n_envs)
        samples = buffer.buffer_size * buffer.n_envs
        batch_size = min(getattr(algorithm, "batch_size", samples), samples)
        update = self._updates.get(shape)
        if update is None or update.batch_size != batch_size:
            self._updates[shape] = update = self._make_update(algorithm, buffer, batch_size)
        return update

    def _make_update(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, batch_size: int) -> PackedUpdate:
        if isinstance(buffer, SharedRolloutBuffer) and worth_splitting(algorithm.policy, batch_size, images=False):
            return SharedPackedUpdate(self.model, buffer, batch_size)
        return PackedUpdate(self.model, buffer, batch_size)
