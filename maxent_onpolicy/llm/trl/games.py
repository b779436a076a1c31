"""Episodes of text environments as TRL's trainer takes them: a ``rollout_func``, a reward, and a data set of games."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from maxent_onpolicy.llm.environments import TaskSet
from maxent_onpolicy.llm.rollout import Episode, RolloutSettings, rollout

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped, unused-ignore]

_REWARD = "episode_reward"


def game_prompts(tasks: TaskSet, split: str = "train") -> "Dataset":
    """Return a data set with a row a game; what TRL calls the prompt is the game's name.

    Raises:
        ValueError: if there is no such split.
    """
    from datasets import Dataset  # type: ignore[import-untyped, unused-ignore]

    return Dataset.from_dict({"prompt": list(tasks.ids(split))})


def episode_reward(episode_reward: Sequence[float], **_: Any) -> list[float]:
    """Return the sum of each episode's rewards: the ``reward_funcs`` of a trainer that plays games."""
    return list(episode_reward)


def play_games(
    tasks: TaskSet, settings: RolloutSettings | None = None, seed: int = 0
) -> Callable[[list[Any], Any], dict[str, Any]]:
    """Return a ``rollout_func`` that plays the games that prompts name.

    A completion is all that follows the first observation; what the environment says in it is masked. The trainer's
    temperature replaces that of ``settings``, and its step is a part of the seed, so that a resumed run plays the same.

    Args:
        tasks: where the games are from.
        settings: of the sampling.
        seed: of the sampling.
    """
    settings = settings or RolloutSettings()

    def play(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        temperature = float(trainer.generation_config.temperature)
        step = trainer.state.global_step * trainer.accelerator.num_processes + trainer.accelerator.process_index
        episodes = rollout(
            model,
            trainer.processing_class,
            tasks,
            [str(prompt) for prompt in prompts],
            replace(settings, temperature=temperature),
            seed=seed + 1_000_003 * step,
        )
        return _columns(episodes)

    return play


def _columns(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """Return TRL's columns: what comes before the first token of the policy's own is the prompt."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", _REWARD)
    }
    for episode in episodes:
        first, tokens = int(episode.mask.int().argmax()), episode.tokens.tolist()
        columns["prompt_ids"].append(tokens[:first])
        columns["completion_ids"].append(tokens[first:])
        columns["logprobs"].append(episode.log_prob[first:].tolist())
        columns["env_mask"].append(episode.mask[first:].int().tolist())
        columns[_REWARD].append(float(sum(episode.rewards)))
    return columns
