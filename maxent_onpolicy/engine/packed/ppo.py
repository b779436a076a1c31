"""PPO's minibatch step with hand-derived gradients: forward, loss, backward, clipping and Adam on flat vectors.

The loss is that of :meth:`maxent_onpolicy.PPO._loss`. What does not change between
two epochs (targets, actions, observations) is laid out once a rollout as the rows
of one matrix; an epoch gathers its columns once, and a minibatch is a slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.arrays import Array
from maxent_onpolicy.engine.packed.distributions import PackedDistribution
from maxent_onpolicy.engine.packed.model import PackedNetworks
from maxent_onpolicy.estimators.control import balanced_bounds, entropy_ratio, within

if TYPE_CHECKING:
    from maxent_onpolicy.controllers import Balance, EntropyBounds


@dataclass(frozen=True)
class PPOSettings:
    """Numbers of one update.

    Attributes:
        clip_range: ε of the clipped objective, below 1.
        clip_range_high: ε above 1.
        value_clip: clip of the value update in units of the *normalised* value, or ``None``.
        ent_coef: weight of the one-step entropy bonus.
        vf_coef: weight of the value loss.
        entropy_vf_coef: weight of the entropy critic's loss relative to it; ``None`` without an entropy critic.
        max_grad_norm: gradient clipping.
        target_kl: stop where the approximate KL divergence of a minibatch exceeds 1.5 times this, or ``None``.
        learning_rate: Adam's.
        betas: Adam's.
        adam_epsilon: Adam's.
        ent_coef_varies: whether ``ent_coef`` changes between updates, or between stacked models.
        balance: bounds of the ratio that every minibatch chooses, or ``None``.
        entropy_bounds: of the entropy ratio, or ``None``.
    """

    clip_range: float
    clip_range_high: float
    value_clip: float | None
    ent_coef: float
    vf_coef: float
    entropy_vf_coef: float | None
    max_grad_norm: float
    target_kl: float | None
    learning_rate: float
    betas: tuple[float, float]
    adam_epsilon: float
    ent_coef_varies: bool = False
    balance: "Balance | None" = None
    entropy_bounds: "EntropyBounds | None" = None


class StepConstants(NamedTuple):
    """The settings as a step for ``N`` columns takes them: each a number, or ``[S, 1]`` for ``S`` stacked models.

    Attributes:
        ratio_high: 1 + ε.
        ratio_low: 1 − ε.
        entropy_weight: of each sample's entropy in the loss.
        critic_scale: for each critic to be trained, what its error times this is the loss's gradient.
        value_high: highest change of the value, or ``None``.
        value_low: its negative.
        balance: candidates of the lower and the upper bound, and the share of positive advantages; or ``None``.
        entropy_bounds: of the entropy ratio, or ``None``.
    """

    ratio_high: Array
    ratio_low: Array
    entropy_weight: float | Array
    critic_scale: dict[str, Array]
    value_high: Array | None
    value_low: Array | None
    balance: tuple[Tensor, Tensor, float] | None = None
    entropy_bounds: "EntropyBounds | None" = None


class Rows(NamedTuple):
    """Rows of the epoch matrix ``[R, n]``."""

    inputs: slice  # observation, then a row of ones
    action: slice
    old_log_prob: int
    advantage: int
    second_advantage: int
    value_target: int
    entropy_value_target: int
    old_value: int
    old_entropy: int
    # Written by the steps, read for logging.
    log_ratio: int
    value: int
    entropy_value: int
    entropy: int
    total: int

    @property
    def measured(self) -> slice:
        """The rows that tell how an epoch went."""
        return slice(self.advantage, self.total)

    def measured_names(self) -> list[str]:
        """Return the names of :attr:`measured`, in order."""
        fields = self._asdict()
        return sorted(
            (name for name, row in fields.items() if isinstance(row, int) and self.advantage <= row < self.total),
            key=fields.__getitem__,
        )

    @classmethod
    def for_model(cls, input_rows: int, action_rows: int) -> "Rows":
        """Lay out the rows for ``input_rows`` (with the ones) and ``action_rows``."""
        start = input_rows + action_rows
        names = [field for field in cls._fields if field not in ("inputs", "action", "total")]
        places = {name: start + index for index, name in enumerate(names)}
        return cls(inputs=slice(0, input_rows), action=slice(input_rows, start), total=start + len(names), **places)


class _Batch(NamedTuple):
    """Views of one minibatch's columns of the epoch matrix, made once."""

    inputs: Array
    inputs_transposed: Array
    action: Array
    fields: dict[str, Array]


class PPOStep:
    """One minibatch step for a fixed number of columns.

    Args:
        model: whose parameters it trains; stacked models are trained at once.
        rows: of the epoch matrix.
        columns: samples of the minibatch that are computed here.
        samples: of the whole minibatch ``N``, over which the loss is a mean.
    """

    def __init__(self, model: PackedNetworks, rows: Rows, columns: int, samples: int) -> None:
        self.model, self.rows, self.columns, self.samples = model, rows, columns, samples
        self.distribution: PackedDistribution = model.distribution(columns)
        self._ratio, self._clipped, self._weight, self._mask = (model.make(columns) for _ in range(4))
        self._value_scratch = model.make(columns)
        self._outputs = {name: model.output(name, columns) for name in model.critics}
        self._deltas = {name: model.output_delta(name, columns) for name in model.critics}
        self._parameters = model.output("actor", columns)
        self._actor_delta = model.output_delta("actor", columns)

    def constants(self, settings: Sequence[PPOSettings]) -> StepConstants:
        """Return the settings of each model as arrays; what is ``None`` is so in all, as are the bounds' candidates."""
        per_model, first = self.model.per_model, settings[0]
        coefficients: dict[str, list[float]] = {"value": [each.vf_coef for each in settings]}
        if any(each.entropy_vf_coef is not None for each in settings):
            coefficients["entropy_value"] = [each.vf_coef * (each.entropy_vf_coef or 0.0) for each in settings]
        clips = None if first.value_clip is None else [each.value_clip or 0.0 for each in settings]
        entropy_weights = [-float(each.ent_coef) / self.samples for each in settings]
        balance = None
        if first.balance is not None:
            lows, highs = (torch.tensor(bounds, device=self.model.device) for bounds in first.balance[:2])
            balance = (lows, highs, first.balance.target)
        return StepConstants(
            ratio_high=per_model([1 + each.clip_range_high for each in settings]),
            ratio_low=per_model([1 - each.clip_range for each in settings]),
            entropy_weight=per_model(entropy_weights) if first.ent_coef_varies else entropy_weights[0],
            critic_scale={
                name: per_model([2.0 * value / self.samples for value in values])
                for name, values in coefficients.items()
                if name in self._outputs
            },
            value_high=None if clips is None else per_model(clips),
            value_low=None if clips is None else per_model([-clip for clip in clips]),
            balance=balance,
            entropy_bounds=first.entropy_bounds,
        )

    def views(self, epoch: Array, first: int) -> _Batch:
        """Return the views of the minibatch that starts at column ``first``."""
        part = epoch[..., first : first + self.columns]
        inputs = part[..., None, self.rows.inputs, :]
        fields = {
            name: part[..., getattr(self.rows, name), :]
            for name in self.rows._fields
            if name not in ("inputs", "action", "total")
        }
        transposed = inputs.mT if isinstance(inputs, Tensor) else inputs.swapaxes(-1, -2)
        return _Batch(inputs, transposed, part[..., self.rows.action, :], fields)

    def loss_gradient(self, batch: _Batch, constants: StepConstants) -> None:
        """Write the loss's gradient into the model's; log-ratios, values and entropies into ``batch``."""
        arrays = self.model.arrays
        fields = batch.fields
        self.model.forward(batch.inputs)
        log_prob = self.distribution.log_prob(self._parameters, batch.action)
        log_ratio, ratio, weight = fields["log_ratio"], self._ratio, self._weight
        arrays.subtract(log_prob, fields["old_log_prob"], out=log_ratio)
        arrays.exp(log_ratio, out=ratio)
        # `advantage` holds −A/N. So the loss is the maximum of both products, and its gradient passes where the
        # unclipped one is not smaller.
        arrays.multiply(ratio, fields["advantage"], out=weight)
        low, high = constants.ratio_low, constants.ratio_high
        if constants.balance is not None:
            low, high = self._balanced(fields["advantage"], *constants.balance)
        arrays.minimum(ratio, high, out=self._clipped)
        arrays.maximum(self._clipped, low, out=self._clipped)
        arrays.multiply(self._clipped, fields["advantage"], out=self._clipped)
        arrays.less_equal(self._clipped, weight, out=self._mask)
        arrays.multiply(weight, self._mask, out=weight)
        fields["entropy"][...] = self.distribution.entropy()
        if constants.entropy_bounds is not None:
            self._keep_entropy(fields, constants.entropy_bounds)
        self.distribution.backward(weight, constants.entropy_weight, self._actor_delta)
        for name in constants.critic_scale:
            self._value_gradient(name, batch, constants)
        self.model.backward(batch.inputs_transposed)

    def _balanced(self, advantage: Array, lows: Tensor, highs: Tensor, target: float) -> tuple[Array, Array]:
        """Return the bounds of the ratio ``[..., 1]`` that balance a minibatch, whose ``advantage`` holds ``−A/N``."""
        ratio = torch.as_tensor(self._ratio)
        bounds = balanced_bounds(ratio, -torch.as_tensor(advantage), lows, highs, target)
        low, high = (self.model.arrays.view(bound.unsqueeze(-1)) for bound in bounds)
        return low, high

    def _keep_entropy(self, fields: dict[str, Array], bounds: "EntropyBounds") -> None:
        """Take the policy gradient of samples whose entropy has changed too much."""
        entropy, old_entropy = (torch.as_tensor(fields[name]) for name in ("entropy", "old_entropy"))
        weight = torch.as_tensor(self._weight)
        weight *= within(entropy_ratio(entropy, old_entropy, bounds.discrete), bounds.low, bounds.high)

    def approx_kl(self, batch: _Batch) -> Array:
        """Return the estimated KL divergence of the minibatch whose gradient was computed last, for each model."""
        return (self._ratio - 1 - batch.fields["log_ratio"]).sum(-1) / self.samples

    def _value_gradient(self, name: str, batch: _Batch, constants: StepConstants) -> None:
        arrays, value, delta = self.model.arrays, self._outputs[name], self._deltas[name]
        target, scale = batch.fields[f"{name}_target"], constants.critic_scale[name]
        batch.fields[name][...] = value
        if constants.value_high is None or name == "entropy_value":
            arrays.subtract(value, target, out=delta)
            arrays.multiply(delta, scale, out=delta)
            return
        # old + clip(value − old, ±c): no gradient outside the range.
        old, change, inside = batch.fields["old_value"], self._value_scratch, self._mask
        arrays.subtract(value, old, out=change)
        arrays.minimum(change, constants.value_high, out=delta)
        arrays.maximum(delta, constants.value_low, out=delta)
        arrays.subtract(change, delta, out=change)
        arrays.add(delta, old, out=delta)
        batch.fields[name][...] = delta
        arrays.subtract(delta, target, out=delta)
        arrays.multiply(delta, scale, out=delta)
        arrays.multiply(change, change, out=change)
        arrays.less_equal(change, self.model.scalar(0.0), out=inside)
        arrays.multiply(delta, inside, out=delta)
