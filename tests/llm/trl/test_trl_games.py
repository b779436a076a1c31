"""A trainer that plays games: what TRL is given, and that a policy learns to win."""

import copy

import pytest
from trl_helpers import grpo_arguments

from maxent_onpolicy.llm.rollout import RolloutSettings, evaluate
from maxent_onpolicy.llm.sft import fine_tune, oracle_traces, play_oracle
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer
from maxent_onpolicy.llm.trl.games import episode_reward, game_prompts, play_games

SETTINGS = RolloutSettings(max_turns=4, max_turn_tokens=8)


def make(folder, tasks, tokenizer, model, **changes):
    arguments = grpo_arguments(folder, max_completion_length=200, **changes)
    return EntropyAdvantageGRPOTrainer(
        model,
        episode_reward,
        args=EntropyAdvantageGRPOConfig(**arguments),
        train_dataset=game_prompts(tasks),
        processing_class=tokenizer,
        rollout_func=play_games(tasks, SETTINGS),
    )


def test_turns_of_a_game_are_the_turns_of_a_batch(word_tasks, word_tokenizer, word_model, tmp_path):
    trainer = make(tmp_path, word_tasks, word_tokenizer, word_model, max_steps=1, tau=0.1, entropy_critic_width=16)
    trainer.train()
    batch = trainer._buffered_inputs[0]
    turns = batch["entropy_control_turn"]
    assert 2 <= int(turns.max()) + 1 <= 4
    own = turns >= 0
    assert (batch["tool_mask"].bool() & batch["completion_mask"].bool()).equal(own)
    assert (batch["advantages"][~own] == 0).all()
    first = trainer.state.log_history[0]
    assert {"entropy/turn_0", "entropy/turn_1", "entropy_critic/explained_variance"} <= set(first)
    text = word_tokenizer.decode(batch["prompt_ids"][0])
    assert "say " in text


def test_turns_can_be_discounted_in_place_of_tokens(word_tasks, word_tokenizer, word_model, tmp_path):
    found = []
    for discount in ("token", "turn"):
        model = copy.deepcopy(word_model)
        settings = {"tau": 0.1, "entropy_gamma": 0.5, "entropy_discount": discount, "entropy_critic_width": 16}
        trainer = make(tmp_path, word_tasks, word_tokenizer, model, max_steps=1, **settings)
        trainer.train()
        found.append(trainer.state.log_history[0]["entropy_advantage/mean"])
    # The critic says 0 at first: a later token of the same turn counts in full, not half.
    assert found[1] > 1.5 * found[0] > 0


@pytest.mark.slow
def test_a_policy_that_seldom_wins_learns_to(word_tasks, word_tokenizer, word_model, tmp_path):
    traces = oracle_traces(play_oracle(word_tasks, word_tasks.ids("train")), word_tokenizer)
    fine_tune(word_model, traces, steps=80, progress_bar=False)

    def success():
        return evaluate(word_model, word_tokenizer, word_tasks, 32, split="train", settings=SETTINGS).success_rate

    before = success()
    settings = {"per_device_train_batch_size": 32, "num_generations": 16, "lr_scheduler_type": "constant", "tau": 0.01}
    make(tmp_path, word_tasks, word_tokenizer, word_model, max_steps=150, **settings).train()
    assert before < 0.3
    assert success() > before + 0.3
