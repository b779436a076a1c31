"""Several methods together, and those that contradict each other."""

import pytest
import torch

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods import METHODS, Compose, EntropyValues, make_method
from maxent_onpolicy.llm.methods.compose import QUANTITIES


def batch() -> TokenBatch:
    torch.manual_seed(0)
    number = torch.rand(4, 3).double()
    mask = torch.tensor([[True, True, False]] * 4)
    advantage = torch.where(mask, number - 0.5, torch.nan)
    log_prob = torch.where(mask, -number, torch.nan)
    group = torch.tensor([0, 0, 1, 1])
    return TokenBatch(
        log_prob, log_prob - 0.1, number + 0.3, number + 0.2, advantage, mask, mask.long(), group, number[:, 0]
    )


def test_advantages_and_clip_ranges_go_from_method_to_method() -> None:
    given = batch()
    shaped = make_method("opo").shape(given)
    expected = make_method("aepo_agentic").shape(given.replaced(advantage=shaped))
    got = Compose([make_method("opo"), make_method("aepo_agentic")]).shape(given)
    torch.testing.assert_close(got[given.mask], expected[given.mask])
    assert got[~given.mask].isnan().all()  # as they were
    assert Compose([make_method("opo"), make_method("kl_cov")]).bounds(given, 0.2, 0.2) == (1.0, float("inf"))
    assert Compose([]).bounds(given, 0.2, 0.3) == (0.2, 0.3)


def test_weights_multiply_and_penalties_add_up() -> None:
    given = batch()
    both = [make_method("steer"), make_method("top_entropy", share=0.9)]
    product = both[0].weight(given) * both[1].weight(given)
    assert not product[given.mask].equal(both[1].weight(given)[given.mask])
    got = Compose(both).weight(given)
    torch.testing.assert_close(got[given.mask], product[given.mask])
    assert (got[~given.mask] == 1).all()
    penalties = [make_method("kl_cov", share=0.5), make_method("epo")]
    total = sum(each.penalty(given) for each in penalties)
    torch.testing.assert_close(Compose(penalties).penalty(given), total)
    assert Compose([]).penalty(given).item() == 0


def test_state_observation_and_sampling_reach_every_method() -> None:
    given = batch()
    control = Compose([make_method("d3s"), make_method("aepo_arbitrary", target=9.0), make_method("epo")])
    assert control.temperature() is None
    control.observe(given)
    assert control.temperature() == 1.2
    assert control.keep(given).sum() == 2
    fresh = Compose([make_method("d3s"), make_method("aepo_arbitrary", target=9.0), make_method("epo")])
    fresh.load_state_dict(control.state_dict())
    assert fresh.state_dict() == control.state_dict()
    assert fresh.state_dict()["epo"]["counts"] == [0, 1]
    with pytest.raises(ValueError, match="must be of the methods"):
        Compose([make_method("d3s")]).load_state_dict(control.state_dict())


def test_stages_share_the_methods() -> None:
    control = Compose([make_method("empg"), make_method("entropy_shaped"), make_method("clip_cov")])
    assert [each.name for each in control.only("update").methods] == ["entropy_shaped"]
    assert [each.name for each in control.only("batch").methods] == ["empg", "clip_cov"]
    assert control.only("batch").methods[1] is control.methods[2]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("bapo", "ppo_br"), "both set the clip range"),
        (("bapo", "kl_cov"), "both set the clip range"),
        (("hapo", "bapo"), "both set the clip range"),
        (("clip_cov", "kl_cov"), "both treat the tokens of high covariance"),
        (("epo", "adaptive_coefficient"), "both set how strongly the loss rewards entropy"),
        (("siren", "adaptive_coefficient"), "and steer the entropy to a value of their own"),
        (("aepo_arbitrary", "adaptive_coefficient"), "both steer the entropy"),
        (("opo", "riskpo"), "both compute the advantage anew"),
        (("empg", "aepo_agentic"), "both scale the advantage by entropy"),
        (("entropy_advantage", "entropy_to_go"), "both add an advantage of future entropy"),
        (("top_entropy", "d3s"), "both choose which share of the tokens"),
        (("entropy_to_go", "opo"), "opo computes the advantage anew, so it must come before entropy_to_go"),
        (("entropy_shaped", "empg"), "empg shapes the advantage before the update, so it must come before"),
        (("erc", "erc"), "erc is there twice"),
    ],
)
def test_contradictions_are_refused_with_the_reason(names: tuple[str, str], reason: str) -> None:
    needed = {"aepo_arbitrary": {"target": 1.0}, "ppo_br": {"max_entropy": 4.0}}
    with pytest.raises(ValueError, match=reason):
        Compose([make_method(name, **needed.get(name, {})) for name in names])


def test_what_goes_together_is_accepted() -> None:
    critic = make_method("entropy_advantage", values=lambda given: EntropyValues(given.old_entropy))
    names = ("opo", "entropy_shaped", "clip_cov", "erc", "steer", "bapo", "epo", "aepo_arbitrary", "top_entropy")
    needed = {"aepo_arbitrary": {"target": 1.0}}
    others = [make_method(name, **needed.get(name, {})) for name in names]
    control = Compose([others[0], critic, *others[1:]])
    assert torch.isfinite(control.shape(batch())[batch().mask]).all()


def test_only_methods_are_composed_and_only_known_quantities_owned() -> None:
    with pytest.raises(ValueError, match="make_method"):
        Compose(["epo"])  # type: ignore[list-item]
    owned = set().union(*(each.owns for each in METHODS.values()))
    assert owned == set(QUANTITIES)
