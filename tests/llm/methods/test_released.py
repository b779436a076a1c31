"""Each method whose code was released against numbers of that code, for the same inputs.

``released.json`` has for each the repository, its version, file and function, and what it returned for the inputs of
``released_inputs.py``.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from released_inputs import ENTROPIES, TURNS, inputs, turn_inputs

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods import METHODS, EntropyControl, make_method, nucleus_entropy
from maxent_onpolicy.llm.methods.formulas import epo_phase_weight, signed_entropy

RELEASED = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
BATCH = inputs()
Numbers = dict[str, Any]


def loss(method: EntropyControl, batch: TokenBatch) -> torch.Tensor:
    """The loss of a method as its documentation says, a mean over all own tokens."""
    low, high = method.bounds(batch, 0.2, 0.2)
    advantage, ratio = method.shape(batch), batch.ratio
    each = torch.maximum(-ratio * advantage, -ratio.clamp(1 - low, 1 + high) * advantage)
    return (method.weight(batch) * each)[batch.mask].mean() + method.penalty(batch)


def loss_and_gradient(method: EntropyControl, batch: TokenBatch = BATCH) -> Numbers:
    log_prob = batch.log_prob.clone().requires_grad_()
    found = loss(method, batch.replaced(log_prob=log_prob))
    return {"loss": found.detach(), "gradient": torch.autograd.grad(found, log_prob)[0]}


def own(values: torch.Tensor, batch: TokenBatch = BATCH) -> torch.Tensor:
    """Zero what others wrote, as the frozen numbers are."""
    return torch.where(batch.mask, values, 0.0)


def epo() -> Numbers:
    method = make_method("epo", coef=1.0, horizon=None)
    method.observe(BATCH)
    entropy, weights = BATCH.entropy[BATCH.mask].mean(), [epo_phase_weight(epoch, 7) for epoch in range(1, 8)]
    return {"penalty": (method.penalty(BATCH) + entropy) * BATCH.mask.sum(), "weights": weights}


def erc() -> Numbers:
    method = make_method("erc")
    log_prob = BATCH.log_prob.clone().requires_grad_()
    ratio = BATCH.replaced(log_prob=log_prob).ratio
    each = (-method.weight(BATCH) * ratio * BATCH.advantage)[BATCH.mask].mean()
    return {"gradient": torch.autograd.grad(each, log_prob)[0]}


def siren() -> Numbers:
    logits = torch.stack(
        [BATCH.entropy, BATCH.advantage, BATCH.log_prob, BATCH.old_entropy, BATCH.old_log_prob], -1
    ).float()
    # Whose entropy is held has a gradient: all of a completion's chosen tokens the same.
    method, entropy = make_method("siren", coef=1.0), BATCH.entropy.clone().requires_grad_()
    method.anchor = 0.0
    slope = torch.autograd.grad(method.penalty(BATCH.replaced(entropy=entropy)), entropy)[0]
    return {"chosen": (slope != 0).double(), "nucleus": nucleus_entropy(logits, 0.8)}


def bapo() -> Numbers:
    targets = RELEASED["bapo"]["numbers"]["targets"]
    found = [make_method("bapo", low=(0.6, 0.62), target=each / (1 + each)).bounds(BATCH, 0.2, 0.2) for each in targets]
    return {"targets": targets, "bounds": [[1 - float(low), 1 + float(high)] for low, high in found]}


def hapo() -> Numbers:
    method = make_method("hapo")
    low, high = (own(each) for each in method.bounds(BATCH, 0.0, 0.0))
    # The released distance has no sign; its other functions were given ours.
    distance = torch.zeros_like(BATCH.entropy)
    distance[BATCH.mask] = signed_entropy(BATCH.entropy[BATCH.mask], 0.8).abs()
    return {"distance": distance, "low": low, "high": high, "advantage": own(method.shape(BATCH))}


def aepo_agentic() -> Numbers:
    found = loss_and_gradient(make_method("aepo_agentic"), BATCH.replaced(log_prob=BATCH.old_log_prob))
    return {**found, "gradient": own(found["gradient"])}


def followed(name: str, read: Callable[[Any], float | None], **settings: Any) -> list[float | None]:
    """What a method says after each of some batches of known entropy."""
    method, found = make_method(name, target=1.0, **settings), []
    for entropy in ENTROPIES:
        method.observe(BATCH.replaced(old_entropy=torch.full_like(BATCH.entropy, entropy)))
        found.append(read(method))
    return found


def bonus(method: EntropyControl) -> float:
    """The weight of the entropy bonus in force."""
    return -(method.penalty(BATCH) / BATCH.entropy[BATCH.mask].mean()).item()


OURS: dict[str, Callable[[], Numbers]] = {
    "clip_cov": lambda: loss_and_gradient(make_method("clip_cov", share=1.0, low=0.1, high=0.8)),
    "kl_cov": lambda: loss_and_gradient(make_method("kl_cov", share=0.1, coef=0.7)),
    "opo": lambda: {"advantage": own(make_method("opo").shape(BATCH))},
    "epo": epo,
    "siren": siren,
    "entropy_shaped": lambda: {"advantage": own(make_method("entropy_shaped").shape(BATCH))},
    "steer": lambda: {"weight": own(make_method("steer").weight(BATCH))},
    "erc": erc,
    "bapo": bapo,
    "hapo": hapo,
    "riskpo": lambda: {"advantage": make_method("riskpo", bundle=TURNS - 1).shape(BATCH)[:, 0]},
    "empg": lambda: {"advantage": own(make_method("empg").shape(turn_inputs()), turn_inputs())},
    "aepo_agentic": aepo_agentic,
    "aepo_arbitrary": lambda: {"temperature": followed("aepo_arbitrary", lambda method: method.temperature())},
    "top_entropy": lambda: {"weight": own(make_method("top_entropy").weight(BATCH))},
    "adaptive_coefficient": lambda: {
        "coefficient": followed("adaptive_coefficient", bonus, initial=0.3, delta=0.2, limits=(0.0, 0.6))
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_numbers_of_released_code(name: str) -> None:
    found = OURS[name]()
    assert found.keys() == RELEASED[name]["numbers"].keys()
    for key, expected in RELEASED[name]["numbers"].items():
        ours = torch.as_tensor(found[key], dtype=torch.float64)
        torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_methods_that_claim_it_and_no_others_have_such_numbers() -> None:
    claimed = {name: each.released for name, each in METHODS.items() if each.released is not None}
    assert claimed == {name: each["repository"] for name, each in RELEASED.items()}
