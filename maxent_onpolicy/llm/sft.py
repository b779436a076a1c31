"""Oracle traces, and supervised fine-tuning on them: the warm start before reinforcement learning."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from maxent_onpolicy.llm.environments.base import TaskSet
from maxent_onpolicy.llm.tokenizer import Dialogue, PaddedTraces, Trace, TurnFormat, pad_traces
from maxent_onpolicy.validation import check_integer, check_range

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Pairs of an observation and the command that the expert then gave.
OracleEpisode = list[tuple[str, str]]


def play_oracle(
    tasks: TaskSet, task_ids: Sequence[str], max_turns: int = 100, progress_bar: bool = False
) -> list[OracleEpisode]:
    """Let the expert play tasks.

    Args:
        tasks: where they are from.
        task_ids: which.
        max_turns: after which an episode is given up.
        progress_bar: whether to show one.

    Raises:
        ValueError: if the expert has no command or does not win; names the task.
    """
    check_integer("max_turns", max_turns, 1)
    episodes = []
    with tasks.environment() as environment:
        for task_id in tqdm(task_ids, desc="oracle", unit="game", disable=not progress_bar):
            episode: OracleEpisode = []
            observation, done = environment.reset(task_id), False
            while not done and len(episode) < max_turns and (commands := environment.oracle()):
                episode.append((observation, commands[0]))
                observation, _, done = environment.step(commands[0])
            if not environment.won:
                raise ValueError(
                    f"`task_ids`: the oracle did not win {task_id!r} in {len(episode)} turns; leave it out"
                )
            episodes.append(episode)
    return episodes


def oracle_texts(episodes: Iterable[OracleEpisode]) -> Iterator[str]:
    """Yield observations and commands, from which a tokenizer can be trained."""
    for episode in episodes:
        for observation, command in episode:
            yield observation
            yield command


def oracle_traces(episodes: Iterable[OracleEpisode], tokenizer: "PreTrainedTokenizerBase") -> list[Trace]:
    """Return episodes as tokens; an expert's commands are the policy's own tokens."""
    turn_format = TurnFormat.of(tokenizer)
    traces = []
    for episode in episodes:
        dialogue = Dialogue(tokenizer, turn_format)
        for observation, command in episode:
            dialogue.observe(observation)
            dialogue.say(command)
        traces.append(dialogue.trace())
    return traces


def command_loss(
    logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the policy's own tokens, in nats a token.

    Args:
        logits: ``[B, T, V]``; those at a position foretell the next token.
        tokens: ``[B, T]`` ids.
        mask: ``[B, T]`` True for tokens that count; the first of a row never does, as nothing foretells it.
    """
    counted = mask[:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1][counted].float(), tokens[:, 1:][counted])


def fine_tune(
    model: "PreTrainedModel",
    traces: Sequence[Trace],
    *,
    steps: int = 400,
    batch_size: int = 16,
    learning_rate: float = 3e-3,
    warmup_steps: int = 20,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    seed: int = 0,
    progress_bar: bool = True,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> list[float]:
    """Teach a model the commands of traces, with AdamW; the model is changed in place, on the device where it is.

    The learning rate rises over the first steps, then falls linearly to nothing.

    Args:
        model: of transformers; its configuration must have a ``pad_token_id``.
        traces: of training tasks.
        steps: of the optimiser.
        batch_size: traces a step.
        learning_rate: the highest.
        warmup_steps: over which the learning rate rises.
        weight_decay: of AdamW.
        max_grad_norm: to which the gradient is clipped.
        seed: of the order of the traces.
        progress_bar: whether to show one.
        checkpoint: file from which the training goes on if it is there, and in which it is kept on the way; whoever
            gives it removes it in the end.
        checkpoint_seconds: wall time between checkpoints.

    Returns:
        The loss of each step, in nats a token of a command.

    Raises:
        ValueError: if there are no traces, or a number is out of its range.
    """
    check_integer("steps", steps, 1)
    check_integer("batch_size", batch_size, 1)
    check_integer("warmup_steps", warmup_steps, 0)
    check_range("learning_rate", learning_rate, 0.0, low_open=True)
    check_range("weight_decay", weight_decay, 0.0)
    check_range("max_grad_norm", max_grad_norm, 0.0, low_open=True)
    batches = Batches(traces, batch_size, check_integer("seed", seed, 0), pad_token_id(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rise_and_fall, steps, warmup_steps))
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    losses = _continued(checkpoint, parts) if checkpoint is not None and checkpoint.is_file() else []
    was_training, saved = model.training, time.monotonic()
    model.train()
    with tqdm(total=steps, initial=len(losses), desc="fine-tuning", unit="step", disable=not progress_bar) as bar:
        while len(losses) < steps:
            if checkpoint is not None and time.monotonic() - saved > checkpoint_seconds:
                _keep(checkpoint, parts, losses)
                saved = time.monotonic()
            loss = batch_loss(model, batches.take())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    model.train(was_training)
    return losses


def batch_loss(model: "PreTrainedModel", batch: PaddedTraces) -> Float[Tensor, ""]:
    """Return :func:`command_loss` of a model on a batch, which is brought to the model's device."""
    tokens, mask, _, attention = (each.to(model.device) for each in batch)
    output: Any = model(input_ids=tokens, attention_mask=attention.long(), use_cache=False)
    return command_loss(output.logits, tokens, mask)


def pad_token_id(model: "PreTrainedModel") -> int:
    """Return the padding token of a model.

    Raises:
        ValueError: if its configuration names none.
    """
    found = model.config.pad_token_id
    if found is None:
        raise ValueError("`model.config.pad_token_id` is not set; set it to that of the tokenizer")
    return int(found)


def _rise_and_fall(steps: int, warmup_steps: int, step: int) -> float:
    """Return the share of the highest learning rate that a step uses."""
    return min((step + 1) / (warmup_steps + 1), (steps - step) / max(steps - warmup_steps, 1))


class Batches:
    """Batches of traces without end; every trace is used once before one is used again.

    Args:
        traces: of episodes.
        batch_size: of a batch.
        seed: of the order.
        pad_id: fills up the shorter ones.

    Raises:
        ValueError: if there are no traces.
    """

    def __init__(self, traces: Sequence[Trace], batch_size: int, seed: int, pad_id: int) -> None:
        if not traces:
            raise ValueError("`traces` must have at least one episode, got none")
        self.traces, self.batch_size, self.pad_id = traces, batch_size, pad_id
        self._generator = torch.Generator().manual_seed(seed)
        self._waiting: list[int] = []

    def take(self) -> PaddedTraces:
        """Return the next batch."""
        while len(self._waiting) < self.batch_size:
            self._waiting += torch.randperm(len(self.traces), generator=self._generator).tolist()
        chosen, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
        return pad_traces([self.traces[index] for index in chosen], self.pad_id)

    def state_dict(self) -> dict[str, Any]:
        """Return where the order is."""
        return {"generator": self._generator.get_state(), "waiting": self._waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was."""
        self._generator.set_state(state["generator"])
        self._waiting = list(state["waiting"])


def _keep(path: Path, parts: dict[str, Any], losses: list[float]) -> None:
    """Write what is needed to go on; a kill on the way leaves the former file whole."""
    written = path.with_name(f"{path.name}.part")
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"losses": losses}, written)
    os.replace(written, path)


def _continued(path: Path, parts: dict[str, Any]) -> list[float]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return list(state["losses"])
