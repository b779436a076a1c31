"""PPO's update on a packed model: rows of one matrix, epochs, minibatches, and what is logged of them."""

from functools import cached_property, partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from maxent_onpolicy.engine.buffer import RolloutBuffer, random_order
from maxent_onpolicy.engine.mean_shift import MeanShift
from maxent_onpolicy.engine.metrics import UpdateMetrics
from maxent_onpolicy.engine.packed.arrays import NUMPY
from maxent_onpolicy.engine.packed.device import DeviceTrainer
from maxent_onpolicy.engine.packed.minibatches import SingleTrainer, Trainer
from maxent_onpolicy.engine.packed.model import PackedModel
from maxent_onpolicy.engine.packed.ppo import PPOSettings, Rows
from maxent_onpolicy.estimators.control import balanced_bounds, entropy_ratio, within
from maxent_onpolicy.policies.heads import PopArtLinear

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.controlled import ClipRanges
    from maxent_onpolicy.algorithms.ppo import PPO
    from maxent_onpolicy.controllers import Balance

# Divergence is reported as an error, and torch computes without numpy's warnings of it.
quiet = partial(np.errstate, over="ignore", invalid="ignore", divide="ignore")

CHUNK = 4096  # columns a forward pass over the rollout, which bounds its memory


class PackedUpdate:
    """A rollout as a matrix with one column a transition, and the minibatch steps on it.

    Args:
        model: whose parameters are trained.
        buffer: the rollout buffer, for its size.
        batch_size: samples a minibatch.
    """

    def __init__(self, model: PackedModel, buffer: RolloutBuffer, batch_size: int) -> None:
        self.model = model
        self.samples = buffer.buffer_size * buffer.n_envs
        self.shape = (buffer.buffer_size, buffer.n_envs)
        self.batch_size = min(batch_size, self.samples)
        self.rows = Rows.for_model(model.input_rows, model.action_rows)
        self.data = torch.zeros(self.rows.total, self.samples, device=model.device)
        self.data[self.rows.inputs.stop - 1] = 1.0
        firsts = range(0, self.samples, self.batch_size)
        self.sizes = [min(self.batch_size, self.samples - first) for first in firsts]
        self._ends = [first + size for first, size in zip(firsts, self.sizes, strict=True)]
        # A minibatch's mean counts once, whatever its size.
        self._weight = torch.cat([torch.full((size,), 1.0 / size, device=model.device) for size in self.sizes])

    @cached_property
    def alone(self) -> Trainer:
        """Trains this model; made when needed, as models that are trained together share another."""
        if self.model.arrays is NUMPY:
            return SingleTrainer(self.model, self.rows, self.sizes)
        return DeviceTrainer(self.model, self.rows, self.sizes)

    def load_transitions(self, buffer: RolloutBuffer) -> None:
        """Lay out observations and actions."""
        rows, n = self.rows, self.samples
        assert isinstance(buffer.observation, Tensor)
        self.data[: rows.inputs.stop - 1] = buffer.observation.reshape(n, -1).T
        self.data[rows.action] = self.model.encode_action(buffer.action.reshape(n, -1))

    @torch.no_grad()
    @quiet()
    def evaluate(self, buffer: RolloutBuffer) -> dict[str, Tensor]:
        """Return ``"log_prob"`` and the critics' values of the rollout, each ``[T, B]`` in its own units."""
        self.load_transitions(buffer)
        model, rows = self.model, self.rows
        results = {name: torch.empty(self.samples, device=model.device) for name in ("log_prob", *model.critics)}
        for first in range(0, self.samples, CHUNK):
            part = self.data[:, first : first + CHUNK]
            columns = part.shape[1]
            model.forward(model.arrays.view(part[None, rows.inputs]))
            log_prob = model.distribution(columns).log_prob(
                model.output("actor", columns), model.arrays.view(part[rows.action])
            )
            results["log_prob"][first : first + columns] = torch.as_tensor(log_prob)
            for name in model.critics:
                mean, std = moments(model, name)
                raw = torch.as_tensor(model.output(name, columns))
                results[name][first : first + columns] = raw * std + mean
        return {name: values.reshape(self.shape) for name, values in results.items()}

    def load_targets(self, algorithm: "PPO", buffer: RolloutBuffer) -> list[float]:
        """Lay out what the losses compare with; return the weights of the advantage rows."""
        rows, data = self.rows, self.data
        self.load_transitions(buffer)
        data[rows.old_log_prob] = buffer.log_prob.flatten()
        if buffer.old_entropy is not None:
            data[rows.old_entropy] = buffer.old_entropy.flatten()
        weights = []
        for row, (weight, advantage) in zip(
            (rows.advantage, rows.second_advantage), algorithm.advantage_terms(buffer), strict=False
        ):
            data[row] = advantage.flatten()
            weights.append(weight)
        for name in self.model.critics:
            if name == "entropy_value" and not buffer.entropy:
                continue
            mean, std = moments(self.model, name)
            data[getattr(rows, f"{name}_target")] = (getattr(buffer, f"{name}_target").flatten() - mean) / std
            if name == "value":
                data[rows.old_value] = (buffer.value.flatten() - mean) / std
        return weights

    def shuffle(self, epoch: Tensor, normalize: bool, weights: list[float]) -> None:
        """Gather an epoch in random order, and make its advantages those that the steps expect: ``−A/N``.

        Args:
            epoch: receives it, ``[R, n]``.
            normalize: whether advantages are normalised in every minibatch.
            weights: of the advantage rows.
        """
        rows, model = self.rows, self.model
        indices = torch.as_tensor(random_order(*self.shape), device=model.device)
        read = slice(0, rows.log_ratio)
        model.arrays.take_columns(
            model.arrays.view(self.data[read]), model.arrays.view(indices), model.arrays.view(epoch[read])
        )
        self.combine_advantages(epoch[rows.advantage : rows.second_advantage + 1], normalize, weights)

    def shift_mean(self, epoch: Tensor, shift: MeanShift | None) -> None:
        """Move the actions of a shuffled epoch ``[R, n]`` by what the policy's mean is shifted by, the other way."""
        if shift is not None:
            epoch[self.rows.action] -= self.own(shift.draw(self.samples)).T

    def own(self, samples: Tensor) -> Tensor:
        """Return those of an epoch's samples ``[n, ...]`` that are computed here: all."""
        return samples

    def combine_advantages(self, advantages: Tensor, normalize: bool, weights: list[float]) -> None:
        """Write ``−A/N``, for every minibatch's ``N`` samples, into the first of two rows of advantages ``[2, n]``."""
        whole = self.samples // self.batch_size * self.batch_size
        for part, size in ((advantages[:, :whole], self.batch_size), (advantages[:, whole:], self.samples - whole)):
            if part.shape[1]:
                terms = [row.view(-1, size) for row in part[: len(weights)]]
                if normalize:
                    terms = [_normalize_rows(term) for term in terms]
                products = [weight * term for weight, term in zip(weights, terms, strict=True)]
                part[0].view(-1, size).copy_(reduce(torch.add, products) * (-1.0 / size))

    @torch.no_grad()
    @quiet()
    def run(self, algorithm: "PPO", clip: "ClipRanges", trainer: Trainer | None = None) -> UpdateMetrics:
        """Train for all epochs, or until the KL divergence is too large.

        Args:
            algorithm: the model with its rollout.
            clip: clip ranges.
            trainer: makes the steps; default is this model's own.
        """
        trainer = trainer or self.alone
        weights = self.load_targets(algorithm, algorithm.rollout_buffer)
        settings = settings_of(algorithm, clip, self.model)
        metrics = UpdateMetrics()
        epochs: list[Tensor] = []
        made = done = 0
        for _ in range(algorithm.n_epochs):
            self.shuffle(trainer.epoch, algorithm.normalize_advantage, weights)
            self.shift_mean(trainer.epoch, algorithm.mean_shift())
            done = trainer.train(settings)
            epochs.append(trainer.epoch[self.rows.measured, : self._ends[abs(done) - 1]].clone())
            algorithm._n_updates += 1
            made += 1
            if algorithm.adapts_within_updates:
                self.measure(epochs, metrics, settings, abs(done))
                epochs = []
                algorithm.after_epoch(metrics.last["approx_kl"].item())
                settings = settings_of(algorithm, clip, self.model)
            if done < 0:
                break
        # All but the last epoch, which is also reported by itself, in one pass: its cost is that of calling operators.
        for part, count in ((epochs[:-1], len(self.sizes)), (epochs[-1:], abs(done))):
            if part:
                self.measure(part, metrics, settings, count)
        if done < 0:
            algorithm.report_early_stop(made - 1, metrics.last["approx_kl"].item())
        self.model.parameters.publish(self.model.policy)
        return metrics

    def measure(self, epochs: list[Tensor], metrics: UpdateMetrics, settings: PPOSettings, count: int) -> None:
        """Add up the means of minibatches, from what the steps wrote.

        Args:
            epochs: the measured rows of epochs with ``count`` minibatches each.
            metrics: takes them.
            settings: of the update.
            count: minibatches an epoch.
        """
        end = self._ends[count - 1]
        weight = self._weight[:end].repeat(len(epochs))
        epoch = dict(zip(self.rows.measured_names(), torch.cat(epochs, dim=1), strict=True))
        log_ratio, advantage = epoch["log_ratio"], epoch["advantage"]
        ratio = log_ratio.exp()
        low: Any = settings.clip_range
        high: Any = settings.clip_range_high
        rules: dict[str, Tensor] = {}
        if settings.balance is not None:
            rules["clip_low"], rules["clip_high"] = self._bounds(ratio, -advantage, settings.balance, count)
            low, high = 1 - rules["clip_low"], rules["clip_high"] - 1
        if settings.entropy_bounds is not None:
            bounds = settings.entropy_bounds
            change = entropy_ratio(epoch["entropy"], epoch["old_entropy"], bounds.discrete)
            rules["entropy_ratio_kept"] = within(change, bounds.low, bounds.high)
        clipped = advantage * ratio.clamp(1 - low, 1 + high)
        # `advantage` is −A/N: its products are each sample's share of its minibatch's loss.
        samples = {
            "policy_gradient_loss": torch.maximum(advantage * ratio, clipped),
            "entropy_loss": -epoch["entropy"] * weight,
            "approx_kl": ((ratio - 1) - log_ratio) * weight,
            "clip_fraction": ((ratio - 1 > high) | (1 - ratio > low)) * weight,
            "value_loss": (epoch["value"] - epoch["value_target"]).square() * weight,
        }
        loss = samples["policy_gradient_loss"] + settings.vf_coef * samples["value_loss"]
        if settings.ent_coef:
            loss = loss + settings.ent_coef * samples["entropy_loss"]
        if settings.entropy_vf_coef is not None:
            error = epoch["entropy_value"] - epoch["entropy_value_target"]
            samples["entropy_value_loss"] = error.square() * weight
            loss = loss + settings.vf_coef * settings.entropy_vf_coef * samples["entropy_value_loss"]
        samples |= {name: values * weight for name, values in rules.items()}
        start = len(loss) - (end - (self._ends[count - 2] if count > 1 else 0))
        sums = self.total({name: values.sum() for name, values in samples.items()} | {"loss": loss[start:].sum()})
        last_loss = sums.pop("loss")
        metrics.add(sums, len(epochs) * count, last_loss)

    def _bounds(self, ratio: Tensor, advantage: Tensor, balance: "Balance", count: int) -> tuple[Tensor, Tensor]:
        """Return the bounds that each sample's minibatch has chosen, for epochs with ``count`` minibatches each."""
        sizes = self.sizes[:count] * (len(ratio) // self._ends[count - 1])
        lows, highs = (ratio.new_tensor(bounds) for bounds in (balance.lows, balance.highs))
        pairs = [
            balanced_bounds(*samples, lows, highs, balance.target)
            for samples in zip(ratio.split(sizes), advantage.split(sizes), strict=True)
        ]
        repeats = torch.tensor(sizes, device=ratio.device)
        low, high = (torch.stack(bounds).repeat_interleave(repeats) for bounds in zip(*pairs, strict=True))
        return low, high

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of scalars over all processes that train; here there is one."""
        return values


def _normalize_rows(advantage: Tensor) -> Tensor:
    """Apply :func:`~maxent_onpolicy.estimators.losses.normalize_advantage` to each row of ``[M, N]``."""
    if advantage.shape[1] == 1:
        return advantage
    std, mean = torch.std_mean(advantage, dim=1, keepdim=True)
    return (advantage - mean) / (std + 1e-8)


def moments(model: PackedModel, critic: str) -> tuple[float | Tensor, float | Tensor]:
    """Return mean and standard deviation that PopArt puts on a critic's output; (0, 1) without it."""
    head = getattr(model.policy, f"{critic}_net")
    return head.moments if isinstance(head, PopArtLinear) else (0.0, 1.0)


def settings_of(algorithm: "PPO", clip: "ClipRanges", model: PackedModel) -> PPOSettings:
    """Collect the numbers of one update."""
    group = model.policy.optimizer.param_groups[0]
    value_std = float(moments(model, "value")[1])
    return PPOSettings(
        clip_range=clip.policy,
        clip_range_high=clip.policy if clip.high is None else clip.high,
        value_clip=None if clip.value is None else clip.value / value_std,
        ent_coef=algorithm.ent_coef,
        vf_coef=algorithm.vf_coef,
        entropy_vf_coef=getattr(algorithm, "entropy_vf_coef", None) if algorithm.rollout_buffer.entropy else None,
        max_grad_norm=algorithm.max_grad_norm,
        target_kl=algorithm.target_kl,
        learning_rate=float(group["lr"]),
        betas=group["betas"],
        adam_epsilon=group["eps"],
        ent_coef_varies=any(controller.quantity == "ent_coef" for controller in algorithm.controllers),
        balance=clip.balance,
        entropy_bounds=clip.entropy_bounds,
    )
