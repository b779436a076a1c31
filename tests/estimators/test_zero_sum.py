"""Two players in one rollout: a game whose advantages are known, and what a change of names may change."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_advantages import column, flags, random_rollout

from maxent_onpolicy.estimators.advantages import gae
from maxent_onpolicy.estimators.entropy import entropy_advantage, soft_advantage
from maxent_onpolicy.estimators.zero_sum import acting_players_advantage, player_sign, zero_sum_entropy_reward

GOLDEN_TAU = 0.5


def test_the_sign_is_plus_for_player_0():
    assert player_sign(torch.tensor([[0, 1], [1, 0]])).tolist() == [[1.0, -1.0], [-1.0, 1.0]]


def test_a_game_of_two_decisions_by_hand():
    # Player 0 chooses among 4 actions alike, then player 1 between 2; player 0 wins 3. Critics that know nothing.
    sign = player_sign(torch.tensor([[0], [1]])).double()
    zeros, ends = column(0, 0), {"terminated": flags(0, 1), "done": flags(0, 1)}
    task = acting_players_advantage(gae(column(0, 3), zeros, zeros, **ends, gamma=1.0, gae_lambda=1.0), sign)
    own = column(math.log(4), math.log(2))
    entropy = acting_players_advantage(
        entropy_advantage(
            zero_sum_entropy_reward(own, sign), zeros, zeros, **ends, entropy_gamma=1.0, entropy_gae_lambda=1.0
        ),
        sign,
    )
    torch.testing.assert_close(task.advantage, column(3, -3))
    torch.testing.assert_close(task.target, column(3, 3))
    # Its own entropy counts for a player, the opponent's later one against it: log 4 − log 2, then log 2.
    torch.testing.assert_close(entropy.advantage, column(math.log(2), math.log(2)))
    torch.testing.assert_close(entropy.target, column(math.log(2), -math.log(2)))
    torch.testing.assert_close(
        soft_advantage(task.advantage, entropy.advantage, GOLDEN_TAU),
        column(3 + 0.5 * math.log(2), -3 + 0.5 * math.log(2)),
    )


def test_the_exact_critic_leaves_no_advantage_in_a_quantal_response_equilibrium():
    # Matching pennies, uniform and independent choices: whatever is drawn, A + τ·A_H has the same mean for every action
    # of the first player, over what the second draws.
    tau, sign = 0.3, player_sign(torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])).double()
    first, second = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    reward = torch.stack([torch.zeros(4), torch.where(first == second, 1.0, -1.0)]).double()
    done = torch.tensor([[False] * 4, [True] * 4])
    own = torch.full((2, 4), math.log(2), dtype=torch.float64)
    value, entropy_value = torch.zeros(2, 4).double(), torch.tensor([[0.0], [-math.log(2)]]).expand(2, 4).double()
    successor = torch.cat([entropy_value[1:], torch.zeros(1, 4)])
    task = acting_players_advantage(gae(reward, value, value, done, done, 1.0, 1.0), sign).advantage
    entropy = acting_players_advantage(
        entropy_advantage(zero_sum_entropy_reward(own, sign), entropy_value, successor, done, done, 1.0, 1.0), sign
    ).advantage
    soft = soft_advantage(task, entropy, tau)
    for action in (0, 1):
        torch.testing.assert_close(soft[0, first == action].mean(), torch.zeros(()).double())
        torch.testing.assert_close(soft[1, second == action].mean(), torch.zeros(()).double())


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), tau=st.floats(0, 2), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_who_is_called_player_0_changes_no_players_advantage(seed, tau, gamma, gae_lambda):
    task, entropy = random_rollout(seed), random_rollout(seed + 1)
    ends = {"terminated": task["terminated"], "done": task["done"]}
    player = torch.randint(2, task["reward"].shape, generator=torch.Generator().manual_seed(seed))

    def advantage(players, factor):
        sign = player_sign(players).double()
        plain = gae(
            *(factor * task[name] for name in ("reward", "value", "next_value")),
            **ends,
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
        soft = entropy_advantage(
            zero_sum_entropy_reward(entropy["reward"], sign),
            *(factor * entropy[name] for name in ("value", "next_value")),
            **ends,
            entropy_gamma=gamma,
            entropy_gae_lambda=gae_lambda,
        )
        parts = acting_players_advantage(plain, sign), acting_players_advantage(soft, sign)
        targets = parts[0].target, parts[1].target
        return soft_advantage(parts[0].advantage, parts[1].advantage, tau), targets

    mine, targets = advantage(player, 1.0)
    flipped, flipped_targets = advantage(1 - player, -1.0)
    torch.testing.assert_close(flipped, mine)
    for target, other in zip(targets, flipped_targets, strict=True):
        torch.testing.assert_close(other, -target)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_where_player_0_alone_acts_nothing_changes(seed):
    data = random_rollout(seed)
    sign = player_sign(torch.zeros_like(data["done"], dtype=torch.int64))
    plain = gae(**data, gamma=0.9, gae_lambda=0.8)
    turned = acting_players_advantage(plain, sign)
    assert torch.equal(turned.advantage, plain.advantage)
    assert torch.equal(turned.target, plain.target)
    assert torch.equal(zero_sum_entropy_reward(data["reward"], sign), data["reward"])
