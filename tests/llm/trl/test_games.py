"""A trainer that plays games: what TRL is given."""

from trl_helpers import grpo_arguments

from maxent_onpolicy.llm.rollout import RolloutSettings
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
