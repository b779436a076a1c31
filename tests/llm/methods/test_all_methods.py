"""What holds for every method there is: a new one is tested by being registered."""

import json
from dataclasses import fields

import pytest
import torch

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods import METHODS, Compose, EntropyValues, list_methods, make_method

TOKENS = ("log_prob", "old_log_prob", "entropy", "old_entropy", "advantage")
# What has no default; and what makes a choice that depends on chance, or on the order of a prompt's completions, fixed.
SETTINGS = {
    "clip_cov": {"share": 1.0, "low": 0.05, "high": 0.5},
    "kl_cov": {"share": 0.2},
    "aepo_arbitrary": {"target": 1.0},
    "ppo_br": {"max_entropy": 4.0, "window": 1},
    "riskpo": {"bundle": 1},
    "adaptive_coefficient": {"target": 2.0},
    "epo": {"horizon": 4},
    "d3s": {"horizon": 4},
    "entropy_advantage": {"values": lambda batch: EntropyValues(0.5 * batch.old_entropy)},
}
# What a method changes where its kind alone does not say so.
CHANGED = {
    "epo": {"penalty"},
    "kl_cov": {"penalty", "low", "high"},
    "hapo": {"advantage", "low", "high"},
    "adaptive_coefficient": {"penalty"},
    "siren": {"penalty"},
    "bapo": {"low", "high"},
    "ppo_br": {"low", "high"},
    "d3s": {"keep", "weight"},
    "aepo_arbitrary": {"temperature"},
}
GRADIENT = {"epo": {"entropy"}, "kl_cov": {"log_prob"}, "siren": {"entropy"}, "adaptive_coefficient": {"entropy"}}

everywhere = pytest.mark.parametrize("name", METHODS)


def make(name: str):
    return make_method(name, **SETTINGS.get(name, {}))


def drawn(seed: int = 0, rows: int = 6, columns: int = 12) -> TokenBatch:
    """Six completions of three prompts in turns, with tokens of an environment between turns and padding."""
    torch.manual_seed(seed)
    turn = torch.arange(columns).expand(rows, columns) // 4
    mask = torch.arange(columns).expand(rows, columns) % 4 < 3
    mask = mask & (torch.arange(columns) < torch.randint(5, columns + 1, (rows, 1)))
    old = -2 * torch.rand(rows, columns, dtype=torch.float64) - 0.05
    entropy = 0.2 + torch.rand(rows, columns, dtype=torch.float64)
    reward = torch.rand(rows, dtype=torch.float64)
    return TokenBatch(
        log_prob=(old + 0.3 * torch.randn_like(old)).clamp(max=-0.01),
        old_log_prob=old,
        entropy=entropy * (1 + 0.2 * torch.randn_like(old)).clamp(min=0.5),
        old_entropy=entropy,
        advantage=(reward - reward.mean()).unsqueeze(1) + 0.2 * torch.randn_like(old),
        mask=mask,
        turn=torch.where(mask, turn, -1),
        group=torch.tensor([7, 3, 7, 5, 3, 5]),
        reward=reward,
    )


def outcome(method, batch: TokenBatch, later: TokenBatch) -> dict[str, torch.Tensor]:
    """Everything a method says about a batch, after it has seen this and another one."""
    method.observe(batch)
    method.observe(later)
    low, high = method.bounds(batch, 0.2, 0.3)
    temperature = method.temperature()
    one = torch.ones_like(batch.advantage)
    return {
        "advantage": method.shape(batch),
        "weight": method.weight(batch),
        "low": low * one,
        "high": high * one,
        "penalty": method.penalty(batch),
        "keep": method.keep(batch),
        "temperature": torch.tensor(-1.0 if temperature is None else temperature),
    }


def inside(results: dict[str, torch.Tensor], mask: torch.Tensor) -> dict[str, torch.Tensor]:
    return {key: value[mask] if value.dim() == 2 else value for key, value in results.items()}


def padded(batch: TokenBatch, more: int = 3) -> TokenBatch:
    """The same completions with more padding, and nonsense wherever the policy did not choose."""
    wide = {"mask": torch.nn.functional.pad(batch.mask, (0, more))}
    for name in TOKENS:
        own = torch.where(batch.mask, getattr(batch, name), torch.nan)
        wide[name] = torch.nn.functional.pad(own, (0, more), value=1e9)
    wide["turn"] = torch.nn.functional.pad(batch.turn, (0, more), value=-1)
    return TokenBatch(**wide, group=batch.group, reward=batch.reward)


@everywhere
def test_it_changes_what_its_kind_says(name: str) -> None:
    batch = drawn()
    neutral = Compose([])
    got = inside(outcome(make(name), batch, drawn(1)), batch.mask)
    plain = inside(outcome(neutral, batch, drawn(1)), batch.mask)
    different = {key for key in got if not torch.equal(got[key].double(), plain[key].double())}
    assert different == CHANGED.get(name, {METHODS[name].kind})


@everywhere
def test_padding_and_the_tokens_of_others_change_nothing(name: str) -> None:
    batch, wide = drawn(), padded(drawn())
    got = inside(outcome(make(name), wide, padded(drawn(1))), wide.mask)
    expected = inside(outcome(make(name), batch, drawn(1)), batch.mask)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, msg=lambda text, key=key: f"{key}: {text}")


@everywhere
def test_permuted_completions_have_permuted_results(name: str) -> None:
    batch, order = drawn(), torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = TokenBatch(**{each.name: getattr(batch, each.name)[order] for each in fields(TokenBatch)})
    got = inside(outcome(make(name), permuted, drawn(1)), permuted.mask)
    expected = outcome(make(name), batch, drawn(1))
    expected = {key: value[order] if value.dim() else value for key, value in expected.items()}
    for key, value in inside(expected, permuted.mask).items():
        torch.testing.assert_close(got[key], value, msg=lambda text, key=key: f"{key}: {text}")


@everywhere
def test_only_the_penalty_has_a_gradient_and_it_is_the_right_one(name: str) -> None:
    batch, method = drawn(), make(name)
    method.observe(drawn(1))
    leaves = {each: getattr(batch, each).clone().requires_grad_() for each in ("log_prob", "entropy")}
    live = batch.replaced(**leaves)
    constants = [method.shape(live), method.weight(live), method.keep(live), *method.bounds(live, 0.2, 0.3)]
    assert not any(each.requires_grad for each in constants if isinstance(each, torch.Tensor))

    penalty = method.penalty(live)
    reached = set()
    if penalty.requires_grad:
        slopes = torch.autograd.grad(penalty, list(leaves.values()), allow_unused=True)
        for each, slope in zip(leaves, slopes, strict=True):
            if slope is not None and slope.any():
                reached.add(each)
                assert not slope[~batch.mask].any()
        torch.autograd.gradcheck(
            lambda log_prob, entropy: method.penalty(batch.replaced(log_prob=log_prob, entropy=entropy)),
            [leaves["log_prob"], leaves["entropy"]],
        )
    assert reached == GRADIENT.get(name, set())
    assert bool(reached) == (METHODS[name].kind in ("regulariser", "coefficient"))


@everywhere
def test_the_gradient_is_finite_beside_nonsense(name: str) -> None:
    batch, method = padded(drawn()), make(name)
    method.observe(batch)
    live = batch.replaced(log_prob=batch.log_prob.requires_grad_(), entropy=batch.entropy.requires_grad_())
    penalty = method.penalty(live)
    if penalty.requires_grad:
        for slope in torch.autograd.grad(penalty, [live.log_prob, live.entropy], allow_unused=True):
            assert slope is None or torch.isfinite(slope).all()


@everywhere
def test_a_run_goes_on_from_its_state(name: str) -> None:
    first = make(name)
    outcome(first, drawn(2), drawn(3))
    saved = first.state_dict()
    state = json.loads(json.dumps(saved))
    second = make(name)
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    on, resumed = (outcome(each, drawn(4), drawn(5)) for each in (first, second))
    for key, value in on.items():
        assert torch.equal(resumed[key], value), key
    assert saved == state  # which going on has not changed
    with pytest.raises(ValueError, match="must have the keys"):
        second.load_state_dict({**state, "more": 1})


@everywhere
def test_settings_that_are_no_numbers_are_refused_by_name(name: str) -> None:
    for each in fields(METHODS[name]):
        if each.init and each.name != "values":
            with pytest.raises(ValueError, match=f"^{name}: .*`{each.name}"):
                make_method(name, **{**SETTINGS.get(name, {}), each.name: "nonsense"})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("epo", {"low": 1.1}),
        ("epo", {"high": 0.9}),
        ("epo", {"horizon": 0}),
        ("clip_cov", {"share": 1.5}),
        ("clip_cov", {"low": 6.0}),
        ("clip_cov", {"clip": (1.2, 0.2)}),
        ("kl_cov", {"coef": -1.0}),
        ("empg", {"bonus": -0.1}),
        ("erc", {"low": 1.2}),
        ("siren", {"quantile": 1.0}),
        ("entropy_shaped", {"limit": 0.0}),
        ("steer", {"lowest": 0.0}),
        ("bapo", {"low": (0.9, 0.6)}),
        ("hapo", {"pivot": 1.5}),
        ("aepo_agentic", {"scale": float("nan")}),
        ("aepo_arbitrary", {"target": 1.0, "hot": 0.5}),
        ("riskpo", {"low": 0.9, "high": 0.5}),
        ("adaptive_coefficient", {"initial": 2.0}),
        ("d3s", {"completions": 0.0}),
        ("ppo_br", {"max_entropy": 0.0}),
        ("top_entropy", {"share": 0.0}),
        ("entropy_advantage", {"entropy_gamma": 1.5}),
        ("entropy_to_go", {"tau": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        make_method(name, **settings)


def test_names_and_settings_that_there_are_not_are_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match="did you mean 'clip_cov'"):
        make_method("clipcov")
    with pytest.raises(ValueError, match="did you mean 'horizon'"):
        make_method("epo", horison=3)
    with pytest.raises(ValueError, match="it takes none"):
        make_method("opo", share=0.1)
    with pytest.raises(ValueError, match="needs `target`"):
        make_method("aepo_arbitrary")


def test_every_method_says_what_it_is() -> None:
    rows = list_methods()
    assert [each.name for each in rows] == list(METHODS)
    for row in rows:
        assert row.source.startswith("arXiv:")
        assert row.verified in ("code", "third", "abstract")
        assert row.kind in ("advantage", "weight", "regulariser", "clip", "sampling", "coefficient")
        assert row.summary.endswith(".")
        assert row.source in METHODS[row.name].__doc__
        # Who knows a formula from its abstract says so, and nobody else does.
        assert ("abstract" in METHODS[row.name].__doc__) == (row.verified == "abstract")
