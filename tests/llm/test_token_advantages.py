"""Advantages of own tokens: hand-computed, equal to the control path, blind to everything outside of the mask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maxent_onpolicy.estimators.entropy import entropy_advantage
from maxent_onpolicy.llm.advantages import (
    entropy_to_go,
    group_baseline,
    scaled_entropy_advantage,
    token_entropy_advantage,
    token_position,
    token_soft_advantage,
)

NAN = math.nan


def flags(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def random_tokens(seed, batch=5, length=9):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, length, generator=generator) < 0.6
    mask[torch.arange(batch), torch.randint(length, (batch,), generator=generator)] = True
    reward, value = torch.randn(2, batch, length, generator=generator)
    truncated = torch.rand(batch, generator=generator) < 0.5
    return reward, value, mask, truncated, torch.randn(batch, generator=generator)


def test_three_own_tokens_by_hand():
    # h = 1, 2, 4 and V = 1, 1, 2 at the policy's own tokens; a tool's answer and padding hold what must not be read.
    reward = torch.tensor([[1.0, NAN, 9.0, 2.0, 4.0, NAN]]).repeat(2, 1)
    value = torch.tensor([[1.0, 9.0, NAN, 1.0, 2.0, NAN]]).repeat(2, 1)
    mask = flags([1, 0, 0, 1, 1, 0]).repeat(2, 1)
    advantage, target = token_entropy_advantage(
        reward, value, mask, 0.5, 0.5, truncated=torch.tensor([False, True]), last_value=torch.tensor([NAN, 6.0])
    )
    # Ended: δ = [1 + 0.5 − 1, 2 + 1 − 1, 4 − 2] = [0.5, 2, 2]. Cut off at a state worth 6: the last δ is 4 + 3 − 2 = 5.
    torch.testing.assert_close(advantage[0], torch.tensor([1.125, 0, 0, 2.5, 2, 0]))
    torch.testing.assert_close(advantage[1], torch.tensor([1.3125, 0, 0, 3.25, 5, 0]))
    torch.testing.assert_close(target, torch.where(mask, advantage + value, 0.0))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_the_control_path_gives_the_same_numbers(cut, parallel):
    generator = torch.Generator().manual_seed(0)
    steps = 7
    reward, value = torch.randn(2, steps, 1, generator=generator)
    last_value = torch.randn(1, generator=generator)
    done = torch.zeros(steps, 1, dtype=torch.bool)
    done[-1] = True
    terminated = done & (not cut)
    next_value = torch.cat([value[1:], last_value.unsqueeze(0)])
    control = entropy_advantage(reward, value, next_value, terminated, done, 0.9, 0.8, parallel)

    # The same steps as tokens of one completion, a tool's answer of three tokens after the fourth, padding at the end.
    columns = torch.tensor([0, 1, 2, 3, 7, 8, 9])
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, columns] = True
    token_reward, token_value = torch.full((2, 1, 12), 1e3)
    token_reward[0, columns], token_value[0, columns] = reward[:, 0], value[:, 0]
    tokens = token_entropy_advantage(
        token_reward, token_value, mask, 0.9, 0.8, torch.tensor([cut]), last_value, parallel=parallel
    )
    assert torch.equal(tokens.advantage[0, columns], control.advantage[:, 0])
    assert torch.equal(tokens.target[0, columns], control.target[:, 0])


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_padding_and_the_order_of_completions_change_nothing(seed, gamma, gae_lambda):
    reward, value, mask, truncated, last_value = random_tokens(seed)
    estimate = token_entropy_advantage(reward, value, mask, gamma, gae_lambda, truncated, last_value)

    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
    padded = [torch.nn.functional.pad(x[order], (2, 3), value=NAN) for x in (reward, value)]
    wide = torch.nn.functional.pad(mask[order], (2, 3))
    other = token_entropy_advantage(*padded, wide, gamma, gae_lambda, truncated[order], last_value[order])
    for ours, theirs in zip(estimate, other, strict=True):
        assert torch.equal(theirs[:, 2:-3], ours[order])
        assert (theirs[~wide] == 0).all()


def test_estimates_have_no_gradient_and_are_at_least_float32():
    reward, value, mask, _, _ = random_tokens(1)
    reward, value = reward.bfloat16().requires_grad_(), value.bfloat16().requires_grad_()
    estimate = token_entropy_advantage(reward, value, mask, 0.9, 0.9)
    wanted = token_entropy_advantage(reward.double(), value.double(), mask, 0.9, 0.9)
    for ours, theirs in zip(estimate, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert not ours.requires_grad
        torch.testing.assert_close(ours, theirs.float())


def test_entropy_to_go_by_hand():
    reward = torch.tensor([[1.0, 9.0, 2.0, 4.0]])
    to_go = entropy_to_go(reward, flags([1, 0, 1, 1]), 0.5)
    torch.testing.assert_close(to_go, torch.tensor([[3.0, 0.0, 4.0, 4.0]]))


def test_positions_count_own_tokens():
    assert token_position(flags([0, 1, 1, 0, 1], [1, 0, 0, 0, 0])).tolist() == [[-1, 0, 1, -1, 2], [0, -1, -1, -1, -1]]


def test_baseline_of_a_group_by_hand():
    # Completions 0, 1, 3 answer prompt 7, completions 2 and 4 prompt 3; a tool's token moves a position.
    to_go = torch.tensor([[1.0, 2.0, 5.0], [NAN, 3.0, 6.0], [10.0, 20.0, NAN], [8.0, NAN, NAN], [30.0, NAN, 40.0]])
    mask = flags([1, 1, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 1])
    group = torch.tensor([7, 7, 3, 7, 3])
    position = token_position(mask)
    baseline = group_baseline(to_go, position, group)
    torch.testing.assert_close(
        baseline,
        torch.tensor([[4.0, 4.0, 5.0], [0.0, 4.0, 4.0], [20.0, 30.0, 0.0], [4.0, 0.0, 0.0], [20.0, 0.0, 30.0]]),
    )
    baseline = group_baseline(to_go, position, group, leave_one_out=True)
    # Nobody else has a third token: that one is compared with itself.
    torch.testing.assert_close(
        baseline,
        torch.tensor([[5.5, 6.0, 5.0], [0.0, 4.5, 2.0], [30.0, 40.0, 0.0], [2.0, 0.0, 0.0], [10.0, 0.0, 20.0]]),
    )


def test_completions_weigh_the_same_in_the_baseline_of_a_turn():
    to_go = torch.tensor([[1.0, 3.0, 7.0], [6.0, NAN, NAN]])
    turn = torch.tensor([[0, 0, 0], [0, -1, -1]])
    group = torch.tensor([0, 0])
    # Means of the turn: 11/3 and 6.
    mean = (11 / 3 + 6) / 2
    torch.testing.assert_close(group_baseline(to_go, turn, group), torch.tensor([[mean] * 3, [mean, 0, 0]]))
    torch.testing.assert_close(group_baseline(to_go, turn, group, True), torch.tensor([[6.0] * 3, [11 / 3, 0, 0]]))


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_a_baseline_needs_company(leave_one_out):
    to_go, position = torch.ones(3, 2), torch.tensor([[0, 1]] * 3)
    with pytest.raises(ValueError, match=r"`group` must have two completions or more of each prompt.*got one of \[5\]"):
        group_baseline(to_go, position, torch.tensor([4, 5, 4]), leave_one_out)
    with pytest.raises(ValueError, match=r"`group` must have the shape \[3\], got \[2\]"):
        group_baseline(to_go, position, torch.tensor([4, 4]), leave_one_out)


def test_the_baseline_centres_every_full_group():
    reward, _, _, _, _ = random_tokens(2, batch=6)
    mask, group = torch.ones_like(reward, dtype=torch.bool), torch.tensor([0, 1, 0, 1, 1, 0])
    to_go = entropy_to_go(reward, mask, 0.95)
    centred = to_go - group_baseline(to_go, token_position(mask), group)
    for number in (0, 1):
        torch.testing.assert_close(centred[group == number].sum(0), torch.zeros(9), atol=1e-5, rtol=0)
    left_out = to_go - group_baseline(to_go, token_position(mask), group, leave_one_out=True)
    torch.testing.assert_close(left_out, 1.5 * centred)  # n/(n − 1)


def test_scales_by_hand():
    entropy = torch.tensor([[30.0, NAN, 34.0], [38.0, 42.0, NAN]])
    task = torch.tensor([[1.0, NAN, 1.0], [-1.0, -1.0, NAN]])
    mask = flags([1, 0, 1], [1, 1, 0])
    centred = torch.tensor([[-6.0, 0.0, -2.0], [2.0, 6.0, 0.0]])  # mean 36, standard deviation √20
    torch.testing.assert_close(scaled_entropy_advantage(entropy, task, mask, "none"), centred)
    torch.testing.assert_close(scaled_entropy_advantage(entropy, task, mask, "none", 0.5), 0.5 * centred)
    torch.testing.assert_close(scaled_entropy_advantage(entropy, 3 * task, mask, "own"), centred / math.sqrt(20))
    torch.testing.assert_close(scaled_entropy_advantage(entropy, 3 * task, mask, "task"), 3 * centred / math.sqrt(20))
    raw = torch.where(mask, entropy, 0.0)
    torch.testing.assert_close(scaled_entropy_advantage(entropy, task, mask, "none", centered=False), raw)
    torch.testing.assert_close(
        scaled_entropy_advantage(entropy, task, mask, "own", centered=False), raw / math.sqrt(20)
    )
    soft = token_soft_advantage(task, entropy, mask, tau=0.5, ratio=2.0)
    torch.testing.assert_close(soft, torch.where(mask, task, 0.0) + centred / math.sqrt(20))


def test_the_scaled_spread_is_the_ratio_of_the_tasks():
    entropy, task, mask, _, _ = random_tokens(4)
    scaled = scaled_entropy_advantage(50 + 40 * entropy, task, mask, "task", ratio=0.3)[mask]
    assert scaled.std().item() == pytest.approx(0.3 * task[mask].std().item(), rel=1e-5)
    assert scaled.mean().item() == pytest.approx(0.0, abs=1e-5)


def test_equal_rewards_leave_the_task_alone():
    entropy, _, mask, _, _ = random_tokens(5)
    task = torch.zeros_like(entropy)
    assert torch.equal(token_soft_advantage(task, 100 * entropy, mask, tau=0.7), task)
    assert token_soft_advantage(task, 100 * entropy, mask, tau=0.7, scale="own")[mask].std() > 0.5


@pytest.mark.parametrize("scale", ["own", "task"])
@pytest.mark.parametrize("centered", [False, True])
def test_constant_entropy_advantages_are_not_blown_up(scale, centered):
    _, task, mask, _, _ = random_tokens(6, batch=40)
    constant = torch.full_like(task, 30.1)
    constant[0] += 1e-5  # as rounding leaves it
    assert torch.equal(scaled_entropy_advantage(constant, task, mask, scale, centered=centered), torch.zeros_like(task))


def test_a_single_token_is_finite():
    one, mask = torch.tensor([[5.0]]), flags([1])
    assert token_soft_advantage(one, one, mask, tau=1.0).tolist() == [[5.0]]


CALLS = {
    "estimate": lambda reward, value, mask: token_entropy_advantage(reward, value, mask, 0.9, 0.9),
    "to_go": lambda reward, value, mask: entropy_to_go(reward, mask, 0.9),
    "scaled": lambda reward, value, mask: scaled_entropy_advantage(reward, value, mask),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_bad_tensors_are_named(call):
    reward, value, mask, _, _ = random_tokens(7)
    with pytest.raises(ValueError, match=r"must have the mask's shape \[5, 8\], got \[5, 9\]"):
        call(reward, value, mask[:, 1:] | True)
    with pytest.raises(ValueError, match=r"`mask` must be bool of the shape \[B, T\], got torch.float32 \[5, 9\]"):
        call(reward, value, mask.float())
    with pytest.raises(ValueError, match=r"`mask` must be bool of the shape \[B, T\], got torch.bool \[5\]"):
        call(reward, value, mask[:, 0])
    empty = mask.clone()
    empty[[1, 3]] = False
    with pytest.raises(ValueError, match=r"no token of the policy's own in the completions \[1, 3\]"):
        call(reward, value, empty)
    # What log π = NaN makes of the reward.
    with pytest.raises(ValueError, match=r"`entropy_(reward|advantage)` has a NaN or infinite number inside the mask"):
        call(torch.where(mask, NAN, reward), value, mask)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entropy_gamma": 1.1}, r"`entropy_gamma` must be in \[0, 1\], got 1.1"),
        ({"entropy_gae_lambda": -0.1}, r"`entropy_gae_lambda` must be in \[0, 1\], got -0.1"),
        ({"last_value": None}, "given together, got no `last_value`"),
        ({"truncated": None}, "given together, got no `truncated`"),
        ({"truncated": torch.ones(5)}, "`truncated` must be of the type bool, got torch.float32"),
        ({"truncated": torch.ones(4, dtype=torch.bool)}, r"`truncated` must have the shape \[5\], got \[4\]"),
        ({"last_value": torch.ones(5, 1)}, r"`last_value` must have the shape \[5\], got \[5, 1\]"),
        ({"last_value": torch.full((5,), NAN)}, "`last_value` has a NaN or infinite number where `truncated`"),
        ({"entropy_value": torch.full((5, 9), NAN)}, "`entropy_value` has a NaN"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    reward, value, mask, _, last_value = random_tokens(8)
    arguments = {"entropy_gamma": 0.9, "entropy_gae_lambda": 0.9, "last_value": last_value, "entropy_value": value}
    arguments |= {"truncated": torch.ones(5, dtype=torch.bool), **changes}
    with pytest.raises(ValueError, match=message):
        token_entropy_advantage(reward, mask=mask, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "tsak"}, r"`scale` must be one of .*got 'tsak' \(did you mean 'task'\?\)"),
        ({"ratio": -1.0}, r"`ratio` must be in \[0, inf\), got -1.0"),
        ({"tau": -1.0}, r"`tau` must be in \[0, inf\), got -1.0"),
    ],
)
def test_bad_scales_are_named(changes, message):
    entropy, task, mask, _, _ = random_tokens(9)
    with pytest.raises(ValueError, match=message):
        token_soft_advantage(task, entropy, mask, **{"tau": 1.0, **changes})
