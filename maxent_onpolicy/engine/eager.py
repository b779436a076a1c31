"""The eager tier: autograd on any policy, the reference for the others."""

from typing import TYPE_CHECKING

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from maxent_onpolicy.engine.buffer import Minibatch, RolloutBuffer
from maxent_onpolicy.engine.distributed import add_up_gradients, world, worth_splitting
from maxent_onpolicy.engine.finite import naming_divergence
from maxent_onpolicy.engine.images import RolloutCollector
from maxent_onpolicy.engine.mean_shift import shifted
from maxent_onpolicy.engine.metrics import UpdateMetrics
from maxent_onpolicy.engine.shared_buffer import has_images

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO


class EagerEngine:
    """Steps the policy's own ``forward``, and lets autograd and the policy's optimiser do the update.

    With the same seed its parameters are stable_baselines3's bit for bit.
    """

    name = "eager"

    def __init__(self) -> None:
        self._rollouts = RolloutCollector(deferred=False)

    def collect(
        self,
        algorithm: "OnPolicyAlgorithm",
        env: VecEnv,
        callback: BaseCallback,
        buffer: RolloutBuffer,
        n_steps: int,
    ) -> bool:
        """Fill the buffer; see :func:`~maxent_onpolicy.engine.rollout.collect_rollout`."""
        return self._rollouts.collect(algorithm, env, callback, buffer, n_steps)

    def critic_values(self, algorithm: "OnPolicyAlgorithm", buffer: RolloutBuffer, critic: str) -> Tensor:
        """Return a critic's values ``[T, B]`` of the rollout's observations."""
        return self._rollouts.critic_values(algorithm, buffer, critic)

    def update(self, algorithm: "PPO", clip: "ClipRanges") -> UpdateMetrics:
        """Train on the rollout for all epochs, or until the KL divergence is too large."""
        metrics = UpdateMetrics()
        policy, target_kl = algorithm.policy, algorithm.target_kl
        for epoch in range(algorithm.n_epochs):
            batches: list[dict[str, Tensor]] = []
            stop = False
            for batch in shifted(algorithm.rollout_buffer.get(algorithm.batch_size), algorithm.mean_shift()):
                with naming_divergence(policy, f"the update after step {algorithm.num_timesteps} failed"):
                    batch_metrics = gradient(algorithm, batch, clip)
                batches.append(batch_metrics)
                if target_kl is not None and batch_metrics["approx_kl"].item() > 1.5 * target_kl:
                    stop = True
                    break
                torch.nn.utils.clip_grad_norm_(policy.parameters(), algorithm.max_grad_norm)
                policy.optimizer.step()
            algorithm._n_updates += 1
            sums = {name: torch.stack([each[name] for each in batches]).sum() for name in batches[0] if name != "loss"}
            metrics.add(sums, len(batches), last_loss=batches[-1]["loss"])
            if algorithm.adapts_within_updates:
                algorithm.after_epoch(metrics.last["approx_kl"].item())
            if stop:
                algorithm.report_early_stop(epoch, batches[-1]["approx_kl"].item())
                break
        return metrics


def gradient(algorithm: "PPO", batch: Minibatch, clip: "ClipRanges") -> dict[str, Tensor]:
    """Write the gradient of a minibatch's loss into the parameters, and return scalars to log.

    Where several ranks split their minibatches, each computes its part, and all get the sum.
    """
    policy, count = algorithm.policy, len(batch.advantage)
    split = worth_splitting(policy, count, has_images(algorithm.observation_space))
    weight = 1.0
    if split:
        part = world().part(count)
        weight = (part.stop - part.start) / count
        # A minibatch may have fewer samples than there are ranks: a sample of weight 0 keeps the networks running.
        rows = part if weight else slice(0, 1)
        batch = batch._replace(policy_advantage=algorithm._policy_advantage(batch)).rows(rows)
    loss, metrics = algorithm._loss(batch, clip)
    policy.optimizer.zero_grad()
    if not split:
        loss.backward()
        return metrics
    (weight * loss).backward()
    return add_up_gradients(policy, {name: weight * value for name, value in metrics.items()})
