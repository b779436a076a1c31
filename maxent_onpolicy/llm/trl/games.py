"""Text environments as TRL's trainer takes them: data sets of games, and who plays them.

That is a ``rollout_func`` for any model, or an ``environment_factory`` for models that call tools.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from maxent_onpolicy.llm.environments import TaskSet
from maxent_onpolicy.llm.rollout import Episode, RolloutSettings, rollout

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped, unused-ignore]

_REWARD = "episode_reward"
_INSTRUCTION = "Play this game: call `act` for each command until the game is over.\n\n"


def game_prompts(games: TaskSet | Sequence[str], split: str = "train") -> "Dataset":
    """Return a data set with a row a game; what TRL calls the prompt is the game's name.

    Args:
        games: names of games, or tasks.
        split: of tasks.

    Raises:
        ValueError: if there is no such split.
    """
    from datasets import Dataset  # type: ignore[import-untyped, unused-ignore]

    return Dataset.from_dict({"prompt": list(games.ids(split) if isinstance(games, TaskSet) else games)})


class GameEnvironment:
    """A game whose commands are calls of a tool, for TRL's ``environment_factory``.

    With ``environment_factory=partial(GameEnvironment, tasks)`` TRL holds the conversation and asks for the reward. The
    tokenizer's chat template must know tools. Data sets are from :func:`tool_prompts`.

    Args:
        tasks: where the games are from.
    """

    def __init__(self, tasks: TaskSet) -> None:
        self._environment = tasks.environment()
        self._reward, self._over = 0.0, True

    def reset(self, game: str, **_: Any) -> str:
        """Start a game and return its first observation."""
        observation = self._environment.reset(game)
        self._reward, self._over = 0.0, False
        return observation

    def act(self, command: str) -> str:
        """Carry out a command in the game.

        Args:
            command: What to do.

        Returns:
            What is to be seen then.
        """
        if self._over:
            return "The game is over."
        observation, reward, self._over = self._environment.step(command)
        self._reward += reward
        return f"{observation}\nThe game is over." if self._over else observation

    def get_reward(self) -> float:
        """Return the sum of the game's rewards so far."""
        return self._reward


def tool_prompts(tasks: TaskSet, split: str = "train", instruction: str = _INSTRUCTION) -> "Dataset":
    """Return a data set with a row a game for :class:`GameEnvironment`.

    Args:
        tasks: where the games are from.
        split: of the tasks.
        instruction: what the model is told before a game's first observation.

    Raises:
        ValueError: if there is no such split.
    """
    from datasets import Dataset  # type: ignore[import-untyped, unused-ignore]

    games = list(tasks.ids(split))
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": instruction}]] * len(games), "game": games})


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
