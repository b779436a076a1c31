"""The policy loss for verl: worked out by hand, and evaluated by verl itself where verl is installed."""

import os
import re
from importlib import import_module, metadata
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maxent_onpolicy.llm.advantages import entropy_to_go, group_baseline, token_position, token_soft_advantage
from maxent_onpolicy.llm.verl.advantage import (
    EntropyToGoSettings,
    compared,
    micro_batch_soft_advantage,
    micro_batch_to_go,
)
from maxent_onpolicy.llm.verl.host import check_verl

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "llm.md"
ACTOR = "actor_rollout_ref.actor."

# Surprises 1, 2, 3 and 3, 1; to go with γ_H = 1/2: 2.75, 3.5, 3 and 3.5, 1; means 3.125, 2.25, 3.
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])
OLD = torch.tensor([[-1.0, -2.0, -3.0], [-3.0, -1.0, -7.0]])
FUTURE = torch.tensor([[-0.375, 1.25, 0.0], [0.375, -1.25, 0.0]])
TASK = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 9.0]])
# Ratios 1.1, 1.5 (above the clip range) and 1.
NEW = OLD + torch.tensor([[log(1.1), log(1.5), 0.0], [0.0, 0.0, 0.3]])
EXAMPLE = {"tau": 0.4, "entropy_gamma": 0.5, "entropy_scale": "none"}


def random_batch(rows: int = 4, tokens: int = 6) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(5)
    old = -3 * torch.rand(rows, tokens, generator=random)
    mask = torch.rand(rows, tokens, generator=random) < 0.7
    mask[:, 0] = True
    return {
        "old_log_prob": old,
        "log_prob": old + 0.4 * torch.randn(rows, tokens, generator=random),
        "advantages": torch.randn(rows, 1, generator=random).expand(rows, tokens).contiguous(),
        "response_mask": mask,
    }


# --- our part, without verl ---


def test_the_entropy_to_go_of_an_example_by_hand():
    torch.testing.assert_close(micro_batch_to_go(OLD, MASK.bool(), 0.5), FUTURE)


def test_the_advantage_of_an_example_by_hand():
    soft = micro_batch_soft_advantage(TASK, FUTURE, MASK.bool(), EntropyToGoSettings(**EXAMPLE))
    torch.testing.assert_close(soft, torch.tensor([[0.85, 1.5, 1.0], [-0.85, -1.5, 9.0]]))


@pytest.mark.parametrize("scale", ["own", "task", "none"])
def test_it_is_the_estimator_of_the_trainer_with_one_group(scale: str):
    batch = random_batch()
    old, mask = batch["old_log_prob"], batch["response_mask"]
    to_go = entropy_to_go(-old, mask, 0.9)
    future = to_go - group_baseline(to_go, token_position(mask), torch.zeros(4, dtype=torch.long))
    expected = token_soft_advantage(batch["advantages"], future, mask, 0.3, scale)

    found = micro_batch_soft_advantage(
        batch["advantages"], micro_batch_to_go(old, mask, 0.9), mask, EntropyToGoSettings(0.3, 0.9, scale)
    )

    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=0)
    assert torch.equal(found[~mask], batch["advantages"][~mask])


def test_completions_without_tokens_are_left_alone():
    batch = random_batch()
    empty = torch.cat([batch["response_mask"], torch.zeros(1, 6, dtype=torch.bool)])
    old = torch.cat([batch["old_log_prob"], torch.full((1, 6), torch.nan)])

    found = micro_batch_to_go(old, empty, 0.9)

    assert torch.equal(found[:4], micro_batch_to_go(old[:4], empty[:4], 0.9))
    assert (found[4] == 0).all()


def test_a_completion_that_is_alone_keeps_its_advantage():
    mask = MASK.bool() & torch.tensor([[True], [False]])
    future = micro_batch_to_go(OLD, mask, 0.5)
    assert (future == 0).all()
    assert torch.equal(micro_batch_soft_advantage(TASK, future, mask, EntropyToGoSettings(0.4)), TASK)
    assert compared(mask) == 0.0


def test_nothing_is_changed_without_tokens():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    future = micro_batch_to_go(OLD, mask, 0.5)
    assert torch.equal(micro_batch_soft_advantage(TASK, future, mask, EntropyToGoSettings(0.4)), TASK)
    assert compared(mask) == 0.0


def test_tokens_that_have_a_baseline_are_counted_by_position():
    assert compared(MASK.bool()) == pytest.approx(4 / 5)
    apart = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1]]).bool()  # the first two of each
    assert compared(apart) == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": -0.1}, r"`tau` must be in \[0, inf\), got -0.1"),
        ({"tau": "0.1"}, "`tau` must be a number"),
        ({"entropy_gamma": 1.01}, r"`entropy_gamma` must be in \[0, 1\], got 1.01"),
        ({"entropy_scale": "tasks"}, r"`entropy_scale` must be one of .*did you mean 'task'"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        EntropyToGoSettings(**changes)


def test_without_verl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("maxent_onpolicy.llm.hosts.metadata.version", missing)
    with pytest.raises(ImportError, match=re.escape("pip install 'maxent-onpolicy[llm-verl]'")):
        check_verl()


def test_another_version_of_verl_is_named_in_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maxent_onpolicy.llm.hosts.metadata.version", lambda name: "0.10.0")
    with pytest.warns(UserWarning, match=r"verl 0.10.0 is installed, and this was tested with 0.9.0 to 0.9.1"):
        check_verl()


# --- evaluated by verl ---


@pytest.fixture(scope="module")
def algorithms() -> Any:
    """verl's module of losses, with ours registered."""
    module = pytest.importorskip("verl.trainer.ppo.core_algos")
    import_module("maxent_onpolicy.llm.verl.loss")
    return module


def actor(**settings: Any) -> Any:
    from verl.workers.config import ActorConfig

    from maxent_onpolicy.llm.verl.loss import EntropyAdvantageLossConfig

    policy_loss = EntropyAdvantageLossConfig(**settings)
    return ActorConfig(strategy="fsdp", rollout_n=2, ppo_micro_batch_size_per_gpu=2, policy_loss=policy_loss)


def evaluate(algorithms: Any, name: str, config: Any, **batch: Tensor) -> tuple[Tensor, dict[str, float], Tensor]:
    """Loss, metrics and gradient of a loss that verl finds under a name."""
    log_prob = batch.pop("log_prob").clone().requires_grad_()
    loss, metrics = algorithms.get_policy_loss_fn(name)(log_prob=log_prob, config=config, **batch)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    return loss.detach(), metrics, gradient


def example() -> dict[str, Tensor]:
    return {"old_log_prob": OLD, "log_prob": NEW, "advantages": TASK, "response_mask": MASK}


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_with_tau_0_it_is_verls_loss(algorithms: Any, mode: str, weighted: bool):
    batch = random_batch()
    if weighted:
        batch["rollout_is_weights"] = torch.linspace(0.5, 2.0, 24).view(4, 6)

    ours = evaluate(algorithms, "entropy_advantage", actor(tau=0.0), **batch, loss_agg_mode=mode)
    verls = evaluate(algorithms, "vanilla", actor(tau=0.0), **batch, loss_agg_mode=mode)

    assert torch.equal(ours[0], verls[0])
    assert ours[1] == verls[1]
    assert torch.equal(ours[2], verls[2])
    assert verls[2].abs().sum() > 0


def test_the_loss_of_an_example_by_hand(algorithms: Any):
    loss, metrics, gradient = evaluate(algorithms, "entropy_advantage", actor(**EXAMPLE), **example())

    # −(0.85·1.1 + 1.5·1.2 + 1 − 0.85 − 1.5) / 5
    assert loss.item() == pytest.approx(-0.277)
    torch.testing.assert_close(gradient, torch.tensor([[-0.187, 0.0, -0.2], [0.17, 0.3, 0.0]]))
    assert metrics["actor/entropy_advantage_std"] == pytest.approx(0.68125**0.5)
    assert metrics["actor/entropy_advantage_compared"] == pytest.approx(4 / 5)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(1 / 5)


def test_it_is_verls_loss_of_the_shaped_advantage(algorithms: Any):
    batch, config = random_batch(), actor(tau=0.3, entropy_gamma=0.9)
    ours = evaluate(algorithms, "entropy_advantage", config, **batch)
    future = micro_batch_to_go(batch["old_log_prob"], batch["response_mask"], 0.9)
    shaped = micro_batch_soft_advantage(
        batch["advantages"], future, batch["response_mask"], EntropyToGoSettings(0.3, 0.9)
    )
    verls = evaluate(algorithms, "vanilla", config, **batch | {"advantages": shaped})
    plain = evaluate(algorithms, "vanilla", config, **batch)

    assert torch.equal(ours[0], verls[0])
    assert torch.equal(ours[2], verls[2])
    assert {name: ours[1][name] for name in verls[1]} == verls[1]
    assert not torch.allclose(ours[2], plain[2])


def test_padding_does_not_matter(algorithms: Any):
    batch = random_batch()
    padded = {name: torch.nn.functional.pad(value, (0, 3, 0, 1)) for name, value in batch.items()}
    noise = torch.linspace(-30.0, -20.0, 45).view(5, 9)
    for name in ("old_log_prob", "log_prob", "advantages"):
        padded[name] = torch.where(padded["response_mask"], padded[name], noise)

    here = evaluate(algorithms, "entropy_advantage", actor(tau=0.3), **batch)
    there = evaluate(algorithms, "entropy_advantage", actor(tau=0.3), **padded)

    torch.testing.assert_close(there[0], here[0])
    torch.testing.assert_close(there[2][:4, :6], here[2])
    assert (there[2][~padded["response_mask"]] == 0).all()
    assert there[1] == pytest.approx(here[1])


def test_the_advantage_has_no_gradient(algorithms: Any):
    """The surprise is constant in an update: vanilla on the detached advantage passes as much to old_log_prob."""
    old, advantages = OLD.clone().requires_grad_(), TASK.clone().requires_grad_()
    config = actor(**EXAMPLE)
    loss, _ = algorithms.get_policy_loss_fn("entropy_advantage")(old, NEW, advantages, MASK, config=config)
    shaped = micro_batch_soft_advantage(TASK, FUTURE, MASK.bool(), EntropyToGoSettings(**EXAMPLE))
    again = OLD.clone().requires_grad_()
    expected, _ = algorithms.get_policy_loss_fn("vanilla")(again, NEW, shaped, MASK, config=config)

    through_old, through_advantages = torch.autograd.grad(loss, [old, advantages], allow_unused=True)

    torch.testing.assert_close(through_old, torch.autograd.grad(expected, again)[0])
    assert through_advantages is None


def test_settings_that_are_not_there_are_asked_for(algorithms: Any):
    from verl.workers.config import ActorConfig

    config = ActorConfig(strategy="fsdp", rollout_n=2, ppo_micro_batch_size_per_gpu=2)
    target = "policy_loss._target_=maxent_onpolicy.llm.verl.loss.EntropyAdvantageLossConfig"
    with pytest.raises(ValueError, match=rf"got PolicyLossConfig; set .*{re.escape(target)}"):
        evaluate(algorithms, "entropy_advantage", config, **example())


def test_micro_batches_of_one_completion_are_refused_where_all_are(algorithms: Any):
    from verl.workers.config import ActorConfig

    single = {"strategy": "fsdp", "rollout_n": 2, "ppo_micro_batch_size_per_gpu": 1}
    batch = {name: value[:1] for name, value in example().items()}
    with pytest.raises(ValueError, match="`ppo_micro_batch_size_per_gpu` must be at least 2"):
        evaluate(algorithms, "entropy_advantage", ActorConfig(**single, policy_loss=actor().policy_loss), **batch)

    dynamic = ActorConfig(**single, use_dynamic_bsz=True, policy_loss=actor().policy_loss)
    loss, metrics, _ = evaluate(algorithms, "entropy_advantage", dynamic, **batch)
    assert torch.equal(loss, evaluate(algorithms, "vanilla", dynamic, **batch)[0])
    assert metrics["actor/entropy_advantage_compared"] == 0.0


def test_the_settings_refuse_another_loss(algorithms: Any):
    with pytest.raises(ValueError, match=r"`policy_loss.loss_mode` must be one of 'entropy_advantage'; got 'vanilla'"):
        actor(loss_mode="vanilla")


# --- the command of the guide, and verl's own caller of the loss ---


def configured(*more: str) -> Any:
    """The actor's configuration, as verl's workers make it from the overrides that the guide gives."""
    import verl
    from hydra import compose, initialize_config_dir
    from verl.utils.config import omega_conf_to_dataclass

    guide = GUIDE.read_text(encoding="utf-8")
    overrides = re.findall(rf"^ +(\+?{re.escape(ACTOR)}\S+)", guide, re.MULTILINE)
    assert len(overrides) >= 5
    folder = os.path.join(os.path.dirname(verl.__file__), "trainer", "config")
    with initialize_config_dir(folder, version_base=None):
        composed = compose("ppo_trainer", [*overrides, *more])
    return omega_conf_to_dataclass(composed.actor_rollout_ref.actor)


def test_the_command_of_the_guide_sets_the_loss(algorithms: Any):
    settings = configured(f"{ACTOR}policy_loss.tau=0.25").policy_loss

    assert settings.loss_mode in algorithms.POLICY_LOSS_REGISTRY
    assert (settings.tau, settings.entropy_gamma, settings.entropy_scale) == (0.25, 0.99, "own")
    assert settings.clip_cov_ratio == 0.0002  # verl's own settings are still there


def test_bad_settings_on_the_command_line_are_refused(algorithms: Any):
    with pytest.raises(Exception, match=r"`entropy_gamma` must be in \[0, 1\], got 1.5"):
        configured(f"{ACTOR}policy_loss.entropy_gamma=1.5")


def test_verls_workers_call_it(algorithms: Any):
    """verl's ``ppo_loss``, with sequences as its engines give them: not padded, log-probs one token to the left."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils
    from verl.workers.utils.losses import ppo_loss

    lengths = [3, 2]

    def nested(value: Tensor) -> Tensor:
        rows = [row[:length] for row, length in zip(value, lengths, strict=True)]
        return torch.nested.nested_tensor(rows, layout=torch.jagged)

    # A prompt of one token; the log-prob of a response's first token stands there, and nothing at its last.
    log_prob = NEW.clone().requires_grad_()
    rows = [torch.cat([row[:length], row.new_zeros(1)]) for row, length in zip(log_prob, lengths, strict=True)]
    output = {"log_probs": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
    data = TensorDict(
        {
            "prompts": torch.nested.nested_tensor([torch.zeros(1), torch.zeros(1)], layout=torch.jagged),
            "responses": nested(torch.zeros(2, 3)),
            "response_mask": nested(MASK),
            "old_log_probs": nested(OLD),
            "advantages": nested(TASK),
        },
        batch_size=[2],
    )
    tensordict_utils.assign_non_tensor(data, dp_size=1, batch_num_tokens=None, global_batch_size=None)
    set_up = [f"{ACTOR}policy_loss.{name}={value}" for name, value in EXAMPLE.items()]

    loss, metrics = ppo_loss(configured(*set_up), output, data)

    assert loss.item() == pytest.approx(-0.277)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    torch.testing.assert_close(gradient, torch.tensor([[-0.187, 0.0, -0.2], [0.17, 0.3, 0.0]]))
    assert metrics["actor/entropy_advantage_std"].aggregate() == pytest.approx(0.68125**0.5)
