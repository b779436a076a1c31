"""Each method against an example worked out in plain Python."""

import statistics
from itertools import combinations
from math import exp, inf, log, tanh

import pytest
import torch

from maxent_onpolicy.llm.batch import TokenBatch
from maxent_onpolicy.llm.methods import METHODS, EntropyValues, make_method, nucleus_entropy
from maxent_onpolicy.llm.methods.formulas import signed_entropy, turn_range_excess, widest


def example(**changes) -> TokenBatch:
    """Two completions of one prompt: turns of (2, 1) and (1) own tokens; nonsense where others wrote."""
    own = torch.tensor([[True, True, False, True], [True, False, False, False]])

    def tokens(*numbers: float) -> torch.Tensor:
        return torch.full((2, 4), 99.0, dtype=torch.float64).masked_scatter(own, torch.tensor(numbers).double())

    values = {
        "log_prob": (-0.5, -1.0, -2.0, -0.1),
        "old_log_prob": (-0.6, -1.5, -1.5, -0.1),
        "entropy": (0.5, 1.0, 2.0, 0.25),
        "old_entropy": (0.4, 1.2, 2.0, 0.2),
        "advantage": (1.0, 1.0, 0.5, -2.0),
    }
    given = {name: tokens(*changes.pop(name, numbers)) for name, numbers in values.items()}
    turn = torch.tensor([[0, 0, -1, 1], [0, -1, -1, -1]])
    reward = torch.tensor(changes.pop("reward", [1.0, 0.0]), dtype=torch.float64)
    assert not changes
    return TokenBatch(**given, mask=own, turn=turn, group=torch.tensor([4, 4]), reward=reward)


def own(result: torch.Tensor) -> list[float]:
    """Numbers of the policy's own tokens in the example."""
    return result.expand(2, 4)[example().mask].tolist()


def near(numbers) -> object:
    return pytest.approx(numbers, rel=1e-6, abs=1e-9)


def test_every_method_has_an_example() -> None:
    assert {f"test_{name}" for name in METHODS} <= set(globals())


def test_epo() -> None:
    """Past means: turn 0 ((0.4 + 1.2 + 0.2)/3 = 0.6), turn 1 (2.0). In (0.48, 0.72) and (1.6, 2.4): tokens 1 and 3."""
    method = make_method("epo", coef=0.1, smoothing=2.0, amount=0.5, horizon=4)
    bonus = (0.5 + 1.0 + 2.0 + 0.25) / 4
    assert method.penalty(example()).item() == near(-0.1 * bonus)
    method.observe(example())
    weight = 1 - 0.2 * (1 - exp(-2 * 0.5))
    outside = 2 / 4
    assert method.penalty(example()).item() == near(-0.1 * (bonus - 2 * weight * 0.5 * outside))
    # A second batch without the second turn's token of 2.0 nats but one of 1.0: means of means.
    method.observe(example(old_entropy=(0.8, 0.8, 1.0, 0.8)))
    assert method.sums == near([0.6 + 0.8, 2.0 + 1.0])
    assert method.counts == [2, 2]
    for _ in range(2):
        method.observe(example(old_entropy=(0.7, 0.7, 1.5, 0.7)))
    # h is 0.7 and 1.5: (0.56, 0.84) and (1.2, 1.8): all four tokens are outside.
    assert method.penalty(example()).item() == near(-0.1 * (bonus - 2 * 0.8 * exp(-3) * 0.5))


def test_a_turn_without_a_past_is_in_its_range() -> None:
    entropy, turn = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([0, 1, 2, 7])
    excess = turn_range_excess(entropy, turn, [1.0, None, 0.25], 0.8, 1.2)
    assert excess.tolist() == near([0.8 - 0.5, 0.0, 0.5 - 0.3, 0.0])


def test_epo_can_be_differentiable() -> None:
    method = make_method("epo", coef=1.0, amount=0.5, horizon=None, differentiable=True)
    method.observe(example())
    distance = (1.0 - 0.72) + (0.48 - 0.25)
    assert method.penalty(example()).item() == near(-(3.75 / 4 - 0.5 * distance / 4))
    batch = example()
    entropy = batch.entropy.clone().requires_grad_()
    method.penalty(batch.replaced(entropy=entropy)).backward()
    assert own(entropy.grad) == near([-0.25, -0.25 + 0.125, -0.25, -0.25 - 0.125])


def test_epo_as_released_has_the_gradient_of_an_entropy_bonus() -> None:
    method = make_method("epo", coef=1.0, amount=0.5, horizon=None)
    method.observe(example())
    entropy = example().entropy.clone().requires_grad_()
    method.penalty(example().replaced(entropy=entropy)).backward()
    assert own(entropy.grad) == near([-0.25] * 4)


def parts(advantage, log_prob) -> list[float]:
    mean_a, mean_l = statistics.fmean(advantage), statistics.fmean(log_prob)
    return [(a - mean_a) * (lp - mean_l) for a, lp in zip(advantage, log_prob, strict=True)]


def test_clip_cov() -> None:
    """Parts of the covariance: (0.35, −0.0875, −0.41, −1.7); ratios (1.1, 1.6, 0.6, 1)."""
    assert parts((1.0, 1.0, 0.5, -2.0), (-0.5, -1.0, -2.0, -0.1)) == near([0.35, -0.0875, -0.4125, -1.7])
    every = {"share": 1.0, "low": -3.0, "high": 0.3}
    # The second token's ratio is clipped already.
    assert own(make_method("clip_cov", **every).weight(example())) == [1.0, 1.0, 0.0, 0.0]
    assert own(make_method("clip_cov", **every, clip=(0.2, 0.7)).weight(example())) == [1.0, 0.0, 0.0, 0.0]
    # Nothing lies between the published bounds.
    assert own(make_method("clip_cov").weight(example())) == [1.0] * 4


def test_clip_cov_draws_anew_each_time_and_the_same_for_a_seed() -> None:
    def draws(seed: int) -> list[list[float]]:
        method = make_method("clip_cov", share=0.25, low=-3.0, high=0.3, seed=seed)
        return [own(method.weight(example())) for _ in range(40)]

    assert all(sum(each) == 3 for each in draws(0))
    assert {tuple(each) for each in draws(0)} == {(1.0, 1.0, 0.0, 1.0), (1.0, 1.0, 1.0, 0.0)}
    assert draws(0) == draws(0) != draws(1)
    state = torch.get_rng_state()
    draws(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_kl_cov() -> None:
    """The largest two parts are those of the first two tokens, which have moved by 0.1 and 0.5."""
    assert make_method("kl_cov", share=0.5, coef=2.0).penalty(example()).item() == near(2 * (0.1 + 0.5) / 4)
    assert make_method("kl_cov").penalty(example()).item() == near(0.1 / 4)
    assert make_method("kl_cov").bounds(example(), 0.2, 0.2) == (1.0, inf)


def test_empg() -> None:
    """Turns have 0.8 and 2.0 nats, and 0.2: levels 1/3, 1, 0."""
    gain = [exp(-1 / 3), exp(-1), 1.0]
    mean = sum(gain) / 3
    first = 1.0 * gain[0] / mean + 0.05 * exp(-1)
    raw = [first, first, 0.5 * gain[1] / mean, -2.0 * gain[2] / mean]
    of_turns = (raw[0] + raw[2] + raw[3]) / 3
    expected = [each - of_turns for each in raw]
    assert own(make_method("empg").shape(example())) == near(expected)


def test_erc() -> None:
    """Entropy ratios 1.25, 0.83, 1, 1.25."""
    assert own(make_method("erc").weight(example())) == [0.0, 1.0, 1.0, 0.0]
    assert own(make_method("erc", low=0.95, high=1.3).weight(example())) == [1.0, 0.0, 1.0, 1.0]


def test_siren() -> None:
    """At the median: 2.0 of the first completion, nothing of the second; with 0.25 also 1.0."""
    method = make_method("siren", quantile=0.5, coef=3.0)
    with pytest.raises(ValueError, match="observe"):
        method.penalty(example())
    method.observe(example(old_entropy=(0.4, 1.2, 1.5, 0.2)))
    method.observe(example())
    assert method.anchor == near(1.5)
    assert method.penalty(example()).item() == near(3 * (2.0 - 1.5) ** 2)
    method = make_method("siren", quantile=0.25, coef=1.0)
    method.observe(example())
    assert method.penalty(example()).item() == near(((1.0 + 2.0) / 2 - (1.2 + 2.0) / 2) ** 2)


def test_nucleus_entropy_is_that_of_the_tokens_before_the_share_is_reached() -> None:
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.9, 0.05, 0.03, 0.02], [0.3, 0.25, 0.2, 0.25]]).double().log()
    logits = (logits + torch.tensor([[3.0], [0.0], [-5.0]])).requires_grad_()

    def entropy(*weights: float) -> float:
        return -sum(each / sum(weights) * log(each / sum(weights)) for each in weights)

    got = nucleus_entropy(logits, 0.8)
    expected = [entropy(0.5, 0.2), 0.0, entropy(0.3, 0.25)]
    assert got[:2].tolist() == near(expected[:2])
    assert nucleus_entropy(logits, 0.6)[2].item() == near(expected[2])
    got.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_entropy_shaped() -> None:
    expected = [1 + min(0.4 * 0.5, 1 / 2), 1 + min(0.4, 0.5), 0.5 + min(0.8, 0.25), -2 + min(0.1, 1.0)]
    assert own(make_method("entropy_shaped", limit=2.0).shape(example())) == near(expected)
    assert own(make_method("entropy_shaped").shape(example()))[2] == near(0.5 + 0.5)


def test_steer() -> None:
    advantage, ratio = (1.0, 1.0, 0.5, -2.0), (exp(0.1), exp(0.5), exp(-0.5), 1.0)
    log_prob, entropy = (-0.5, -1.0, -2.0, -0.1), (0.4, 1.1, 2.0, 0.25)
    change = [
        abs(a * r * (1 - exp(lp)) * (lp + h)) for a, r, lp, h in zip(advantage, ratio, log_prob, entropy, strict=True)
    ]
    expected = [exp(log(0.8) * each / max(change)) for each in change]
    assert expected[1] == near(0.8)
    assert expected[2] == 1.0
    assert own(make_method("steer").weight(example(entropy=entropy))) == near(expected)
    # Below the floor the largest change counts as if it were the floor.
    weights = own(make_method("steer", floor=0.5).weight(example(entropy=entropy)))
    assert weights == near([exp(log(0.8) * each / 0.5) for each in change])


def test_bapo() -> None:
    """P = 1.105 + min(1.649, high) + 0.5·0.607, M = 2·max(1, low) = 2: at once 1.105 + 1.2 + 0.303 > 2."""
    assert [float(each) for each in make_method("bapo").bounds(example(), 0.2, 0.2)] == near([0.4, 0.2])
    # With odds of 1.4 that is not enough: the lower bound rises to its end, then P must be 2.8: high ≥ 1.392.
    method = make_method("bapo", target=1.4 / 2.4, step=0.1)
    assert [float(each) for each in method.bounds(example(), 0.2, 0.2)] == near([0.1, 0.4])


def test_opo() -> None:
    """Lengths 3 and 1: the baseline is (3·1 + 1·0)/4."""
    assert own(make_method("opo").shape(example())) == near([0.25, 0.25, 0.25, -0.75])
    with pytest.raises(ValueError, match=r"`group` must have two completions or more .*, got one of \[4, 7\]"):
        make_method("opo").shape(example().replaced(group=torch.tensor([4, 7])))


def test_hapo() -> None:
    """log H: −0.69, 0, 0.69, −1.39. At the pivot 1/3 (−0.69): ĥ = 0, 1/2, 1, −1; the ratios are 1.1, 1.6, 0.6, 1."""
    method = make_method("hapo", pivot=1 / 3)
    signed = signed_entropy(torch.tensor([0.5, 1.0, 2.0, 0.25]).double(), 1 / 3)
    assert signed.tolist() == near([0.0, 0.5, 1.0, -1.0])
    low, high = method.bounds(example(), 0.7, 0.7)
    assert own(low) == near([0.2, 0.2, 0.2, 0.4])
    assert own(high) == near([0.2, 0.3, 0.4, 0.2])
    # The second and third ratio are outside of the inner half of the range, the fourth inside.
    assert own(method.shape(example())) == near([1.0, 1.0 * 1.5, 0.5 * 2.0, 0.0])
    # An uncertain token in the inner half keeps its advantage; a certain one outside as well.
    calm = example(log_prob=(-0.6, -1.5, -1.5, -0.5))
    assert own(method.shape(calm)) == near([1.0, 1.0, 0.5, -2.0])


def test_aepo_agentic() -> None:
    entropy = (0.4, 1.2, 2.0, 0.2)
    mean, deviation = statistics.fmean(entropy), statistics.stdev(entropy)
    advantage = (1.0, 1.0, 0.5, -2.0)
    expected = [a * (1 + 0.2 * (h - mean) / deviation) for a, h in zip(advantage, entropy, strict=True)]
    assert own(make_method("aepo_agentic").shape(example())) == near(expected)


def test_aepo_arbitrary() -> None:
    """The batch has 0.95 nats a token."""
    method = make_method("aepo_arbitrary", target=0.951)
    assert method.temperature() is None
    method.observe(example())
    assert method.temperature() == 1.2
    method.target = 0.949
    assert method.temperature() == 0.8


def test_riskpo() -> None:
    """Three prompts, two in a bundle: scores 0, 2, 1, 1; and the third alone: 0, 1, 1, 3."""
    reward = [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 3.0]]
    group = torch.tensor([1, 2, 3]).repeat_interleave(4)

    def quantile(numbers, q):
        numbers, at = sorted(numbers), q * (len(numbers) - 1)
        return numbers[int(at)] + (at - int(at)) * (numbers[min(int(at) + 1, len(numbers) - 1)] - numbers[int(at)])

    def value(scores):
        low, high = quantile(scores, 0.25), quantile(scores, 0.75)
        tail = [-max(low - each, 0) / 0.25 for each in scores]
        middle = [(max(each - low, 0) - max(each - high, 0) + low - high) / 0.5 for each in scores]
        return [(1.5 * t + m) / 2.5 / statistics.stdev(scores) for t, m in zip(tail, middle, strict=True)]

    together = value([0.0, 2.0, 1.0, 1.0])
    expected = together + together + value(reward[2])
    blank = torch.zeros(12, 2, dtype=torch.float64)
    mask = torch.tensor([True, False]).expand(12, 2)
    batch = TokenBatch(*[blank] * 5, mask, blank.long(), group, torch.tensor(reward, dtype=torch.float64).flatten())
    got = make_method("riskpo", low=0.25, high=0.75, bundle=2).shape(batch)[:, 0]
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    assert together[0] == pytest.approx((1.5 * -0.75 / 0.25 - 0.5 / 0.5) / 2.5 / statistics.stdev([0, 2, 1, 1]))
    with pytest.raises(ValueError, match="unequal numbers"):
        make_method("riskpo").shape(batch.replaced(group=torch.tensor([1] * 5 + [2] * 7)))


def test_adaptive_coefficient() -> None:
    """0.95 nats a token under the policy that sampled, 0.9375 now."""
    method = make_method("adaptive_coefficient", target=1.0, delta=0.25, limits=(0.0, 0.6))
    for coef in (0.25, 0.5, 0.6):
        method.observe(example())
        assert method.penalty(example()).item() == near(-coef * 0.9375)
    method.target = 0.9
    method.observe(example())
    assert method.coef == near(0.35)
    assert method.penalty(example()) == 0.0  # there is enough


def test_d3s() -> None:
    """|A|·H is 0.5, 1.0, 0.75, 1.2; the mean advantages are 0.83 and −2."""
    batch = example(entropy=(0.5, 1.0, 1.5, 0.6))
    method = make_method("d3s", tokens=0.5, completions=0.5, horizon=2)
    assert own(method.weight(batch)) == [0.0, 1.0, 0.0, 1.0]
    assert method.keep(batch).sum() == 1
    method.observe(batch)
    method.observe(batch)
    assert own(method.weight(batch)) == [1.0] * 4
    assert method.keep(batch).all()


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_the_widest_subset_is_that_of_a_search_over_all(size: int) -> None:
    torch.manual_seed(size)
    for _ in range(10):
        values = torch.randn(8).exp()
        best = max(statistics.pvariance(each) for each in combinations(values.tolist(), size))
        chosen = widest(values, size)
        assert chosen.sum() == size
        assert statistics.pvariance(values[chosen].tolist()) == pytest.approx(best, abs=1e-6)


def test_ppo_br() -> None:
    """0.95 nats of at most 1.9; rewards 0.5, then 0.4: ψ = 1 − 0.1/0.5."""
    method = make_method("ppo_br", max_entropy=1.9, window=1)
    assert method.bounds(example(), 0.2, 0.3) == (0.2, 0.3)
    method.observe(example())
    assert method.bounds(example(), 0.2, 0.3) == near((0.2 * (1 + 0.5 * tanh(0.5)), 0.3 * (1 + 0.5 * tanh(0.5))))
    method.observe(example(reward=[0.8, 0.0]))
    factor = 1 + 0.5 * tanh(0.5) - 0.3 * tanh(0.8)
    assert method.bounds(example(), 0.2, 0.3) == near((0.2 * factor, 0.3 * factor))
    # Over two batches: from 0.2 to 0.8, once 0.1 is too long ago.
    method = make_method("ppo_br", max_entropy=1.9, window=2)
    for reward in (0.1, 0.2, 0.4, 0.8):
        method.observe(example(reward=[reward, reward]))
    factor = 1 + 0.5 * tanh(0.5) - 0.3 * tanh(1 - 0.6 / 0.8)
    assert method.bounds(example(), 0.2, 0.3) == near((0.2 * factor, 0.3 * factor))


def test_top_entropy() -> None:
    """The upper half of 0.5, 1, 2, 0.25 is above 0.75."""
    assert own(make_method("top_entropy", share=0.5).weight(example())) == [0.0, 1.0, 1.0, 0.0]
    assert own(make_method("top_entropy").weight(example())) == [0.0, 0.0, 1.0, 0.0]


def test_entropy_advantage() -> None:
    """Rewards 0.6, 1.5, 1.5 and 0.1; a critic that says 1 everywhere; γ = 1/2, λ = 1."""
    method = make_method("entropy_advantage", tau=2.0, entropy_gamma=0.5, entropy_gae_lambda=1.0, scale="none")
    with pytest.raises(ValueError, match="`values`"):
        method.shape(example())
    method.values = lambda batch: EntropyValues(torch.ones_like(batch.advantage))
    future = [0.6 + 0.75 + 0.375 - 1, 1.5 + 0.75 - 1, 1.5 - 1, 0.1 - 1]
    mean = sum(future) / 4
    expected = [a + 2 * (f - mean) for a, f in zip((1.0, 1.0, 0.5, -2.0), future, strict=True)]
    assert own(method.shape(example())) == near(expected)
    # What was cut off goes on with the critic's last value.
    cut = EntropyValues(torch.ones(2, 4).double(), torch.tensor([False, True]), torch.tensor([0.0, 4.0]).double())
    method.values = lambda batch: cut
    method.centered = False
    assert own(method.shape(example()))[3] == near(-2 + 2 * (0.1 + 0.5 * 4 - 1))


def test_entropy_to_go() -> None:
    """Entropies 0.4, 1.2, 2 and 0.2 with γ = 1/2: 1.5, 2.2, 2 and 0.2 to go, 0.85 on average from the first token."""
    method = make_method("entropy_to_go", tau=2.0, entropy_gamma=0.5, exact=True, scale="none", centered=False)
    expected = [1 + 2 * (1.5 - 0.85), 1.0, 0.5, -2 + 2 * (0.2 - 0.85)]
    assert own(method.shape(example())) == near(expected)
    # By default it has the task's deviation.
    future = [1.5 - 0.85, 0.0, 0.0, 0.2 - 0.85]
    ratio = statistics.pstdev([1.0, 1.0, 0.5, -2.0]) / statistics.pstdev(future)
    got = own(make_method("entropy_to_go", tau=1.0, entropy_gamma=0.5, exact=True).shape(example()))
    assert got == near([a + ratio * f for a, f in zip((1.0, 1.0, 0.5, -2.0), future, strict=True)])
