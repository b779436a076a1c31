"""The seam between environments and the engine: both forms of a step, and the way from numpy to a device."""

import numpy as np
import pytest
import torch
from normalize_helpers import OnTensors, Transparent, assert_close, raw_env
from stepping import check_continues

from maxent_onpolicy.envs import VecNormalize
from maxent_onpolicy.envs.staging import HostStaging
from maxent_onpolicy.envs.tensor import TensorAdapter, TensorStep, as_tensor_vec_env, is_tensor_vec_env

META = torch.device("meta")


class Dense(OnTensors):
    """The same environments, with final observations in the dense form and empty infos."""

    def __init__(self, venv):
        super().__init__(venv)
        self.infos = [{} for _ in range(venv.num_envs)]

    def step_tensor(self, actions):
        step = super().step_tensor(actions)

        def spread(observation, final):
            dense = torch.full_like(observation, 99)  # rows that nobody may read
            dense[step.final_index] = final
            return dense

        dense = None
        if step.final_observation is not None:
            if isinstance(step.observation, dict):
                dense = {key: spread(step.observation[key], value) for key, value in step.final_observation.items()}
            else:
                dense = spread(step.observation, step.final_observation)
        return step._replace(final_index=None, final_observation=dense, infos=self.infos)


@pytest.mark.parametrize("structure", ["box", "dict"])
def test_normalisation_of_the_dense_form_equals_that_of_the_compact_form(structure):
    keys = {"norm_obs_keys": ["vector", "other"]} if structure == "dict" else {}
    compact = VecNormalize(OnTensors(raw_env(structure)), device="cpu", **keys)
    dense = VecNormalize(Dense(raw_env(structure)), device="cpu", **keys)
    compact.reset(), dense.reset()
    truncations = 0
    for _ in range(40):
        one, other = (vec_env.step_tensor(torch.zeros(4, dtype=torch.int64)) for vec_env in (compact, dense))
        torch.testing.assert_close(other.observation, one.observation, rtol=0, atol=0)
        torch.testing.assert_close(other.reward, one.reward, rtol=0, atol=0)
        assert other.final_index is None
        assert not any(other.infos)
        if one.final_observation is not None:
            truncations += len(one.final_index)
            rows = other.final_observation
            picked = {k: v[one.final_index] for k, v in rows.items()} if structure == "dict" else rows[one.final_index]
            torch.testing.assert_close(picked, one.final_observation, rtol=0, atol=0)
    assert truncations > 5


@pytest.mark.parametrize("dense", [True, False])
def test_a_step_moves_to_another_device_whole(dense):
    flags = torch.tensor([True, False])
    index = None if dense else torch.tensor([0])
    final = {"a": torch.zeros(2 if dense else 1, 3)}
    step = TensorStep({"a": torch.zeros(2, 3)}, torch.zeros(2), ~flags, flags, index, final, [{}, {}])
    moved = step.to(META)
    tensors = [moved.observation["a"], moved.reward, moved.terminated, moved.truncated, moved.final_observation["a"]]
    tensors += [] if dense else [moved.final_index]
    assert {tensor.device for tensor in tensors} == {META}
    assert (moved.final_index is None) == dense
    assert moved.infos is step.infos


def test_staging_carries_every_type_and_shape():
    staging = HostStaging("cpu")
    rng = np.random.default_rng(0)
    before, copies = [], []
    for step in range(6):  # each buffer is used several times, and must grow
        arrays = [
            rng.normal(size=(3, 1 + 7 * step)),
            rng.normal(size=(3,)).astype(np.float32),
            rng.integers(0, 255, (3, 5, 5, 3), dtype=np.uint8),
            rng.random(3) < 0.5,
            np.flatnonzero(rng.random(9) < 0.5),
            np.zeros((0, 4), np.float32),
            np.asfortranarray(rng.normal(size=(4, 3)))[::2],
        ]
        sent = staging.send(arrays)
        for tensor, array in zip(before + sent, copies + arrays, strict=True):  # what was sent earlier is left alone
            np.testing.assert_array_equal(tensor.numpy(), array, strict=True)
        before, copies = sent, [array.copy() for array in arrays]
    actions = torch.randn(3, 2, requires_grad=True)
    np.testing.assert_array_equal(staging.receive(actions), actions.detach().numpy(), strict=True)


@pytest.mark.parametrize("structure", ["box", "dict"])
@pytest.mark.parametrize("staged", [False, True])
def test_the_adapter_returns_what_the_environments_do(structure, staged):
    adapter, plain = as_tensor_vec_env(raw_env(structure), "cpu"), raw_env(structure)
    if staged:
        adapter._staging = HostStaging("cpu")
    first = plain.reset()
    assert_close(adapter.reset_tensor(), first)
    truncations = 0
    for _ in range(40):
        step = adapter.step_tensor(torch.zeros(4, dtype=torch.int64))
        observation, reward, done, infos = plain.step(np.zeros(4, int))
        assert_close(step.observation, observation)
        np.testing.assert_array_equal(step.reward.numpy(), reward, strict=True)
        np.testing.assert_array_equal((step.terminated | step.truncated).numpy(), done)
        cut = [index for index in range(4) if done[index] and infos[index]["TimeLimit.truncated"]]
        assert step.final_index.tolist() == cut
        assert (step.final_observation is None) == (not cut)
        for row, index in enumerate(cut):
            final = step.final_observation
            row_of = {key: value[row] for key, value in final.items()} if structure == "dict" else final[row]
            assert_close(row_of, infos[index]["terminal_observation"])
            truncations += 1
    assert truncations > 5


def test_the_adapter_is_a_vec_env_whose_state_is_that_of_the_environments():
    def make():
        return as_tensor_vec_env(raw_env(), "cpu")

    assert check_continues(make, 20, 40) > 5
    adapter = make()
    assert isinstance(adapter, TensorAdapter)
    assert as_tensor_vec_env(adapter) is adapter
    assert is_tensor_vec_env(adapter)
    assert not is_tensor_vec_env(Transparent(adapter))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_steps_on_a_gpu_are_those_on_the_cpu():
    on_gpu, on_cpu = as_tensor_vec_env(raw_env(), "cuda"), as_tensor_vec_env(raw_env(), "cpu")
    on_gpu.reset(), on_cpu.reset()
    steps = [
        [env.step_tensor(torch.zeros(4, dtype=torch.int64, device=env.device)) for env in (on_gpu, on_cpu)]
        for _ in range(40)
    ]
    for step, expected in steps:  # all afterwards: no buffer may be overwritten
        assert step.observation.is_cuda
        for one, other in zip(step[:5], expected[:5], strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=0, atol=0)
