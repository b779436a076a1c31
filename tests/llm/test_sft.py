"""Oracle traces and fine-tuning on them."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from word_game import WordEnvironment, WordTasks

pytest.importorskip("transformers")

from maxent_onpolicy.llm.environments import TaskSet, make_tasks
from maxent_onpolicy.llm.model import build_model
from maxent_onpolicy.llm.rollout import evaluate
from maxent_onpolicy.llm.sft import (
    batch_loss,
    command_loss,
    fine_tune,
    oracle_texts,
    oracle_traces,
    pad_token_id,
    play_oracle,
)
from maxent_onpolicy.llm.tokenizer import pad_traces, train_tokenizer


@pytest.fixture
def traces(word_tasks: WordTasks, word_tokenizer: Any) -> Any:
    return oracle_traces(play_oracle(word_tasks, word_tasks.ids("train")), word_tokenizer)


def test_the_oracle_plays(word_tasks: WordTasks) -> None:
    episodes = play_oracle(word_tasks, ["train/0", "test/1"])

    assert episodes == [
        [("say red then green", "red"), ("good", "green")],
        [("say green then blue", "green"), ("good", "blue")],
    ]
    assert list(oracle_texts(episodes[:1])) == ["say red then green", "red", "good", "green"]


def test_an_oracle_that_does_not_win_is_named(word_tasks: WordTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the oracle did not win 'train/0' in 1 turns"):
        play_oracle(word_tasks, ["train/0"], max_turns=1)
    monkeypatch.setattr(WordEnvironment, "oracle", lambda _: [])
    with pytest.raises(ValueError, match="the oracle did not win 'train/1' in 0 turns"):
        play_oracle(word_tasks, ["train/1"])


def test_traces_of_games_hold_the_commands(text_games: Any) -> None:
    games = text_games.ids("train")
    episodes = play_oracle(text_games, games)
    tokenizer = train_tokenizer(oracle_texts(episodes), 400)

    for trace, episode in zip(oracle_traces(episodes, tokenizer), episodes, strict=True):
        spoken = [tokenizer.decode(trace.tokens[trace.turn == turn]) for turn in range(len(episode))]
        assert spoken == [f"{command}<|end|>" for _, command in episode]
        seen = tokenizer.decode(trace.tokens[~trace.mask])
        assert seen == "".join(f"<|user|>{observation}<|assistant|>" for observation, _ in episode)
        assert int(trace.turn.max()) == len(episode) - 1


def test_the_loss_counts_commands_only() -> None:
    tokens = torch.tensor([[0, 1, 2, 3]])
    mask = torch.tensor([[True, False, True, False]])
    logits = torch.zeros(1, 4, 4)
    assert command_loss(logits, tokens, mask).item() == pytest.approx(math.log(4))

    # Only the logits at position 1, which foretell the token 2 at position 2, matter: -log(3 / (3 + 1 + 1 + 1)).
    logits[0, 1, 2] = math.log(3.0)
    logits[0, 0], logits[0, 2] = torch.randn(4), torch.randn(4)
    assert command_loss(logits, tokens, mask).item() == pytest.approx(math.log(2.0))


def test_padding_does_not_change_the_loss(traces: Any, word_model: Any) -> None:
    pad = pad_token_id(word_model)
    alone = [batch_loss(word_model, pad_traces([trace], pad)).item() for trace in traces]
    counts = [int(trace.mask.sum()) for trace in traces]
    assert len({len(trace.tokens) for trace in traces}) > 1

    expected = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
    assert batch_loss(word_model, pad_traces(traces, pad)).item() == pytest.approx(expected, rel=1e-5)


def test_fine_tuning_lowers_the_loss_and_moves_every_weight(traces: Any, word_model: Any) -> None:
    before = {name: parameter.detach().clone() for name, parameter in word_model.named_parameters()}
    word_model.eval()
    losses = fine_tune(
        word_model, traces, steps=30, batch_size=4, learning_rate=1e-2, warmup_steps=2, progress_bar=False
    )

    assert len(losses) == 30
    assert losses[0] == pytest.approx(math.log(word_model.config.vocab_size), rel=0.1)
    assert losses[-1] < 0.3 * losses[0]
    assert [name for name, parameter in word_model.named_parameters() if torch.equal(parameter, before[name])] == []
    assert not word_model.training


def test_fine_tuning_repeats_from_its_seed(traces: Any, word_tokenizer: Any, one_thread: None) -> None:
    def run(seed: int) -> list[float]:
        return fine_tune(
            build_model(word_tokenizer, "tiny"), traces, steps=3, batch_size=3, seed=seed, progress_bar=False
        )

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_wrong_settings_are_named(traces: Any, word_model: Any) -> None:
    with pytest.raises(ValueError, match="`steps` must be in"):
        fine_tune(word_model, traces, steps=0)
    with pytest.raises(ValueError, match="`learning_rate` must be in"):
        fine_tune(word_model, traces, learning_rate=0.0)
    with pytest.raises(ValueError, match="`traces` must have at least one"):
        fine_tune(word_model, [], progress_bar=False)
    word_model.config.pad_token_id = None
    with pytest.raises(ValueError, match=r"`model\.config\.pad_token_id` is not set"):
        fine_tune(word_model, traces)


@pytest.mark.slow
def test_fine_tuning_wins_games_that_a_random_model_loses(tmp_path: Any) -> None:
    pytest.importorskip("textworld")
    games: TaskSet = make_tasks("textworld", train=8, validation=0, test=0, folder=tmp_path)
    episodes = play_oracle(games, games.ids("train"))
    tokenizer = train_tokenizer(oracle_texts(episodes))
    model = build_model(tokenizer, "tiny")
    chance = evaluate(model, tokenizer, games, split="train", episodes=2)
    fine_tune(model, oracle_traces(episodes, tokenizer), steps=100, batch_size=8, progress_bar=False)
    learned = evaluate(model, tokenizer, games, split="train", episodes=2)

    assert chance.success_rate <= 0.25
    assert learned.success_rate >= chance.success_rate + 0.5


def test_a_fine_tuning_that_was_killed_goes_on_bit_for_bit(
    word_model: Any, traces: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"steps": 6, "batch_size": 3, "warmup_steps": 2, "progress_bar": False}
    whole = copy.deepcopy(word_model)
    losses = fine_tune(whole, traces, **settings)
    checkpoint = tmp_path / "fine_tuning.pt"
    taken = 0

    def killed(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 4:
            raise KeyboardInterrupt
        return batch_loss(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("maxent_onpolicy.llm.sft.batch_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(copy.deepcopy(word_model), traces, checkpoint=checkpoint, checkpoint_seconds=0.0, **settings)

    resumed = copy.deepcopy(word_model)
    assert fine_tune(resumed, traces, checkpoint=checkpoint, **settings) == losses
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["fine_tuning.pt"]
