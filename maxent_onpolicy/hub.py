"""Models on the Hugging Face hub, in the layout of ``huggingface_sb3`` and RL-Baselines3-Zoo.

A model file is a zip archive with pickled data: whoever wrote it can run any code where it is loaded. So a download
that will be unpickled must be asked for, and :func:`load_policy_weights` reads the weights of a model alone, with
nothing unpickled. Needs ``pip install "maxent-onpolicy[zoo]"``, but for :func:`load_policy_weights`.
"""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from maxent_onpolicy.validation import check_integer, check_range
from maxent_onpolicy.zoo.registration import MissingZooError, zoo_name

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

_TRUST = "TRUST_REMOTE_CODE"  # huggingface_sb3 reads this variable of the environment
_YES = {"1", "true", "t", "yes", "y", "on"}
_WEIGHTS = "policy.pth"
_CARD = """# {algorithm} playing {env_id}

A model trained with `maxent_onpolicy`, on [Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3).
{score}
## Usage

The file is unpickled when it is loaded, and could run any code then: `trust_remote_code=True` says that you trust its
author.

```python
from maxent_onpolicy import {algorithm}
from maxent_onpolicy.hub import load_from_hub

path = load_from_hub(REPOSITORY, "{filename}", trust_remote_code=True)
model = {algorithm}.load(path)
```
{hyperparameters}"""


class Score(NamedTuple):
    """What a model reached in an evaluation.

    Attributes:
        mean: mean return of the episodes, in raw reward.
        std: their standard deviation.
        episodes: how many there were.
        deterministic: whether actions were the policy's most probable ones.
    """

    mean: float
    std: float
    episodes: int
    deterministic: bool = True


def load_from_hub(repo_id: str, filename: str, trust_remote_code: bool = False) -> str:
    """Download a file, and return its path in the local cache; ``huggingface_sb3.load_from_hub`` does it.

    Args:
        repo_id: ``"organisation/name"``.
        filename: in the repository, such as ``"maxent_ppo-CartPole-v1.zip"``.
        trust_remote_code: whether the file's author may run code on this machine, as loading a model or statistics of
            SB3's ``VecNormalize`` lets them. The environment variable ``TRUST_REMOTE_CODE=True`` says so too.

    Raises:
        ValueError: if the author is not trusted.
        MissingZooError: if ``huggingface_sb3`` is not installed.
    """
    if not (trust_remote_code or os.environ.get(_TRUST, "").lower() in _YES):
        raise ValueError(
            f"`trust_remote_code=False`: {filename!r} of {repo_id!r} can run any code when it is loaded; pass "
            f"`trust_remote_code=True`, or set {_TRUST}=True, if you trust its author. The weights alone are safe: "
            "maxent_onpolicy.hub.load_policy_weights"
        )
    huggingface_sb3 = _import("huggingface_sb3")
    with _trusting():
        path: str = huggingface_sb3.load_from_hub(repo_id, filename)
    return path


def load_policy_weights(model: "BaseAlgorithm", path: str | os.PathLike[str]) -> None:
    """Put the weights of a saved model into ``model``'s policy; nothing in the file is unpickled or run.

    Make ``model`` yourself, with the class, environment and ``policy_kwargs`` that the file's author used. Critics,
    PopArt's statistics and target networks are weights too. Optimisers, a temperature that was learnt, schedules, the
    number of steps and the normalisation of observations are not.

    Args:
        model: whose policy is overwritten.
        path: a model file of this package or of Stable-Baselines3.

    Raises:
        ValueError: if the file is no such archive, holds more than tensors, or the weights do not fit.
        OSError: if it cannot be read.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            stored = io.BytesIO(archive.read(_WEIGHTS))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"`path`: {str(path)!r} is no saved model with {_WEIGHTS}: {error}") from error
    try:
        weights = torch.load(stored, map_location=model.device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"`path`: {_WEIGHTS} in {str(path)!r} is damaged, or holds more than tensors") from error
    policy = model.policy
    if not isinstance(weights, Mapping):
        raise ValueError(f"`path`: {_WEIGHTS} in {str(path)!r} holds a {type(weights).__name__}, not named tensors")
    expected = policy.state_dict()
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        raise ValueError(
            f"`path`: the weights in {str(path)!r} do not fit this {type(model).__name__}, which must be made with the "
            f"saved model's class, spaces and `policy_kwargs`; missing, unknown or of another shape: "
            f"{', '.join(wrong[:6])}{', ...' if len(wrong) > 6 else ''}"
        )
    policy.load_state_dict(weights)


def save_for_hub(
    model: "BaseAlgorithm",
    folder: str | os.PathLike[str],
    env_id: str,
    score: Score | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as it lies in a repository of the hub: the model, its normalisation, a card, its score.

    The model is saved without the state of the training, which ``load(resume=True)`` needs and others do not.

    Args:
        model: the trained model.
        folder: where the files go; made if it is not there.
        env_id: the environment it was trained in.
        score: of an evaluation, for the card and ``results.json``.
        hyperparameters: for the card.

    Returns:
        The model file, ``{algorithm}-{environment}.zip``. Beside it lie ``README.md``, with a score ``results.json``,
        and the normalisation: ``vec_normalize.npz``, or ``vec_normalize.pkl`` where it is SB3's.

    Raises:
        ValueError: if a number of the score is not one.
        MissingZooError: if ``huggingface_sb3`` is not installed.
    """
    from maxent_onpolicy.envs.normalize import VecNormalize

    place = Path(folder)
    path = place / _model_filename(zoo_name(type(model).__name__), env_id)
    place.mkdir(parents=True, exist_ok=True)
    _write_card(place, type(model).__name__, path.name, env_id, score, hyperparameters)
    model.save(path, exclude=["_training_state"])
    normalization = model.get_vec_normalize_env()
    if normalization is not None:
        without_pickle = isinstance(normalization, VecNormalize)
        normalization.save(str(place / f"vec_normalize.{'npz' if without_pickle else 'pkl'}"))
    return path


def save_zoo_run_for_hub(run: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Write a run of the Zoo as the Zoo's own upload does, so that its ``load_from_hub`` finds all it looks for.

    Nothing of the run is unpickled. The score is that of the last evaluation during training.

    Args:
        run: the run's directory, such as ``logs/maxent_ppo/CartPole-v1_1``.
        folder: where the files go; made if it is not there.

    Returns:
        The model file, ``{algorithm}-{environment}.zip``.

    Raises:
        ValueError: if the directory is no finished run.
        MissingZooError: if ``huggingface_sb3`` is not installed.
    """
    import numpy as np

    from maxent_onpolicy.zoo.registration import algorithms

    source, place = Path(run), Path(folder)
    settings = sorted(source.glob("*/args.yml"))
    if len(settings) != 1 or not (model := source / f"{settings[0].parent.name}.zip").is_file():
        raise ValueError(f"`run`: {str(source)!r} is no finished run of the Zoo: it has no model, or no args.yml")
    options, config = (_read_plainly(settings[0].with_name(name)) for name in ("args.yml", "config.yml"))
    score = None
    if (source / "evaluations.npz").is_file():
        with np.load(source / "evaluations.npz") as evaluations:
            returns = evaluations["results"][-1]
        score = Score(float(returns.mean()), float(returns.std()), len(returns))
    name = options["algo"]
    if name not in algorithms():
        raise ValueError(f"`run`: {str(source)!r} was trained by {name!r}, which is none of {', '.join(algorithms())}")
    path = place / _model_filename(name, options["env"])
    place.mkdir(parents=True, exist_ok=True)
    _write_card(place, algorithms()[name].__name__, path.name, options["env"], score, config)
    shutil.copyfile(model, path)
    for setting in ("args.yml", "config.yml"):
        shutil.copyfile(settings[0].with_name(setting), place / setting)
    (place / "env_kwargs.yml").write_text(yaml.safe_dump(options["env_kwargs"] or {}), encoding="utf-8")
    if (settings[0].parent / "vecnormalize.pkl").is_file():
        shutil.copyfile(settings[0].parent / "vecnormalize.pkl", place / "vec_normalize.pkl")
    with zipfile.ZipFile(place / "train_eval_metrics.zip", "w") as archive:
        for file in sorted([*source.glob("evaluations.npz"), *source.glob("*.csv")]):
            archive.write(file, file.name)
    return path


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    token: str | None = None,
    private: bool = False,
    commit_message: str = "Upload a model",
) -> str:
    """Upload a folder that :func:`save_for_hub` or :func:`save_zoo_run_for_hub` wrote; return the repository's address.

    Args:
        folder: everything in it is uploaded.
        repo_id: ``"organisation/name"``; made if it is not there.
        token: of your account; ``None`` takes the one you logged in with.
        private: whether a repository made here is hidden from others.
        commit_message: of the upload.

    Raises:
        ValueError: if the folder holds no model.
        MissingZooError: if ``huggingface_hub`` is not installed.
    """
    if not list(Path(folder).glob("*.zip")):
        raise ValueError(f"`folder`: {str(folder)!r} holds no model; write one there with save_for_hub")
    api = _import("huggingface_hub").HfApi(token=token)
    repository = api.create_repo(repo_id=repo_id, private=private, exist_ok=True)
    api.upload_folder(repo_id=repository.repo_id, folder_path=str(folder), commit_message=commit_message)
    return str(repository)


def _model_filename(algorithm: str, env_id: str) -> str:
    names = _import("huggingface_sb3")
    filename: str = names.ModelName(algorithm, names.EnvironmentName(env_id)).filename
    return filename


def _write_card(
    folder: Path,
    algorithm: str,
    filename: str,
    env_id: str,
    score: Score | None,
    hyperparameters: Mapping[str, Any] | None,
) -> None:
    """Write ``README.md``, whose head the hub reads, and ``results.json`` as ``huggingface_sb3`` does."""
    hub = _import("huggingface_hub")
    head: dict[str, Any] = {
        "library_name": "stable-baselines3",
        "tags": [
            env_id,
            "deep-reinforcement-learning",
            "reinforcement-learning",
            "stable-baselines3",
            "maxent-onpolicy",
        ],
    }
    said = listed = ""
    if score is not None:
        value = f"{check_range('score.mean', score.mean):.2f} +/- {check_range('score.std', score.std, 0):.2f}"
        episodes = check_integer("score.episodes", score.episodes, 1)
        kind = "deterministic" if score.deterministic else "stochastic"
        said = f"\nMean return: {value}, over {episodes} episodes with {kind} actions.\n"
        result = hub.EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement-learning",
            dataset_type=env_id,
            dataset_name=env_id,
            metric_type="mean_reward",
            metric_name="mean_reward",
            metric_value=value,
        )
        head |= {"model_name": algorithm, "eval_results": [result]}
        results = {
            "mean_reward": score.mean,
            "std_reward": score.std,
            "is_deterministic": score.deterministic,
            "n_eval_episodes": episodes,
            "eval_datetime": datetime.now(UTC).isoformat(),
        }
        (folder / "results.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    if hyperparameters:
        rows = "".join(f"{name}: {value}\n" for name, value in hyperparameters.items())
        listed = f"\n## Hyperparameters\n\n```\n{rows}```\n"
    text = _CARD.format(algorithm=algorithm, env_id=env_id, filename=filename, score=said, hyperparameters=listed)
    hub.ModelCard(f"---\n{hub.ModelCardData(**head).to_yaml()}\n---\n\n{text}").save(folder / "README.md")


class _PlainLoader(yaml.SafeLoader):
    """Reads the Zoo's YAML, in which Python objects are tagged, without making any of them."""

    def construct_plain(self, tag: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            items = self.construct_sequence(node, deep=True)
            return dict(items[0]) if tag.endswith("collections.OrderedDict") and items else items
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        return node.value or tag


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _PlainLoader.construct_plain)


def _read_plainly(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"`run`: {str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"`run`: {str(path)!r} is none of the Zoo's files")
    return content


@contextmanager
def _trusting() -> Iterator[None]:
    """Tell ``huggingface_sb3`` that a download is wanted."""
    before = os.environ.get(_TRUST)
    os.environ[_TRUST] = "True"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TRUST]
        else:
            os.environ[_TRUST] = before


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingZooError(
            f'{name} cannot be imported ({error}); install it with: pip install "maxent-onpolicy[zoo]"'
        ) from error
