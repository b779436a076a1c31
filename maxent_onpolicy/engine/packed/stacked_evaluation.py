"""Values and log-probabilities of several models' rollouts, by one batched product a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from maxent_onpolicy.engine.packed.model import PackedModel, PackedNetworks
from maxent_onpolicy.engine.packed.update import moments

COLUMNS = 65536  # of all models, a forward pass: bounds its memory


@torch.no_grad()
def evaluate_together(models: Sequence[PackedModel], observation: Tensor, action: Tensor) -> list[dict[str, Tensor]]:
    """Evaluate the rollouts of ``S`` models of one ``model_kind``, with ``B`` environments each.

    Args:
        models: theirs.
        observation: ``[T, S·B, ...]``.
        action: ``[T, S·B, ...]`` as sampled.

    Returns:
        For each model ``"log_prob"`` and its critics' values, ``[T, B]`` each, in their own units.
    """
    count, n_steps = len(models), len(observation)
    flat = torch.stack([model.parameters.flat for model in models])
    # There is no backward pass, so nothing is written to the gradient.
    networks = PackedNetworks(models[0].policy, models[0].parameters.layout, flat, flat)
    inputs = _by_model(observation.float(), count).mT
    inputs = torch.cat([inputs, inputs.new_ones(count, 1, inputs.shape[2])], dim=1)
    encoded = networks.encode_action(_by_model(action, count).flatten(0, 1)).unflatten(1, (count, -1)).transpose(0, 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in ("log_prob", *networks.critics)}
    chunk = max(1, COLUMNS // count)
    for each_input, each_action in zip(inputs.split(chunk, dim=2), encoded.split(chunk, dim=2), strict=True):
        columns = each_input.shape[2]
        networks.forward(networks.arrays.view(each_input.unsqueeze(1)))
        log_prob = networks.distribution(columns).log_prob(
            networks.output("actor", columns), networks.arrays.view(each_action)
        )
        parts["log_prob"].append(torch.as_tensor(log_prob))
        for name in networks.critics:  # whose memory the next chunk uses again
            parts[name].append(torch.as_tensor(networks.output(name, columns)).clone())
    values = {name: torch.cat(part, dim=1).unflatten(1, (n_steps, -1)) for name, part in parts.items()}
    return [
        _of_model(model, {name: value[index] for name, value in values.items()}) for index, model in enumerate(models)
    ]


def _by_model(value: Tensor, count: int) -> Tensor:
    """Return ``[S, T·B, D]`` of ``[T, S·B, ...]``."""
    flat = value.reshape(len(value), count, -1, value[0, 0].numel())
    return flat.transpose(0, 1).flatten(1, 2)


def _of_model(model: PackedModel, raw: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {"log_prob": raw["log_prob"].clone()}
    for name in model.critics:
        mean, std = moments(model, name)
        result[name] = raw[name] * std + mean
    return result
