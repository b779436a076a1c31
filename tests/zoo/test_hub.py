"""Models on the hub: the real huggingface_sb3 and Zoo, with the hub's own cache on disk in place of the network."""

import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import huggingface_sb3
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
import yaml
from huggingface_hub import constants
from stable_baselines3.common.save_util import data_to_json
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize

import maxent_onpolicy
from maxent_onpolicy import PPO, MaxEntPPO, make_vec_env
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.envs import VecNormalize
from maxent_onpolicy.hub import (
    Score,
    load_from_hub,
    load_policy_weights,
    push_to_hub,
    save_for_hub,
    save_zoo_run_for_hub,
)
from maxent_onpolicy.zoo.registration import MissingZooError

REPOSITORY = "someone/maxent_ppo-CartPole-v1"
MODEL = "maxent_ppo-CartPole-v1.zip"
SHORT = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "device": "cpu", "seed": 0}


class Hub:
    """The hub's cache on disk, and an account that uploads into it."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.private = None

    def publish(self, repo_id: str, folder: Path) -> None:
        place = self.cache / f"models--{repo_id.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, place / "snapshots" / ("0" * 40))

    def account(self, token=None):
        def create_repo(repo_id, private, exist_ok):
            assert exist_ok
            self.private = private
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(repo_id, folder_path, commit_message):
            self.publish(repo_id, Path(folder_path))

        return SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    hub = Hub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.account)
    return hub


@pytest.fixture(scope="module")
def trained() -> MaxEntPPO:
    env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2, seed=0))
    return MaxEntPPO("MlpPolicy", env, tau=0.1, **SHORT).learn(128)


def observations(env_id: str = "CartPole-v1") -> np.ndarray:
    space = make_vec_env(env_id, n_envs=1).observation_space
    space.seed(0)
    return np.clip(np.stack([space.sample() for _ in range(64)]), -3, 3)


def assert_acts_alike(model, other, env_id="CartPole-v1") -> None:
    batch = observations(env_id)
    assert np.array_equal(model.predict(batch, deterministic=True)[0], other.predict(batch, deterministic=True)[0])


def test_a_model_goes_to_the_hub_and_back(hub, trained, tmp_path):
    score = Score(mean=31.25, std=2.5, episodes=20)
    path = save_for_hub(trained, tmp_path / "upload", "CartPole-v1", score, {"tau": 0.1, "n_steps": 32})
    assert path.name == MODEL
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "README.md",
        MODEL,
        "results.json",
        "vec_normalize.npz",
    ]
    assert push_to_hub(path.parent, REPOSITORY, private=True) == f"https://huggingface.co/{REPOSITORY}"
    assert hub.private is True

    found = load_from_hub(REPOSITORY, MODEL, trust_remote_code=True)
    loaded = MaxEntPPO.load(found, device="cpu")
    assert_acts_alike(trained, loaded)
    assert loaded.current_tau == 0.1
    statistics = load_from_hub(REPOSITORY, "vec_normalize.npz", trust_remote_code=True)
    restored = VecNormalize.load(statistics, make_vec_env("CartPole-v1", n_envs=2))
    assert np.array_equal(restored.obs_rms.mean, trained.get_vec_normalize_env().obs_rms.mean)
    with pytest.raises(ValueError, match="holds no training state"):
        MaxEntPPO.load(found, env=restored, resume=True)


def test_the_card_says_what_the_model_is(trained, tmp_path):
    path = save_for_hub(trained, tmp_path, "CartPole-v1", Score(31.25, 2.5, 20), {"tau": 0.1})
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "stable-baselines3"
    assert {"CartPole-v1", "reinforcement-learning", "maxent-onpolicy"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("CartPole-v1", "31.25 +/- 2.50")
    assert f'load_from_hub(REPOSITORY, "{path.name}", trust_remote_code=True)' in card.text
    assert "\ntau: 0.1\n" in card.text
    bare = save_for_hub(trained, tmp_path / "bare", "CartPole-v1").parent
    assert not (bare / "results.json").exists()
    assert "Mean return" not in (bare / "README.md").read_text()


def test_nothing_is_downloaded_from_whom_one_does_not_trust(hub, trained, tmp_path, monkeypatch):
    hub.publish(REPOSITORY, save_for_hub(trained, tmp_path / "upload", "CartPole-v1").parent)
    with pytest.raises(ValueError, match=r"`trust_remote_code=False`: .* can run any code .*load_policy_weights"):
        load_from_hub(REPOSITORY, MODEL)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "no")
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_from_hub(REPOSITORY, MODEL)
    load_from_hub(REPOSITORY, MODEL, trust_remote_code=True)
    assert os.environ["TRUST_REMOTE_CODE"] == "no", "trust in one file is trust in one file"
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    assert load_from_hub(REPOSITORY, MODEL) == huggingface_sb3.load_from_hub(REPOSITORY, MODEL)


def test_trust_is_forgotten_where_there_was_none(hub):
    with pytest.raises(Exception, match=r"offline|cannot find|Cannot find"):
        load_from_hub("someone/nothing", MODEL, trust_remote_code=True)
    assert "TRUST_REMOTE_CODE" not in os.environ


def test_without_the_extra_it_says_what_to_install(trained, tmp_path, monkeypatch):
    for name in ("huggingface_sb3", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (
        lambda: load_from_hub(REPOSITORY, MODEL, trust_remote_code=True),
        lambda: save_for_hub(trained, tmp_path, "CartPole-v1"),
    ):
        with pytest.raises(MissingZooError, match=r'pip install "maxent-onpolicy\[zoo\]"'):
            call()


def test_only_a_folder_with_a_model_is_uploaded(hub, tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        push_to_hub(tmp_path, REPOSITORY)


# --- the Zoo's layout ---


@pytest.fixture(scope="module")
def zoo_run(tmp_path_factory) -> Path:
    """A short run of the Zoo with normalisation, whose network is given as text that the Zoo evaluates."""
    folder = tmp_path_factory.mktemp("zoo")
    params = [
        "n_envs:2",
        "n_steps:32",
        "batch_size:32",
        "normalize:True",
        "policy_kwargs:'dict(activation_fn=nn.ReLU)'",
    ]
    options = ["--n-timesteps", "128", "--eval-freq", "64", "--eval-episodes", "2", "--seed", "1", "--device", "cpu"]
    assert main(["zoo", "train", "-f", str(folder), "--env", "CartPole-v1", *options, "-params", *params]) == 0
    return folder / "maxent_ppo" / "CartPole-v1_1"


def test_a_run_of_the_zoo_goes_to_the_hub_and_the_zoo_gets_it_back(hub, zoo_run, tmp_path, monkeypatch, capsys):
    path = save_zoo_run_for_hub(zoo_run, tmp_path / "upload")
    assert path.name == MODEL
    push_to_hub(path.parent, REPOSITORY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="TRUST_REMOTE_CODE"):
        download(REPOSITORY)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    download(REPOSITORY)
    assert main(["zoo", "enjoy", "--env", "CartPole-v1", "--no-render", "-n", "600"]) == 0
    again = capsys.readouterr().out.split("Running", 1)[-1].split("with params", 1)[-1]
    assert "Mean reward" in again
    assert (
        main(["zoo", "enjoy", "-f", str(zoo_run.parents[1]), "--env", "CartPole-v1", "--no-render", "-n", "600"]) == 0
    )
    assert capsys.readouterr().out.split("with params", 1)[-1] == again
    with np.load(zoo_run / "evaluations.npz") as evaluations:
        mean = evaluations["results"][-1].mean()
    assert f"Mean return: {mean:.2f} +/- " in (path.parent / "README.md").read_text()
    assert "normalize: True" in (path.parent / "README.md").read_text()


def download(repo_id: str) -> None:
    from rl_zoo3.load_from_hub import download_from_hub

    organization, name = repo_id.split("/")
    environment = huggingface_sb3.EnvironmentName("CartPole-v1")
    download_from_hub("maxent_ppo", environment, 0, "logs", organization, name)


def test_evaluate_plays_what_came_from_the_hub(hub, zoo_run, tmp_path, capsys):
    path = save_zoo_run_for_hub(zoo_run, tmp_path / "upload")
    command = ["evaluate", str(path), "--algorithm", "MaxEntPPO", "--env", "CartPole-v1", "--episodes", "4"]
    statistics = ["--normalization", str(path.parent / "vec_normalize.pkl")]
    assert main([*command, *statistics]) == 2
    assert "--trust-pickle" in capsys.readouterr().err
    assert main([*command, *statistics, "--trust-pickle"]) == 0
    output = capsys.readouterr().out

    model = MaxEntPPO.load(path, device="cpu")
    env = DummyVecEnv([lambda: make_vec_env("CartPole-v1", n_envs=1).envs[0] for _ in range(4)])
    env = SB3VecNormalize.load(str(path.parent / "vec_normalize.pkl"), env)
    env.training = env.norm_reward = False
    found = maxent_onpolicy.evaluation.protocol.evaluate_policy(model, env, 4, 20_000, ["deterministic"])
    (row,) = [line.split() for line in output.splitlines() if line.startswith("deterministic")]
    assert float(row[2]) == pytest.approx(found["deterministic"].returns.mean(), rel=1e-3)


def test_what_is_no_run_of_the_zoo(zoo_run, tmp_path):
    with pytest.raises(ValueError, match="is no finished run of the Zoo"):
        save_zoo_run_for_hub(tmp_path, tmp_path / "upload")
    run = tmp_path / "run"
    shutil.copytree(zoo_run, run)
    options = (run / "CartPole-v1" / "args.yml").read_text()
    (run / "CartPole-v1" / "args.yml").write_text(options.replace("maxent_ppo", "a2c"))
    with pytest.raises(ValueError, match=r"was trained by 'a2c', which is none of .*maxent_ppo"):
        save_zoo_run_for_hub(run, tmp_path / "upload")
    (run / "CartPole-v1" / "args.yml").write_text("[1, 2")
    with pytest.raises(ValueError, match="cannot be read"):
        save_zoo_run_for_hub(run, tmp_path / "upload")


def test_settings_of_a_run_are_read_without_making_objects(zoo_run, tmp_path):
    run, witness = tmp_path / "run", tmp_path / "witness"
    shutil.copytree(zoo_run, run)
    trap = f"  - - trap\n    - !!python/object/apply:os.mkdir [{witness}]\n"
    config = run / "CartPole-v1" / "config.yml"
    config.write_text(config.read_text() + trap)
    assert "trap" in yaml.load(config.read_text(), yaml.UnsafeLoader), "the trap is one"
    witness.rmdir()
    save_zoo_run_for_hub(run, tmp_path / "upload")
    assert not witness.exists()


# --- stable_baselines3's own files, and weights without pickle ---

STOCK = {
    "PPO": (stable_baselines3.PPO, "CartPole-v1", {"n_steps": 32, "batch_size": 32, "n_epochs": 1}, {}),
    "TRPO": (sb3_contrib.TRPO, "CartPole-v1", {"n_steps": 32, "batch_size": 32}, {}),
    "SAC": (stable_baselines3.SAC, "Pendulum-v1", {"buffer_size": 200, "learning_starts": 16}, {"buffer_size": 200}),
}


@pytest.mark.parametrize("name", [name for name in STOCK if name in maxent_onpolicy.__all__])
def test_stock_models_load_whole_and_as_weights(name, tmp_path):
    theirs, env_id, options, ours = STOCK[name]
    model = theirs("MlpPolicy", env_id, seed=0, device="cpu", **options).learn(40)
    model.save(tmp_path / "stock.zip")
    cls = getattr(maxent_onpolicy, name)
    assert_acts_alike(model, cls.load(tmp_path / "stock.zip", device="cpu", **ours), env_id)

    empty = cls("MlpPolicy", env_id, seed=1, device="cpu", **options)
    load_policy_weights(empty, tmp_path / "stock.zip")
    for key, value in model.policy.state_dict().items():
        assert torch.equal(empty.policy.state_dict()[key], value), key


def test_weights_are_enough_to_act_and_to_train_on(trained, tmp_path):
    trained.save(tmp_path / "model.zip")
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    model = MaxEntPPO("MlpPolicy", env, **{**SHORT, "seed": 5}).learn(64)
    load_policy_weights(model, tmp_path / "model.zip")
    assert_acts_alike(trained, model)
    start = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(64)
    assert any(not torch.equal(value, start[key]) for key, value in model.policy.state_dict().items())
    same = [key for key, value in trained.policy.state_dict().items() if torch.equal(value, start[key])]
    assert len(same) == len(start)


class Touch:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def rewrite(path: Path, target: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            out.writestr(name, entries.get(name.replace(".", "_"), source.read(name)))


def test_weights_are_read_without_running_what_else_the_file_holds(trained, tmp_path):
    witness = tmp_path / "witness"
    trained.save(tmp_path / "model.zip")
    rewrite(tmp_path / "model.zip", tmp_path / "trap.zip", data=data_to_json({"trap": Touch(witness)}).encode())
    model = MaxEntPPO("MlpPolicy", "CartPole-v1", **SHORT)
    load_policy_weights(model, tmp_path / "trap.zip")
    assert_acts_alike(trained, model)
    assert not witness.exists()
    with pytest.raises(Exception, match=r".*"):  # what it finds there is no model
        MaxEntPPO.load(tmp_path / "trap.zip")
    assert witness.exists(), "the trap is one"

    witness.unlink()
    weights = io.BytesIO()
    torch.save({"trap": Touch(witness)}, weights)
    rewrite(tmp_path / "model.zip", tmp_path / "trap.zip", policy_pth=weights.getvalue())
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_policy_weights(model, tmp_path / "trap.zip")
    assert not witness.exists()


def test_files_that_hold_no_fitting_weights(trained, tmp_path):
    trained.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"do not fit this PPO.*entropy_value_net.weight"):
        load_policy_weights(PPO("MlpPolicy", "CartPole-v1", **SHORT), tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"do not fit this MaxEntPPO.*mlp_extractor.policy_net.0.weight"):
        load_policy_weights(MaxEntPPO("MlpPolicy", "Pendulum-v1", **SHORT), tmp_path / "model.zip")
    model = MaxEntPPO("MlpPolicy", "CartPole-v1", **SHORT)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match="is no saved model"):
        load_policy_weights(model, tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(ValueError, match=r"is no saved model with policy\.pth"):
        load_policy_weights(model, tmp_path / "empty.zip")
    rewrite(tmp_path / "model.zip", tmp_path / "cut.zip", policy_pth=b"PK cut off")
    with pytest.raises(ValueError, match="is damaged"):
        load_policy_weights(model, tmp_path / "cut.zip")
    with pytest.raises(FileNotFoundError):
        load_policy_weights(model, tmp_path / "nowhere.zip")
