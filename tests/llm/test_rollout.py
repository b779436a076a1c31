"""Episodes that a model plays."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from word_game import WordTasks

pytest.importorskip("transformers")

from maxent_onpolicy.llm.rollout import Episode, RolloutSettings, draw_tokens, evaluate, rollout
from maxent_onpolicy.llm.sft import fine_tune, oracle_traces, pad_token_id, play_oracle
from maxent_onpolicy.llm.tokenizer import command_text, encode, pad_traces

SETTINGS = RolloutSettings(max_turns=3, max_turn_tokens=6)


def play(model: Any, tokenizer: Any, seed: int = 0, **changes: Any) -> list[Episode]:
    tasks = WordTasks()
    return rollout(model, tokenizer, tasks, tasks.ids("train"), replace(SETTINGS, **changes), seed=seed)


def full_forward(model: Any, episodes: list[Episode], temperature: float) -> Any:
    """Log-probabilities of a whole padded batch, one forward pass without a cache."""
    padded = pad_traces([episode.trace for episode in episodes], pad_token_id(model))
    with torch.no_grad():
        logits = model(input_ids=padded.tokens, attention_mask=padded.attention.long(), use_cache=False).logits
    log_probs = (logits[:, :-1] / temperature).log_softmax(-1)
    chosen = log_probs.gather(-1, padded.tokens[:, 1:, None]).squeeze(-1)
    return padded, chosen, -(log_probs.exp() * log_probs).sum(-1)


@pytest.fixture(scope="module")
def learned(word_tokenizer: Any) -> Any:
    """A model that knows the game."""
    from maxent_onpolicy.llm.model import ModelSize, build_model

    tasks = WordTasks()
    size = ModelSize(layers=2, width=32, heads=2, key_value_heads=1, feed_forward=64)
    model = build_model(word_tokenizer, size, seed=3)
    traces = oracle_traces(play_oracle(tasks, tasks.ids("train")), word_tokenizer)
    fine_tune(model, traces, steps=80, batch_size=4, learning_rate=1e-2, warmup_steps=5, progress_bar=False)
    return model


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
@pytest.mark.parametrize("known", [False, True])
def test_log_probs_are_those_of_a_full_forward_pass(
    word_model: Any, learned: Any, word_tokenizer: Any, temperature: float, known: bool
) -> None:
    model = learned if known else word_model
    episodes = play(model, word_tokenizer, temperature=temperature)
    padded, log_prob, entropy = full_forward(model, episodes, temperature)
    assert len({len(episode.tokens) for episode in episodes}) > 1

    for row, episode in enumerate(episodes):
        own = episode.mask[1:]
        length = len(own)
        assert torch.allclose(episode.log_prob[1:][own], log_prob[row, :length][own], atol=1e-4)
        assert torch.allclose(episode.entropy[1:][own], entropy[row, :length][own], atol=1e-4)
        assert not episode.log_prob[~episode.mask].any()
        assert not episode.entropy[~episode.mask].any()
    assert padded.mask.any(1).all()


def test_tokens_tell_what_was_said_and_answered(learned: Any, word_tokenizer: Any) -> None:
    tasks = WordTasks()
    for episode in play(learned, word_tokenizer, temperature=1.5):
        assert len(episode.rewards) == len(episode.commands) == int(episode.turn.max()) + 1
        texts = [command_text(word_tokenizer, episode.tokens[episode.turn == turn].tolist())
                 for turn in range(len(episode.commands))]  # fmt: skip
        assert tuple(texts) == episode.commands
        # The same commands lead to the same observations and rewards.
        environment = tasks.environment()
        shown, rewards = [environment.reset(episode.task_id)], []
        for command in episode.commands:
            observation, reward, _ = environment.step(command)
            shown.append(observation)
            rewards.append(reward)
        assert tuple(rewards) == episode.rewards
        assert environment.won == episode.success
        seen = word_tokenizer.decode(episode.tokens[~episode.mask]).replace("<|end|>", "")
        assert seen == "".join(f"<|user|>{text}<|assistant|>" for text in shown[:-1])
        assert bool(episode.mask[-1])


def test_a_model_that_knows_the_game_wins(learned: Any, word_model: Any, word_tokenizer: Any) -> None:
    tasks = WordTasks()
    greedy = RolloutSettings(temperature=0.0, max_turns=2, max_turn_tokens=6)
    won = evaluate(learned, word_tokenizer, tasks, episodes=1, split="train", settings=greedy)
    lost = evaluate(word_model, word_tokenizer, tasks, episodes=2, split="train", settings=SETTINGS)

    assert won.success == dict.fromkeys(tasks.ids("train"), 1.0)
    assert won.reward == pytest.approx(dict.fromkeys(tasks.ids("train"), 1.0))
    assert won.success_rate == 1.0
    assert lost.success_rate == 0.0


def test_success_is_a_share_of_a_games_episodes(learned: Any, word_tokenizer: Any) -> None:
    tasks = WordTasks()
    hot = replace(SETTINGS, temperature=1.3)
    found = evaluate(learned, word_tokenizer, tasks, episodes=4, seed=5, split="train", settings=hot)
    named = [name for name in tasks.ids("train") for _ in range(4)]
    episodes = rollout(learned, word_tokenizer, tasks, named, hot, seed=5)

    assert 0.0 < found.success_rate < 1.0
    for name in tasks.ids("train"):
        own = [episode for episode in episodes if episode.task_id == name]
        assert found.success[name] == pytest.approx(sum(episode.success for episode in own) / 4)
        assert found.reward[name] == pytest.approx(sum(sum(episode.rewards) for episode in own) / 4)


def test_seeds_decide_what_is_said(word_model: Any, word_tokenizer: Any) -> None:
    def said(**arguments: Any) -> list[list[int]]:
        return [episode.tokens.tolist() for episode in play(word_model, word_tokenizer, **arguments)]

    assert said(seed=1) == said(seed=1)
    assert said(seed=1) != said(seed=2)
    assert said(seed=1) == said(seed=1, batch_size=1) == said(seed=1, batch_size=3)
    assert said(seed=1, temperature=0.0) == said(seed=2, temperature=0.0)


def test_episodes_of_one_game_differ(word_model: Any, word_tokenizer: Any) -> None:
    one, other = rollout(word_model, word_tokenizer, WordTasks(), ["train/0"] * 2, SETTINGS)

    assert one.tokens.tolist() != other.tokens.tolist()


def test_commands_are_cut_off(word_model: Any, word_tokenizer: Any) -> None:
    for episode in play(word_model, word_tokenizer, max_turns=2, max_turn_tokens=4):
        lengths = [int((episode.turn == turn).sum()) for turn in range(2)]
        assert len(episode.commands) == 2
        assert max(lengths) <= 4
        assert not episode.success


def test_episodes_end_at_max_tokens(word_model: Any, word_tokenizer: Any) -> None:
    first = max(len(encode(word_tokenizer, f"<|user|>{WordTasks().environment().reset(name)}<|assistant|>"))
                for name in WordTasks().ids("train"))  # fmt: skip
    for episode in play(word_model, word_tokenizer, max_tokens=first + 2):
        assert len(episode.tokens) <= first + 2
        assert bool(episode.mask[-1])
        assert len(episode.commands) == int(episode.turn.max()) + 1
    with pytest.raises(ValueError, match="`max_tokens` must leave room for a command: the first observation of"):
        play(word_model, word_tokenizer, max_tokens=first - 5)


def test_the_model_is_left_in_its_mode(word_model: Any, word_tokenizer: Any) -> None:
    word_model.train()
    play(word_model, word_tokenizer, max_turns=1)

    assert word_model.training


def test_tokens_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([0.2, 0.3, 0.0, 0.5]).log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.49, 0.51, 0.999])
    drawn = draw_tokens(logits, uniform, 1.0)

    assert drawn.token.tolist() == [0, 0, 1, 1, 3, 3]
    assert drawn.log_prob.exp().tolist() == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.5, 0.5])
    assert drawn.entropy.tolist() == pytest.approx([1.0297] * 6, abs=1e-4)


def test_temperature_sharpens_and_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log()

    # Squared and normalised: 4, 9 and 25 of 38.
    assert draw_tokens(logits, torch.tensor([0.11]), 0.5)[0].item() == 1
    assert draw_tokens(logits, torch.tensor([0.0]), 0.5).log_prob.exp().item() == pytest.approx(4 / 38)
    greedy = draw_tokens(logits, torch.tensor([0.0]), 0.0)
    assert greedy.token.item() == 2
    assert greedy.log_prob.exp().item() == pytest.approx(0.5)


def test_drawing_never_leads_behind_the_last_token() -> None:
    logits = torch.zeros(1, 50_000)
    logits[0, -100:] = -float("inf")
    largest = torch.tensor([1.0 - 2**-53], dtype=torch.float64)

    assert draw_tokens(logits, largest, 1.0).token.item() <= 49_899


def test_wrong_settings_are_named(word_model: Any, word_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="`temperature` must be in"):
        RolloutSettings(temperature=-1.0)
    with pytest.raises(ValueError, match="`max_turns` must be in"):
        RolloutSettings(max_turns=0)
    with pytest.raises(ValueError, match="`split`: there is no game in 'validation'"):
        evaluate(word_model, word_tokenizer, WordTasks(), split="validation")
    with pytest.raises(ValueError, match="`task_id` must be one of"):
        rollout(word_model, word_tokenizer, WordTasks(), ["train/9"])
