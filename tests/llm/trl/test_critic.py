"""The entropy critic: what a step teaches it, alone, among processes and in a trainer."""

import copy
import threading

import pytest
import torch
from trl_helpers import grpo_arguments

from maxent_onpolicy.estimators.losses import explained_variance
from maxent_onpolicy.llm.rollout import RolloutSettings
from maxent_onpolicy.llm.sft import fine_tune, oracle_traces, play_oracle
from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer
from maxent_onpolicy.llm.trl.critic import EntropyCritic
from maxent_onpolicy.llm.trl.games import episode_reward, game_prompts, play_games


@pytest.fixture
def critic():
    torch.manual_seed(0)
    return EntropyCritic(hidden_size=32, width=256, learning_rate=1e-3)


def batch(seed, count=512):
    """States, and targets far from 0, of which half the variance can be foretold from the states."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 32, generator=generator)
    noise = torch.randn(count, generator=generator)
    return hidden, 300.0 + 20.0 * (hidden[:, :4].sum(1) / 2.0 + noise)


def learn(critic, hidden, target, **settings):
    critic.head.update(target)
    critic.accumulate(hidden, target)
    critic.step(**settings)


def explained(critic, seed=99):
    hidden, target = batch(seed, 4096)
    return float(explained_variance(critic(hidden).detach(), target))


def test_a_few_batches_teach_most_of_what_can_be_foretold(critic):
    assert explained(critic) == 0.0
    for seed in range(5):
        learn(critic, *batch(seed))
    assert 0.3 < explained(critic) < 0.52  # 0.5 is the highest


def test_it_goes_on_from_the_mean_of_the_first_targets_and_keeps_its_output_later(critic):
    hidden, target = batch(0)
    assert (critic(hidden) == 0).all()
    critic.head.update(target)
    torch.testing.assert_close(critic(hidden), target.mean().expand(512))
    critic.head.update(2 * target)
    torch.testing.assert_close(critic(hidden), target.mean().expand(512))


def test_the_error_is_that_before_the_step_in_normalised_units(critic):
    hidden, target = batch(0)
    critic.head.update(target)
    assert critic.accumulate(hidden, target) == pytest.approx(1.0, abs=1e-4)  # the critic says the mean
    critic.step()
    assert critic.accumulate(hidden, target) < 0.8


def test_one_epoch_is_a_step_of_adam_for_each_of_four_minibatches(critic):
    expected = copy.deepcopy(critic)
    hidden, target = batch(0, 9)
    learn(critic, hidden, target, epochs=1)
    expected.head.update(target)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for chosen in (order[:3], order[3:5], order[5:7], order[7:]):
        error = (expected(hidden[chosen]) - target[chosen]).square().mean() / expected.head.moments[1] ** 2
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(critic.state_dict()[name], value, msg=name)


def test_parts_that_wait_are_learnt_as_one_and_once(critic):
    other = copy.deepcopy(critic)
    hidden, target = batch(0)
    learn(critic, hidden, target)
    other.head.update(target)
    for part in (slice(0, 100), slice(100, 100), slice(100, 512)):
        other.accumulate(hidden[part], target[part])
    other.step()
    following = batch(1)
    for each in (critic, other):
        learn(each, *following)
    for name, value in critic.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_it_goes_on_exactly_from_a_file(critic, tmp_path):
    learn(critic, *batch(0))
    critic.save(tmp_path)
    again = EntropyCritic(32, 256, 1e-3)
    again.restore(tmp_path)
    for each in (critic, again):
        learn(each, *batch(1))
    for name, value in critic.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_it_computes_in_single_precision_whatever_surrounds_it(critic):
    hidden, target = batch(0)
    learn(critic, hidden, target)
    expected = critic(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(critic(hidden), expected)
        before = critic.accumulate(hidden, target)
        critic.step()  # would fail in its second epoch with copies of the weights that autocast keeps
    assert critic.accumulate(hidden, target) < before


def in_processes(critics, batches, epochs):
    """Let each critic step on its own batch; means are taken over all of them."""
    barrier, shared = threading.Barrier(len(critics), timeout=300), {}

    def run(rank):
        def average(tensor):
            shared[rank] = tensor.clone()
            barrier.wait()
            mean = torch.stack([shared[each] for each in range(len(critics))]).mean(0)
            barrier.wait()
            return mean

        critics[rank].accumulate(*batches[rank])
        critics[rank].step(epochs, average)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(critics))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_processes_take_the_same_steps_though_one_has_fewer_states(critic):
    hidden, target = batch(0, 200)
    critic.head.update(target)
    start = copy.deepcopy(critic.state_dict())
    pair = [critic, copy.deepcopy(critic)]
    in_processes(pair, [(hidden, target), (hidden[:2], target[:2])], epochs=3)
    in_processes(pair, [(hidden[:0], target[:0]), (hidden[:0], target[:0])], epochs=3)
    for name, value in pair[0].state_dict().items():
        assert torch.equal(pair[1].state_dict()[name], value), name
        assert torch.isfinite(value).all()
    assert not torch.equal(pair[0].head.weight, start["head.weight"])


def test_states_of_all_processes_count_the_same(critic):
    hidden, target = batch(0, 1)
    critic.head.update(torch.tensor([0.0, 2.0]))
    single = copy.deepcopy(critic)
    # One has a state, the other none: the mean over both is that state's own.
    learned = [copy.deepcopy(critic), copy.deepcopy(critic)]
    in_processes(learned, [(hidden, target), (hidden[:0], target[:0])], epochs=1)
    single.accumulate(hidden, target)
    single.step(1)
    for name, value in single.state_dict().items():
        torch.testing.assert_close(learned[1].state_dict()[name], value, msg=name)


def test_it_soon_explains_the_entropy_of_a_game(word_tasks, word_tokenizer, word_model, tmp_path):
    traces = oracle_traces(play_oracle(word_tasks, word_tasks.ids("train")), word_tokenizer)
    fine_tune(word_model, traces, steps=100, progress_bar=False)
    size = {"per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 200, "max_steps": 8}
    trainer = EntropyAdvantageGRPOTrainer(
        word_model,
        episode_reward,
        args=EntropyAdvantageGRPOConfig(**grpo_arguments(tmp_path, learning_rate=1e-4, tau=0.1, **size)),
        train_dataset=game_prompts(word_tasks),
        processing_class=word_tokenizer,
        rollout_func=play_games(word_tasks, RolloutSettings(max_turns=4, max_turn_tokens=8)),
    )
    trainer.train()
    name = "entropy_critic/explained_variance"
    found = [row[name] for row in trainer.state.log_history if name in row]
    assert found[0] == 0.0  # it has learnt nothing yet
    assert sum(found[1:]) / 7 > 0.1  # one step of Adam a batch: 0.03
