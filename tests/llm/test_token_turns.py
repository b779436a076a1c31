"""Entropy advantages in turns: hand-computed, and equal to plain recursions written out token by token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maxent_onpolicy.llm.advantages import token_entropy_advantage
from maxent_onpolicy.llm.turns import turn_discounted_entropy_advantage, turn_entropy_advantage, turn_starts

NAN = math.nan
# Two turns of two and one own tokens; a tool's answer between them, padding after.
TURN = torch.tensor([[0, 0, -1, 1, -1]])
REWARD = torch.tensor([[1.0, 2.0, NAN, 4.0, NAN]])
VALUE = torch.tensor([[1.0, 1.0, NAN, 2.0, NAN]])


def random_turns(seed, batch=4, length=10):
    generator = torch.Generator().manual_seed(seed)
    # Some turns have no own token: their number is left out.
    turn = torch.randint(0, 2, (batch, length), generator=generator).cumsum(1)
    hidden = torch.rand(batch, length, generator=generator) < 0.3
    hidden[torch.arange(batch), torch.randint(length, (batch,), generator=generator)] = False
    turn = torch.where(hidden, -1, turn)
    reward, value = torch.randn(2, batch, length, generator=generator, dtype=torch.float64)
    truncated = torch.rand(batch, generator=generator) < 0.5
    last_value = torch.randn(batch, generator=generator, dtype=torch.float64)
    return reward, value, turn, truncated, last_value


def written_out(reward, value, turn, truncated, last_value, gamma, gae_lambda):
    """The definition, one token at a time from the end."""
    result = torch.zeros_like(reward)
    for row in range(len(turn)):
        own = [column for column in range(turn.shape[1]) if turn[row, column] >= 0]
        advantage, following, later_turn = 0.0, float(last_value[row]) if truncated[row] else 0.0, None
        for column in reversed(own):
            discount = gamma if later_turn is not None and turn[row, column] != later_turn else 1.0
            here = float(value[row, column])
            delta = float(reward[row, column]) + discount * following - here
            advantage = delta + discount * gae_lambda * advantage
            result[row, column], following, later_turn = advantage, here, turn[row, column]
    return result


def test_discount_at_the_change_of_turn_by_hand():
    advantage, target = turn_discounted_entropy_advantage(REWARD, VALUE, TURN, 0.5, 0.5)
    # δ = [1 + 1 − 1, 2 + 0.5·2 − 1, 4 − 2] = [1, 2, 2]; A = [1 + 0.5·2.5, 2 + 0.5·0.5·2, 2].
    torch.testing.assert_close(advantage, torch.tensor([[2.25, 2.5, 0, 2.0, 0]]))
    torch.testing.assert_close(target, torch.tensor([[3.25, 3.5, 0, 4.0, 0]]))
    # Cut off within the last turn at a state worth 6: its last δ is 4 + 6 − 2.
    cut = turn_discounted_entropy_advantage(REWARD, VALUE, TURN, 0.5, 0.5, torch.tensor([True]), torch.tensor([6.0]))
    torch.testing.assert_close(cut.advantage, torch.tensor([[1 + 0.5 * 4, 2 + 0.25 * 8, 0, 8.0, 0]]))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1), parallel=st.booleans())
def test_equal_to_the_definition(seed, gamma, gae_lambda, parallel):
    reward, value, turn, truncated, last_value = random_turns(seed)
    estimate = turn_discounted_entropy_advantage(
        reward, value, turn, gamma, gae_lambda, truncated, last_value, parallel
    )
    wanted = written_out(reward, value, turn, truncated, last_value, gamma, gae_lambda)
    torch.testing.assert_close(estimate.advantage, wanted)
    torch.testing.assert_close(estimate.target, torch.where(turn >= 0, wanted + value, 0.0))


def test_one_turn_or_no_discount_is_the_estimate_of_tokens_without_discount():
    reward, value, turn, truncated, last_value = random_turns(1)
    tokens = token_entropy_advantage(reward, value, turn >= 0, 1.0, 0.8, truncated, last_value)
    one_turn = torch.where(turn >= 0, 0, -1)
    for turns, gamma in ((one_turn, 0.3), (turn, 1.0)):
        estimate = turn_discounted_entropy_advantage(reward, value, turns, gamma, 0.8, truncated, last_value)
        torch.testing.assert_close(estimate, tokens)


@pytest.mark.parametrize("estimator", [turn_discounted_entropy_advantage, turn_entropy_advantage])
def test_turns_of_one_token_are_the_estimate_of_tokens(estimator):
    reward, value, turn, _, _ = random_turns(2)
    single = torch.where(turn >= 0, torch.arange(turn.shape[1]), -1)
    tokens = token_entropy_advantage(reward, value, turn >= 0, 0.9, 0.8)
    torch.testing.assert_close(estimator(reward, value, single, 0.9, 0.8), tokens)


def test_a_turn_as_one_action_by_hand():
    # The critic counts at a turn's first token only: 1 and 2. Turn 0 earns 3 nats, turn 1 earns 4.
    value = torch.tensor([[1.0, NAN, NAN, 2.0, NAN]])
    advantage, target = turn_entropy_advantage(REWARD, value, TURN, 0.5, 0.5)
    # δ = [3 + 1 − 1, 4 − 2] = [3, 2]; A = [3 + 0.25·2, 2].
    torch.testing.assert_close(advantage, torch.tensor([[3.5, 3.5, 0, 2.0, 0]]))
    torch.testing.assert_close(target, torch.tensor([[4.5, 4.5, 0, 4.0, 0]]))
    mean = turn_entropy_advantage(REWARD, value, TURN, 0.5, 0.5, "mean")
    torch.testing.assert_close(mean.advantage, torch.tensor([[2.0, 2.0, 0, 2.0, 0]]))
    cut = turn_entropy_advantage(
        REWARD, value, TURN, 0.5, 0.5, truncated=torch.tensor([True]), last_value=torch.tensor([6.0])
    )
    torch.testing.assert_close(cut.advantage, torch.tensor([[4.25, 4.25, 0, 5.0, 0]]))


@pytest.mark.parametrize("estimator", [turn_discounted_entropy_advantage, turn_entropy_advantage])
def test_padding_order_and_skipped_numbers_change_nothing(estimator):
    reward, value, turn, truncated, last_value = random_turns(3)
    estimate = estimator(reward, value, turn, 0.9, 0.8, truncated=truncated, last_value=last_value)
    order = torch.tensor([2, 0, 3, 1])
    padded = [torch.nn.functional.pad(x[order], (1, 2), value=NAN) for x in (reward, value)]
    wide = torch.nn.functional.pad(turn[order], (1, 2), value=-1)
    wide = torch.where(wide >= 0, 3 * wide + 1, -1).int()
    other = estimator(*padded, wide, 0.9, 0.8, truncated=truncated[order], last_value=last_value[order])
    for ours, theirs in zip(estimate, other, strict=True):
        assert torch.equal(theirs[:, 1:-2], ours[order])
        assert (theirs[wide < 0] == 0).all()


def test_starts_of_turns():
    turn = torch.tensor([[-1, 0, 0, -1, 0, 2, 2], [1, -1, -1, 3, 3, 4, -1]])
    assert turn_starts(turn).int().tolist() == [[0, 1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 1, 0]]


@pytest.mark.parametrize("estimator", [turn_discounted_entropy_advantage, turn_entropy_advantage])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turn": torch.tensor([[1, 1, -1, 0, -1]])}, "`turn` must not fall within a completion"),
        ({"turn": torch.tensor([[0, 0, -2, 1, -1]])}, "`turn` must be -1 or more, got -2"),
        ({"turn": TURN.float()}, r"`turn` must be integers of the shape \[B, T\], got torch.float32 \[1, 5\]"),
        ({"turn": TURN[0]}, r"`turn` must be integers of the shape \[B, T\], got torch.int64 \[5\]"),
        ({"turn": torch.full((1, 5), -1)}, r"no token of the policy's own in the completions \[0\]"),
        ({"entropy_reward": REWARD[:, 1:]}, r"`entropy_reward` must have the mask's shape \[1, 5\], got \[1, 4\]"),
        ({"entropy_value": VALUE[:, 1:]}, r"`entropy_value` must have the mask's shape \[1, 5\], got \[1, 4\]"),
        ({"entropy_reward": NAN * REWARD}, "`entropy_reward` has a NaN or infinite number inside the mask"),
        ({"entropy_value": NAN * VALUE}, "`entropy_value` has a NaN or infinite number inside the mask"),
        ({"entropy_gamma": 2.0}, r"`entropy_gamma` must be in \[0, 1\], got 2.0"),
        ({"entropy_gae_lambda": 2.0}, r"`entropy_gae_lambda` must be in \[0, 1\], got 2.0"),
        ({"truncated": torch.tensor([True])}, "given together, got no `last_value`"),
    ],
)
def test_bad_input_is_named(estimator, changes, message):
    arguments = {"entropy_reward": REWARD, "entropy_value": VALUE, "turn": TURN, "entropy_gamma": 0.9}
    with pytest.raises(ValueError, match=message):
        estimator(**{**arguments, "entropy_gae_lambda": 0.9, **changes})


def test_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match=r"`reduction` must be one of 'sum', 'mean'; got 'max'"):
        turn_entropy_advantage(REWARD, VALUE, TURN, 0.9, 0.9, "max")
