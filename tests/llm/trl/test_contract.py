"""What the trainer relies on in TRL: if one of these fails after an update, look at the trainer before users do."""

import inspect

import torch
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict
from trl_helpers import grpo_arguments, make_model, make_tokenizer, many_a, prompts


class Probe(GRPOTrainer):
    """Notes what happens in which order."""

    def _calculate_rewards(self, *arguments):
        self.order = ["rewards"]
        return super()._calculate_rewards(*arguments)

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.order.append("generated")
        output["advantages"] = output["advantages"].unsqueeze(1) * output["completion_mask"]
        output["mine"] = torch.arange(len(output["advantages"]))
        return output

    def _get_per_token_logps_and_entropies(self, *arguments, **keywords):
        found = super()._get_per_token_logps_and_entropies(*arguments, **keywords)
        if self.order[-1] == "loss":
            self.order.append("forward")
            self.reads = self.inputs["advantages"].clone()
            self.inputs["advantages"] = torch.zeros_like(self.reads)
        return found

    def _compute_loss(self, model, inputs):
        self.order.append("loss")
        self.inputs = inputs
        self.loss = super()._compute_loss(model, inputs)
        return self.loss


def test_advantages_of_tokens_are_read_after_the_forward_pass(tmp_path):
    arguments = grpo_arguments(tmp_path, max_steps=1)
    trainer = Probe(
        make_model(), many_a, args=GRPOConfig(**arguments), train_dataset=prompts(), processing_class=make_tokenizer()
    )
    trainer.train()
    assert trainer.order == ["rewards", "generated", "loss", "forward"]
    assert trainer.reads.abs().sum() > 0
    assert trainer.loss == 0.0  # because the advantages were set to 0 in the forward pass
    assert sorted(trainer._buffered_inputs[0]["mine"].tolist()) == list(range(8))


class Caller(GRPOTrainer):
    """Notes what the loss passes through the model, and from which batch."""

    def _get_per_token_logps_and_entropies(self, *arguments, **keywords):
        self.asked = (arguments, {name: value for name, value in keywords.items() if value is not None})
        return super()._get_per_token_logps_and_entropies(*arguments, **keywords)

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        assert inputs is self._buffered_inputs[0]  # so that what is added to it is there in later iterations
        (passed, ids, attention, tokens), keywords = self.asked
        assert passed is model
        for found, name in ((ids, "ids"), (attention, "mask")):
            assert torch.equal(found, torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], 1))
        assert tokens == inputs["completion_ids"].shape[1]
        assert keywords == {"compute_entropy": True, "compute_aux_loss": False}
        self.checked = True
        return loss


def test_the_loss_makes_one_pass_with_these_arguments(tmp_path):
    arguments = GRPOConfig(**grpo_arguments(tmp_path, max_steps=1))
    trainer = Caller(make_model(), many_a, args=arguments, train_dataset=prompts(), processing_class=make_tokenizer())
    trainer.train()
    assert trainer.checked


def test_tensors_of_a_batch_are_shuffled_and_split_together():
    batch = {"a": torch.arange(6), "b": torch.arange(12).view(6, 2)}
    parts = split_tensor_dict(shuffle_sequence_dict(batch), 2)
    for part in parts:
        assert torch.equal(part["b"], torch.stack([2 * part["a"], 2 * part["a"] + 1], 1))


def test_clip_ranges_are_attributes_that_the_loss_reads():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert "self.epsilon_low" in source
    assert "self.epsilon_high" in source
    assert source.index("_get_per_token_logps_and_entropies(") < source.index('inputs["advantages"]')
