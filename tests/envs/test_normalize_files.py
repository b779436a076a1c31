"""``VecNormalize`` keeps its statistics in files that need no pickle."""

import io
import zipfile

import numpy as np
import pytest
from gymnasium import spaces
from normalize_helpers import (
    CASES,
    Transparent,
    assert_close,
    assert_same_statistics,
    pair,
    raw_env,
    trained,
)

from maxent_onpolicy.envs import VecNormalize, make_vec_env
from maxent_onpolicy.envs.toys import ConstantRewardEnv


@pytest.mark.parametrize(("structure", "kwargs"), CASES)
def test_save_and_load(tmp_path, structure, kwargs):
    saved = trained(structure, **kwargs)
    saved.save(tmp_path / "statistics.pkl")  # whatever the name, SB3's users write this one
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.pkl"]
    loaded = VecNormalize.load(tmp_path / "statistics.pkl", raw_env(structure), device="cpu")
    assert_same_statistics(saved, loaded)
    for name in ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys"):
        assert getattr(saved, name) == getattr(loaded, name), name
    saved.training = loaded.training = False
    observation = saved.observation_space.sample()
    assert_close(saved.normalize_obs(observation), loaded.normalize_obs(observation))


def test_files_need_no_pickle(tmp_path):
    trained().save(tmp_path / "statistics.npz")
    with np.load(tmp_path / "statistics.npz", allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)
        assert set(file.files) >= {"meta", "obs/mean", "obs/var", "obs/count", "return/var"}


def test_sb3_pickles_need_trust(tmp_path):
    reference, venv = pair()[0], raw_env()
    reference.reset()
    for _ in range(10):
        reference.step([0] * 4)
    reference.save(str(tmp_path / "sb3.pkl"))
    with pytest.raises(ValueError, match=r"from_sb3_pickle\(path, venv, trust=True\)"):
        VecNormalize.load(tmp_path / "sb3.pkl", venv)
    with pytest.raises(ValueError, match="trust=True"):
        VecNormalize.from_sb3_pickle(tmp_path / "sb3.pkl", venv)
    loaded = VecNormalize.from_sb3_pickle(tmp_path / "sb3.pkl", venv, trust=True, device="cpu")
    assert_same_statistics(reference, loaded)


def test_sb3_pickles_of_dict_observations(tmp_path):
    reference, venv = pair("dict", norm_obs_keys=["other"], clip_obs=3.0)[0], raw_env("dict")
    reference.reset()
    reference.save(str(tmp_path / "sb3.pkl"))
    loaded = VecNormalize.from_sb3_pickle(tmp_path / "sb3.pkl", venv, trust=True)
    assert_same_statistics(reference, loaded)
    assert (loaded.clip_obs, loaded.norm_obs_keys) == (3.0, ["other"])


def rewrite_meta(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, "meta": np.array(change(str(arrays["meta"])))})


def test_statistics_of_other_keys_are_refused(tmp_path):
    trained("dict", norm_obs_keys=["other"]).save(tmp_path / "statistics.npz")
    only_vector = Transparent(raw_env("dict"))
    only_vector.observation_space = spaces.Dict({"vector": only_vector.observation_space["vector"]})
    with pytest.raises(ValueError, match=r"`norm_obs_keys` must be one of 'vector'; got 'other'"):
        VecNormalize.load(tmp_path / "statistics.npz", only_vector)


def test_bad_files_are_explained(tmp_path):
    path = tmp_path / "statistics.npz"
    venv = raw_env()
    trained().save(path)
    with pytest.raises(ValueError, match=r"shape \(3,\) for 'obs'.*need \(1,\)"):
        VecNormalize.load(path, make_vec_env(ConstantRewardEnv))
    with pytest.raises(ValueError, match="number is of type Discrete"):
        VecNormalize.load(path, raw_env("dict"))

    rewrite_meta(path, lambda meta: meta.replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match="version 9; this package reads up to 1"):
        VecNormalize.load(path, venv)
    rewrite_meta(path, lambda meta: meta.replace("maxent_onpolicy", "other"))
    with pytest.raises(ValueError, match=r"its format is 'other\.VecNormalize'"):
        VecNormalize.load(path, venv)
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of VecNormalize, or is damaged"):
            VecNormalize.load(path, venv)
    np.savez(path, other=np.zeros(2))
    with pytest.raises(ValueError, match="is not a file of VecNormalize"):
        VecNormalize.load(path, venv)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="is not a file of VecNormalize"):
        VecNormalize.load(path, venv)
    with pytest.raises(FileNotFoundError):
        VecNormalize.load(tmp_path / "missing.npz", venv)
