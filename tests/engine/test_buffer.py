"""The rollout buffer: layout, minibatches and SB3's names."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from maxent_onpolicy.engine.buffer import RolloutBuffer
from maxent_onpolicy.envs.tensor import TensorStep

BOX = spaces.Box(-1, 1, (3,), np.float64)
DISCRETE = spaces.Discrete(4)
T, B = 5, 2


def step(t, truncated=(), observation=None):
    flags = torch.zeros(B, dtype=torch.bool)
    flags[list(truncated)] = True
    index = torch.tensor(sorted(truncated), dtype=torch.int64)
    final = 100.0 * t + index.float().unsqueeze(1).expand(-1, 3) if len(index) else None
    return TensorStep(
        torch.zeros(B, 3),
        torch.tensor([t, -t]).float(),
        torch.zeros(B, dtype=torch.bool),
        flags,
        index,
        final,
        [{}] * B,
    )


def filled(observation_space=BOX, action_space=DISCRETE, truncated=None):
    buffer = RolloutBuffer(T, observation_space, action_space, n_envs=B)
    for t in range(T):
        observation = torch.full((B, 3), float(t)) + torch.tensor([[0.0], [0.5]])
        action = torch.full((B,), t) if isinstance(action_space, spaces.Discrete) else torch.full((B, 2), float(t))
        episode_start = np.array([t == 0, False])
        buffer.add(
            observation,
            action,
            torch.full((B, 1), t),
            torch.full((B,), -t),
            episode_start,
            step(t, (truncated or {}).get(t, ())),
        )
    return buffer


def test_fields_are_time_major():
    buffer = filled()
    assert buffer.observation.shape == (T, B, 3)
    assert buffer.observation.dtype == torch.float32
    assert buffer.observation[3, 1].tolist() == [3.5] * 3
    assert buffer.action.dtype == torch.int64
    assert buffer.action[2].tolist() == [2, 2]
    assert buffer.reward[4].tolist() == [4, -4]
    assert buffer.value[4].tolist() == [4, 4]
    assert buffer.episode_start.sum() == 1


def test_minibatches_hold_every_sample_once_and_keep_rows_together():
    buffer = filled(action_space=spaces.Box(-1, 1, (2,), np.float32))
    buffer.advantage = torch.arange(T * B).reshape(T, B).float()
    np.random.seed(0)
    batches = list(buffer.get(4))
    assert [len(batch.action) for batch in batches] == [4, 4, 2]
    rows = torch.cat([torch.cat([b.observation[:, :1], b.action[:, :1], b.advantage[:, None]], 1) for b in batches])
    rows = rows[rows[:, 2].argsort()]
    expected = [[t + 0.5 * b, t, t * B + b] for t in range(T) for b in range(B)]
    assert rows.tolist() == expected
    assert batches[0].entropy_advantage is None


def test_minibatches_come_in_sb3s_order():
    from stable_baselines3.common.buffers import RolloutBuffer as SB3RolloutBuffer

    space = spaces.Box(-1, 1, (2,), np.float32)
    ours, theirs = filled(action_space=space), SB3RolloutBuffer(T, BOX, space, n_envs=B)
    theirs.log_probs = ours.log_prob.numpy() + np.array([[0.0, 0.25]], dtype=np.float32)
    ours.log_prob = torch.as_tensor(theirs.log_probs.copy())
    theirs.full = True
    np.random.seed(5)
    expected = [batch.old_log_prob.tolist() for batch in theirs.get(3)]
    np.random.seed(5)
    assert [batch.log_prob.tolist() for batch in ours.get(3)] == expected


def test_final_observations_of_a_rollout():
    buffer = filled(truncated={1: (1,), 3: (0, 1)})
    steps, indices, observations = buffer.final_observations()
    assert steps.tolist() == [1, 3, 3]
    assert indices.tolist() == [1, 0, 1]
    assert observations[:, 0].tolist() == [101.0, 300.0, 301.0]
    buffer.reset()
    assert buffer.final_observations() is None


def test_sb3s_names_are_numpy_views():
    buffer = filled()
    assert isinstance(buffer.rewards, np.ndarray)
    assert buffer.rewards.base is not None
    np.testing.assert_array_equal(buffer.returns, buffer.value_target.numpy())
    assert buffer.episode_starts.shape == (T, B)
    assert buffer.actions.shape == (T, B, 1)
    with pytest.raises(AttributeError, match="'RolloutBuffer' has no attribute 'nonsense'"):
        _ = buffer.nonsense


def test_dictionary_observations():
    space = spaces.Dict({"box": BOX, "index": spaces.Discrete(3), "image": spaces.Box(0, 255, (1, 4, 4), np.uint8)})
    buffer = RolloutBuffer(1, space, spaces.Discrete(2), n_envs=B)
    observation = {"box": torch.ones(B, 3), "index": torch.tensor([1, 2]), "image": torch.full((B, 1, 4, 4), 7)}
    final = {key: value[:1] for key, value in observation.items()}
    flags = torch.tensor([True, False])
    answer = TensorStep(observation, torch.zeros(B), ~flags, flags, torch.tensor([0]), final, [{}] * B)
    buffer.add(observation, torch.zeros(B), torch.zeros(B), torch.zeros(B), np.ones(B), answer)
    assert buffer.observation["image"].dtype == torch.uint8
    assert buffer.observations["index"].tolist() == [[[1], [2]]]
    _, _, finals = buffer.final_observations()
    assert finals["box"].shape == (1, 3)
    batch = next(buffer.get())
    assert set(batch.observation) == {"box", "index", "image"}


def test_it_refuses_to_overflow_and_to_be_read_early():
    buffer = filled()
    with pytest.raises(RuntimeError, match="already holds its 5 steps"):
        buffer.add(torch.zeros(B, 3), torch.zeros(B), torch.zeros(B), torch.zeros(B), np.zeros(B), step(0))
    buffer.reset()
    assert buffer.size() == 0
    with pytest.raises(RuntimeError, match="holds 0 of 5 steps"):
        next(buffer.get(2))


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_functions_of_the_whole_rollout_are_evaluated_in_chunks(chunk_size):
    buffer = filled()
    sizes = []

    def double(observation):
        sizes.append(len(observation))
        return 2 * observation[:, :1]

    torch.testing.assert_close(buffer.evaluate(double, chunk_size), 2 * buffer.observation[..., 0])
    assert max(sizes) <= chunk_size
