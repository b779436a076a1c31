"""Gradient steps of soft actor-critic: all networks of a kind in one product, gradients derived by hand."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maxent_onpolicy.engine.soft.graphs import RecordedSteps
from maxent_onpolicy.engine.soft.model import SoftModel
from maxent_onpolicy.engine.soft.networks import StackedRows
from maxent_onpolicy.engine.soft.squashed import SquashedSamples
from maxent_onpolicy.engine.soft.temperature import Temperature

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.sac import SAC

# In the order in which a step writes them.
METRICS = ("ent_coef", "critic_loss", "actor_loss", "entropy", "std", "q_value")


class SoftUpdate:
    """Makes gradient steps on batches of ``N`` transitions; equal to SB3's in all but rounding.

    Args:
        model: the networks.
        temperature: the entropy's weight.
        batch_size: ``N``.
        on_device: whether a step makes the same operations whatever the numbers are, reading none of them back; as
            it must on a GPU. ``None``: where the model is not on the CPU.
    """

    def __init__(
        self, model: SoftModel, temperature: Temperature, batch_size: int, on_device: bool | None = None
    ) -> None:
        self.model, self.temperature, self.batch_size = model, temperature, batch_size
        actor, critic, target = model.actor, model.critic, model.target
        count, actions, seen = batch_size, model.action_dim, model.observation_dim
        # States and their successors go through the actor together; only the states' part is trained.
        self._actor = StackedRows(actor.shape, actor.flat, actor.gradient, 2 * count, trained=count)
        self._critic = StackedRows(critic.shape, critic.flat, critic.gradient, count)
        self._target = StackedRows(critic.shape, target.flat, None, count)
        self._samples = SquashedSamples(2 * count, actions, model.epsilon, model.device)

        def empty(rows: int, columns: int) -> Tensor:
            return torch.zeros(rows, columns, device=model.device)

        self._states = empty(2 * count, seen)
        self._taken, self._chosen, self._next = (empty(count, seen + actions) for _ in range(3))
        self._reward, self._done, self._discount, self._goal = (empty(count, 1) for _ in range(4))
        self._value_gradient = empty(count, actions)
        self._metrics = torch.zeros(len(METRICS), device=model.device)
        self._on_device = model.device.type != "cpu" if on_device is None else on_device
        changed = (*actor.state, *critic.state, target.flat, *temperature.state, self._metrics)
        #: Makes steps by replaying them; ``None``: each is computed operator by operator.
        self.recorded = RecordedSteps(changed) if model.device.type == "cuda" else None

    @torch.no_grad()
    def run(self, algorithm: "SAC", gradient_steps: int) -> dict[str, float]:
        """Make gradient steps on samples of the algorithm's replay buffer; return means of what is to be logged."""
        self._metrics.zero_()
        buffer = algorithm.replay_buffer
        assert buffer is not None
        actor, critic = self.model.actor, self.model.critic
        for part in (actor, critic, self.temperature):
            part.begin(self._on_device)
        for step in range(gradient_steps):
            self.take(buffer.sample(self.batch_size, env=algorithm._vec_normalize_env), algorithm.gamma)
            self._draw_noise()
            self._make_step(algorithm.tau if step % algorithm.target_update_interval == 0 else None)
        actor.publish(gradient_steps)
        critic.publish(gradient_steps)
        means = dict(zip(METRICS, (self._metrics / gradient_steps).tolist(), strict=True))
        return means | self.temperature.end(gradient_steps)

    def take(self, batch: Any, gamma: float) -> None:
        """Bring a batch of SB3's ``ReplayBufferSamples`` to where the step reads it."""
        count, seen = self.batch_size, self.model.observation_dim
        observation, successor = (each.reshape(count, seen) for each in (batch.observations, batch.next_observations))
        self._states[:count].copy_(observation)
        self._states[count:].copy_(successor)
        self._taken[:, :seen].copy_(observation)
        self._taken[:, seen:].copy_(batch.actions)
        self._chosen[:, :seen].copy_(observation)
        self._next[:, :seen].copy_(successor)
        self._reward.copy_(batch.rewards)
        self._done.copy_(batch.dones)
        if batch.discounts is None:
            self._discount.fill_(gamma)
        else:
            self._discount.copy_(batch.discounts)

    def _draw_noise(self) -> None:
        """Draw the noise of both kinds of actions, in SB3's order."""
        self._samples.noise[: self.batch_size].normal_()
        self._samples.noise[self.batch_size :].normal_()

    def _make_step(self, tau: float | None) -> None:
        """Make a step, replaying a recorded one where steps are recorded."""
        if self.recorded is None:
            self.step(tau)
            return
        kind = (tau, self.model.actor.constants, self.model.critic.constants, self.temperature.constants)
        self.recorded.run(lambda: self.step(tau), kind)

    def step(self, tau: float | None) -> None:
        """Make a gradient step on the batch and noise that lie there.

        Args:
            tau: how far the target critics follow, or ``None`` not to move them.
        """
        count, seen = self.batch_size, self.model.observation_dim
        samples = self._samples
        actions = samples.draw(self._actor.forward(self._states)[0])
        log_prob = samples.density()
        ent_coef = self.temperature.step(log_prob[:count])
        self._next[:, seen:].copy_(actions[count:])
        self._chosen[:, seen:].copy_(actions[:count])
        critic_loss = self._train_critics(ent_coef * log_prob[count:])
        value = self._train_actor(ent_coef)
        if tau is not None:
            self.model.target.flat.mul_(1 - tau).add_(self.model.critic.flat, alpha=tau)
        entropy = -log_prob[:count].mean()
        value = value.mean()
        loss = -ent_coef * entropy - value
        parts = (ent_coef, critic_loss, loss, entropy, samples.std[:count].mean(), value)
        self._metrics += torch.cat([part.reshape(1) for part in parts])

    def _train_critics(self, entropy_cost: Tensor) -> Tensor:
        """Move all critics towards ``r + discount·(min target critic - ent_coef·log_prob)``; return their loss."""
        successor = self._target.forward(self._next).amin(dim=0).sub_(entropy_cost)
        goal = torch.sub(1.0, self._done, out=self._goal).mul_(self._discount).mul_(successor).add_(self._reward)
        delta = torch.sub(self._critic.forward(self._taken), goal, out=self._critic.output_delta)
        loss = 0.5 * (delta * delta).sum() / self.batch_size
        delta.mul_(1.0 / self.batch_size)
        self._critic.backward()
        self.model.critic.step()
        return loss

    def _train_actor(self, ent_coef: Tensor) -> Tensor:
        """Move the actor up the smallest critic and its entropy; return that critic's values ``[N, 1]``."""
        seen = self.model.observation_dim
        value, choice = self._critic.forward(self._chosen).min(dim=0)
        if not self._on_device:
            gradient = self._critic.input_gradient_of_choice(choice.squeeze(1), seen, self._value_gradient)
        else:  # shapes that depend on numbers would have to be read back
            self._critic.output_delta.zero_().scatter_(0, choice[None], 1.0)
            gradient = self._critic.input_gradient(seen, self._value_gradient)
        self._samples.loss_gradient(gradient, ent_coef, self.batch_size, self._actor.output_delta[0])
        self._actor.backward()
        self.model.actor.step()
        return value
