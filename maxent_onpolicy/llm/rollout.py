"""Episodes that a language model plays, many games at a time, and how often it wins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from maxent_onpolicy.llm.environments.base import TaskSet, TextEnvironment
from maxent_onpolicy.llm.sft import pad_token_id
from maxent_onpolicy.llm.tokenizer import Dialogue, Trace, TurnFormat
from maxent_onpolicy.validation import check_integer, check_range

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class RolloutSettings:
    """How episodes are sampled.

    Attributes:
        temperature: that divides the logits; 0 always takes the likeliest token.
        max_turns: commands an episode.
        max_turn_tokens: tokens a command, its end token included; a longer one is cut off and carried out as it is.
        max_tokens: an episode ends before a command when it has so many tokens.
        batch_size: games that are played at a time.

    Raises:
        ValueError: if a number is out of its range.
    """

    temperature: float = 1.0
    max_turns: int = 10
    max_turn_tokens: int = 24
    max_tokens: int = 2048
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0.0)
        for name in ("max_turns", "max_turn_tokens", "max_tokens", "batch_size"):
            check_integer(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Episode:
    """What became of a game.

    Attributes:
        task_id: of the game.
        tokens: ``[L]`` ids.
        mask: ``[L]`` True for the policy's own tokens.
        turn: ``[L]`` number of the command, -1 outside of ``mask``.
        log_prob: ``[L]`` nats, of each chosen token under the distribution it was drawn from (with the temperature;
            under that of temperature 1 if the likeliest were taken); 0 outside of ``mask``.
        entropy: ``[L]`` nats, of that distribution; 0 outside of ``mask``.
        rewards: of each turn.
        commands: of each turn.
        success: whether the game was won.
    """

    task_id: str
    tokens: Int[Tensor, " L"]
    mask: Bool[Tensor, " L"]
    turn: Int[Tensor, " L"]
    log_prob: Float[Tensor, " L"]
    entropy: Float[Tensor, " L"]
    rewards: tuple[float, ...]
    commands: tuple[str, ...]
    success: bool

    @property
    def trace(self) -> Trace:
        """Its tokens alone, such as :func:`~maxent_onpolicy.llm.tokenizer.pad_traces` takes."""
        return Trace(self.tokens, self.mask, self.turn)


@dataclass(frozen=True)
class Evaluation:
    """How a model did.

    Attributes:
        success: by game, the share of its episodes that were won.
        reward: by game, the mean sum of an episode's rewards.
    """

    success: dict[str, float]
    reward: dict[str, float]

    @property
    def success_rate(self) -> float:
        """Mean over games."""
        return fmean(self.success.values())


class Draw(NamedTuple):
    """Tokens drawn for rows.

    Attributes:
        token: ``[B]`` ids.
        log_prob: ``[B]`` nats.
        entropy: ``[B]`` nats.
    """

    token: Int[Tensor, " B"]
    log_prob: Float[Tensor, " B"]
    entropy: Float[Tensor, " B"]


def draw_tokens(logits: Float[Tensor, "B V"], uniform: Float[Tensor, " B"], temperature: float) -> Draw:
    """Draw a token a row by inverting the distribution function.

    Args:
        logits: ``[B, V]``.
        uniform: ``[B]`` random numbers in ``[0, 1)``.
        temperature: that divides the logits; 0 takes the likeliest token, and the rest is that of temperature 1.
    """
    log_probs = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
    if temperature == 0.0:
        token = log_probs.argmax(-1)
    else:
        # In float64, and scaled by its last entry, so that no rounding leads behind the last token that can be drawn.
        below = log_probs.double().exp().cumsum(-1)
        token = torch.searchsorted(below, uniform.double().unsqueeze(-1) * below[:, -1:], right=True).squeeze(-1)
    chosen = log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    return Draw(token, chosen, torch.special.entr(log_probs.exp()).sum(-1))


def rollout(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: TaskSet,
    task_ids: Sequence[str],
    settings: RolloutSettings | None = None,
    *,
    seed: int = 0,
    progress_bar: bool = False,
) -> list[Episode]:
    """Play games with a model.

    Each episode has random numbers of its own, so how many are played at a time changes results by rounding only.

    Args:
        model: of transformers, with a padding token.
        tokenizer: with a chat template.
        tasks: where the games are from.
        task_ids: one an episode; a game can be named more than once.
        settings: of the sampling.
        seed: of the sampling.
        progress_bar: whether to show one.

    Returns:
        The episodes, in the order of ``task_ids``.

    Raises:
        ValueError: if a first observation is longer than ``max_tokens``, or there is no such game.
    """
    settings = settings or RolloutSettings()
    check_integer("seed", seed, 0)
    turn_format = TurnFormat.of(tokenizer)
    was_training, episodes = model.training, []
    environments: list[TextEnvironment] = []
    model.eval()
    try:
        with tqdm(total=len(task_ids), desc="playing", unit="game", disable=not progress_bar) as bar:
            for first in range(0, len(task_ids), settings.batch_size):
                batch = task_ids[first : first + settings.batch_size]
                environments += [tasks.environment() for _ in range(len(batch) - len(environments))]
                games = [
                    _Game(task_id, environment, Dialogue(tokenizer, turn_format), settings, [seed, first + number])
                    for number, (task_id, environment) in enumerate(zip(batch, environments, strict=False))
                ]
                for turn in range(settings.max_turns):
                    _play_turn(model, [game for game in games if not game.over], turn, settings)
                episodes += [game.episode() for game in games]
                bar.update(len(batch))
    finally:
        for environment in environments:
            environment.close()
        model.train(was_training)
    return episodes


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: TaskSet,
    episodes: int = 4,
    seed: int = 0,
    *,
    split: str = "test",
    settings: RolloutSettings | None = None,
    progress_bar: bool = False,
) -> Evaluation:
    """Measure how often a model wins the games of a split.

    Args:
        model: of transformers.
        tokenizer: with a chat template.
        tasks: where the games are from.
        episodes: of each game; more than one makes sense with a temperature only.
        seed: of the sampling.
        split: ``"test"``, ``"validation"`` or ``"train"``.
        settings: of the sampling.
        progress_bar: whether to show one.

    Raises:
        ValueError: if there is no such split, or no game in it.
    """
    check_integer("episodes", episodes, 1)
    games = tasks.ids(split)
    if not games:
        raise ValueError(f"`split`: there is no game in {split!r}")
    named = [game for game in games for _ in range(episodes)]
    played = rollout(model, tokenizer, tasks, named, settings, seed=seed, progress_bar=progress_bar)
    rows = [played[first : first + episodes] for first in range(0, len(played), episodes)]
    return Evaluation(
        {game: fmean(each.success for each in row) for game, row in zip(games, rows, strict=True)},
        {game: fmean(sum(each.rewards) for each in row) for game, row in zip(games, rows, strict=True)},
    )


@dataclass
class _Game:
    """A game under way."""

    task_id: str
    environment: TextEnvironment
    dialogue: Dialogue
    settings: RolloutSettings
    seed: list[int]
    log_probs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    over: bool = False

    def __post_init__(self) -> None:
        shape = self.settings.max_turns, self.settings.max_turn_tokens
        self.uniform = np.random.default_rng(self.seed).random(shape, dtype=np.float64)
        self.dialogue.observe(self.environment.reset(self.task_id))
        if self.room < 1:
            raise ValueError(
                f"`max_tokens` must leave room for a command: the first observation of {self.task_id!r} has "
                f"{len(self.dialogue.tokens)} tokens, got {self.settings.max_tokens}"
            )

    @property
    def room(self) -> int:
        """How many tokens the next command may have."""
        return min(self.settings.max_turn_tokens, self.settings.max_tokens - len(self.dialogue.tokens))

    def act(self, tokens: list[int], log_probs: list[float], entropies: list[float]) -> None:
        """Carry out a command and, if the game goes on, add what it led to."""
        command = self.dialogue.command(tokens)
        self.log_probs += log_probs
        self.entropies += entropies
        observation, reward, done = self.environment.step(command)
        self.commands.append(command)
        self.rewards.append(reward)
        if done or len(self.commands) == self.settings.max_turns:
            self.over = True
            return
        before = len(self.dialogue.tokens)
        self.dialogue.observe(observation)
        if self.room < 1:  # no command follows, so what was just added would be of no use
            del self.dialogue.tokens[before:], self.dialogue.turn[before:]
            self.over = True

    def episode(self) -> Episode:
        """Return what became of it."""
        trace = self.dialogue.trace()
        log_prob, entropy = (
            torch.zeros(len(trace.tokens)).masked_scatter(trace.mask, torch.tensor(numbers))
            for numbers in (self.log_probs, self.entropies)
        )
        return Episode(
            self.task_id, *trace, log_prob, entropy, tuple(self.rewards), tuple(self.commands), self.environment.won
        )


def _play_turn(model: "PreTrainedModel", games: list[_Game], turn: int, settings: RolloutSettings) -> None:
    if not games:
        return
    uniform = torch.as_tensor(np.stack([game.uniform[turn] for game in games]), device=model.device)
    prompts = [game.dialogue.tokens for game in games]
    end = games[0].dialogue.format.end
    spoken = _speak(model, prompts, uniform, [game.room for game in games], end, settings.temperature)
    for game, (tokens, log_probs, entropies) in zip(games, spoken, strict=True):
        game.act(tokens, log_probs, entropies)


@torch.no_grad()
def _speak(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    uniform: Float[Tensor, "B K"],
    rooms: list[int],
    end: int,
    temperature: float,
) -> list[tuple[list[int], list[float], list[float]]]:
    """Continue each prompt up to the end token or to the end of its room: tokens, log-probabilities and entropies."""
    pad, longest = pad_token_id(model), max(map(len, prompts))
    tokens = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    attention = (torch.arange(longest, device=model.device) >= longest - lengths[:, None]).long()
    position = (attention.cumsum(-1) - 1).clamp(min=0)
    limit = torch.tensor(rooms, device=model.device)
    live = torch.ones_like(limit, dtype=torch.bool)
    cache: dict[str, Any] = {}
    columns: list[tuple[Tensor, ...]] = []
    for column in range(max(rooms)):
        output: Any = model(
            input_ids=tokens, attention_mask=attention, position_ids=position, use_cache=True, logits_to_keep=1, **cache
        )
        # Its keyword is the output's own name for it; transformers 5 renamed it and answers to the old name, too.
        name = "cache" if "cache" in output else "past_key_values"
        cache = {name: output[name]}
        drawn = draw_tokens(output.logits[:, -1], uniform[:, column], temperature)
        columns.append((*drawn, live))
        live = live & (drawn.token != end) & (column + 1 < limit)
        if not live.any():
            break
        tokens, position = drawn.token[:, None], position[:, -1:] + 1
        attention = torch.cat((attention, torch.ones_like(tokens)), 1)
    token, log_prob, entropy, chosen = (torch.stack(each, 1).cpu() for each in zip(*columns, strict=True))
    return [
        (token[row][chosen[row]].tolist(), log_prob[row][chosen[row]].tolist(), entropy[row][chosen[row]].tolist())
        for row in range(len(prompts))
    ]
