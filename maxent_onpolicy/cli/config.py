"""What one run is: the settings behind ``config.json``, checked as far as that goes without building anything."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from maxent_onpolicy.cli.values import UsageError, check_integer, check_mapping, check_plain, merge
from maxent_onpolicy.env_ids import SELF_PLAY, is_text
from maxent_onpolicy.evaluation.modes import MODES
from maxent_onpolicy.validation import did_you_mean

SETTINGS = (
    "total_timesteps",
    "n_envs",
    "backend",
    "policy",
    "hyperparameters",
    "environment",
    "evaluation",
    "tuning_budget",
)
ENVIRONMENT_DEFAULTS: dict[str, Any] = {
    "normalize_observation": False,
    "normalize_reward": False,
    "clip_observation": 10.0,
    "clip_reward": 10.0,
    "discretize_bins": None,
    "kwargs": {},
}
EVALUATION_DEFAULTS: dict[str, Any] = {
    "every": None,
    "episodes": 10,
    "seed": 10_000,
    "modes": None,
    "n_envs": None,
    "test_kwargs": None,
}
SETTING_DEFAULTS: dict[str, Any] = {
    "total_timesteps": None,
    "n_envs": 1,
    "backend": "auto",
    "policy": "MlpPolicy",
    "hyperparameters": {},
    "environment": ENVIRONMENT_DEFAULTS,
    "evaluation": EVALUATION_DEFAULTS,
    "tuning_budget": None,
}


@dataclass(frozen=True)
class RunConfig:
    """The settings of one run; ``config.json`` is this as JSON.

    Attributes:
        suite: the suite it belongs to.
        label: what the algorithm with these settings is called in tables.
        algorithm: class name.
        env_id: environment.
        seed: of the training.
        total_timesteps: environment steps, over all environments; episodes, for language models.
        n_envs: parallel environments; episodes of a batch, for language models.
        backend: how environments are stepped, see :func:`maxent_onpolicy.make_vec_env`.
        hyperparameters: the algorithm's keywords.
        policy: policy alias; for language models a size, or a folder or a name on the Hub.
        environment: ``normalize_observation``, ``normalize_reward``, ``clip_observation``, ``clip_reward``,
            ``discretize_bins``, ``kwargs`` of the environment.
        evaluation: ``every`` (timesteps), ``episodes``, ``seed``; and where a run asks for them, ``modes`` (default
            both), ``n_envs`` (default at most eight that share the episodes evenly), and ``test_kwargs``, laid over the
            environment's ``kwargs`` for a test distribution in which every checkpoint is evaluated too.
        tuning_budget: how much tuning these settings had, for the report; ``None`` if nobody says.
    """

    suite: str
    label: str
    algorithm: str
    env_id: str
    seed: int
    total_timesteps: int
    n_envs: int = 1
    backend: str = "auto"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    policy: str = "MlpPolicy"
    environment: dict[str, Any] = field(default_factory=lambda: dict(ENVIRONMENT_DEFAULTS))
    evaluation: dict[str, Any] = field(default_factory=dict)
    tuning_budget: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        content = asdict(self)
        if self.tuning_budget is None:
            del content["tuning_budget"]
        return content

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RunConfig":
        """Read the content of a ``config.json``.

        Raises:
            UsageError: if a setting is unknown or missing.
        """
        identity = ("suite", "label", "algorithm", "env_id", "seed")
        known = check_mapping(value, "config.json", (*identity, *SETTINGS))
        missing = [key for key in (*identity, "total_timesteps") if key not in known]
        if missing:
            raise UsageError(f"config.json lacks {', '.join(missing)}")
        who = {key: known.pop(key) for key in identity}
        return make_config(known, "config.json", **who, exact=True)

    @property
    def name(self) -> str:
        """The run in a few words, for messages."""
        return f"{self.label} on {self.env_id}, seed {self.seed}"


def has_test(config: RunConfig) -> bool:
    """Return whether a run is evaluated on a test distribution as well."""
    return "test_kwargs" in config.evaluation


def make_config(
    settings: Mapping[str, Any],
    place: str,
    *,
    suite: str,
    label: str,
    algorithm: str,
    env_id: str,
    seed: int,
    exact: bool = False,
) -> RunConfig:
    """Fill in defaults and check ``settings``, a mapping with the keys :data:`SETTINGS`.

    Args:
        settings: what was written.
        place: file and path inside it, for messages.
        suite: see :class:`RunConfig`, as for the other names.
        label: see there.
        algorithm: see there.
        env_id: see there.
        seed: see there.
        exact: the settings are those of one run. Otherwise ``evaluation.seed`` is where seeds start and each run adds
            its own, and ``evaluation.every`` may be left out: a tenth of the training.

    Raises:
        UsageError: naming the place, the setting and what is allowed.
    """
    full = merge(SETTING_DEFAULTS | _defaults_of(env_id), check_settings(settings, place))
    total = check_integer(full["total_timesteps"], f"{place}.total_timesteps", 1)
    check_plain(full, place)
    if suite in ("", ".", "..") or "/" in suite:
        raise UsageError(f"{place}: the suite's name is the name of a directory, without slashes; got {suite!r}")
    if label in ("", ".", ".."):
        raise UsageError(f"{place}: the label is the name of a directory; got {label!r}")
    return RunConfig(
        suite=suite,
        label=label,
        algorithm=algorithm,
        env_id=env_id,
        seed=check_integer(seed, f"{place}: seed", 0),
        total_timesteps=total,
        n_envs=check_integer(full["n_envs"], f"{place}.n_envs", 1),
        backend=full["backend"],
        hyperparameters=full["hyperparameters"],
        policy=full["policy"],
        environment=full["environment"],
        evaluation=_evaluation(full, f"{place}.evaluation", total, 0 if exact else seed),
        tuning_budget=full["tuning_budget"],
    )


def _defaults_of(env_id: str) -> dict[str, Any]:
    """Return what is otherwise than usual."""
    if is_text(env_id):
        return {"policy": "tiny", "n_envs": 32}
    return {"policy": "MaskedMlpPolicy"} if env_id.startswith(SELF_PLAY) else {}


def _evaluation(full: Mapping[str, Any], place: str, total: int, seed: int) -> dict[str, Any]:
    """Return what a run says of its evaluations; what it leaves at its default is not mentioned, but for numbers."""
    block = full["evaluation"]
    every = -(-total // 10) if block["every"] is None else block["every"]
    evaluation: dict[str, Any] = {
        "every": check_integer(every, f"{place}.every", 1),
        "episodes": check_integer(block["episodes"], f"{place}.episodes", 1),
        "seed": check_integer(block["seed"], f"{place}.seed", 0) + seed,
    }
    modes = MODES if block["modes"] is None else _modes(block["modes"], f"{place}.modes")
    if modes != MODES:
        evaluation["modes"] = list(modes)
    if block["n_envs"] is not None:
        evaluation["n_envs"] = check_integer(block["n_envs"], f"{place}.n_envs", 1)
    if block["test_kwargs"] is not None:
        kwargs, test_kwargs = full["environment"]["kwargs"], block["test_kwargs"]
        if {**kwargs, **test_kwargs} == kwargs:
            raise UsageError(
                f"{place}.test_kwargs: must differ from environment.kwargs, got {test_kwargs!r}; "
                "leave it out for no test distribution"
            )
        evaluation["test_kwargs"] = test_kwargs
    return evaluation


def _modes(value: Any, place: str) -> tuple[str, ...]:
    allowed = f"a list of {' and '.join(MODES)}, or one of them"
    if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
        raise UsageError(f"{place}: expected {allowed}, got {value!r}")
    for mode in value:
        if mode not in MODES:
            raise UsageError(f"{place}: expected {allowed}, got {mode!r}{did_you_mean(mode, MODES)}")
    return tuple(mode for mode in MODES if mode in value)


def check_settings(settings: Any, place: str, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check the keys of a block of settings, and of the blocks in it.

    Args:
        settings: a mapping with any of :data:`SETTINGS`.
        place: file and path inside it, for messages.
        extra: further keys allowed.

    Raises:
        UsageError: naming the place, the unknown key and the closest key allowed.
    """
    block = check_mapping(settings, place, (*SETTINGS, *extra))
    check_mapping(block.get("hyperparameters"), f"{place}.hyperparameters")
    evaluation = check_mapping(block.get("evaluation"), f"{place}.evaluation", tuple(EVALUATION_DEFAULTS))
    check_mapping(evaluation.get("test_kwargs"), f"{place}.evaluation.test_kwargs")
    environment = check_mapping(block.get("environment"), f"{place}.environment", tuple(ENVIRONMENT_DEFAULTS))
    check_mapping(environment.get("kwargs"), f"{place}.environment.kwargs")
    for name in ("normalize_observation", "normalize_reward"):
        if not isinstance(environment.get(name, False), bool):
            raise UsageError(f"{place}.environment.{name}: expected true or false, got {environment[name]!r}")
    for name in ("backend", "policy", "tuning_budget"):
        if not isinstance(block.get(name) or "", str):
            raise UsageError(f"{place}.{name}: expected text, got {block[name]!r}")
    return {key: {} if value is None and key in _BLOCKS else value for key, value in block.items()}


_BLOCKS = ("hyperparameters", "environment", "evaluation")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Return what differs between two configurations, as ``hyperparameters.tau: 0.01 → 0.02``.

    ``tuning_budget`` does not count: it is words for the report, and no run goes on otherwise because of it.
    """
    lines = []
    for key in sorted({*old, *new} - ({"tuning_budget"} if not path else set())):
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{path}{key}.")
        elif before != after:
            lines.append(f"{path}{key}: {_show(before)} → {_show(after)}")
    return lines


_ABSENT = object()


def _show(value: Any) -> str:
    return "not set" if value is _ABSENT else str(value)
