"""One of several processes that train together; writes what it ends with.

Arguments: the folder; ``sampled``, or ``sometimes empty`` for episodes in which the policy may have no token; and a
checkpoint to go on from.
"""

import sys
from pathlib import Path

import torch
from trl_helpers import grpo_arguments, make_model, make_tokenizer, many_a, prompts

from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer

NAMES = ("completion_ids", "completion_mask", "prompt_ids", "entropy_control_reward", "entropy_control_group")


class Noting(EntropyAdvantageGRPOTrainer):
    """Keeps what was generated."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.noted = [*getattr(self, "noted", []), {name: output[name].clone() for name in NAMES}]
        return output


def sometimes_empty(texts, trainer):
    """In the second step the policy of one process has said nothing, in the third that of the other, then neither."""
    rank, step = trainer.accelerator.process_index, trainer.state.global_step
    own = [0] * 5 if step == 3 or step == 1 + rank else [1, 1, 0, 0, 1]
    return {
        "prompt_ids": [trainer.processing_class(text)["input_ids"] for text in texts],
        "completion_ids": [[2 + (number + rank) % 4, 3, 9, 9, 4] for number in range(len(texts))],
        "logprobs": [[-1.0] * 5] * len(texts),
        "env_mask": [own] * len(texts),
    }


def main() -> None:
    folder, way = Path(sys.argv[1]), sys.argv[2]
    arguments = grpo_arguments(folder, max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-2)
    method = {"name": "clip_cov", "share": 0.2, "low": 0.0, "high": 100.0}
    trainer = Noting(
        make_model(),
        many_a,
        args=EntropyAdvantageGRPOConfig(**arguments, tau=0.3, entropy_critic_width=16, methods=[method]),
        train_dataset=prompts(),
        processing_class=make_tokenizer(),
        rollout_func=sometimes_empty if way == "sometimes empty" else None,
    )
    trainer.train(resume_from_checkpoint=sys.argv[3] if len(sys.argv) > 3 else None)
    result = {
        "model": trainer.accelerator.unwrap_model(trainer.model).state_dict(),
        "critic": trainer.entropy_critic.state_dict(),
        "methods": trainer.methods.state_dict(),
        "noted": trainer.noted,
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
    }
    torch.save(result, folder / f"rank {trainer.accelerator.process_index} of {trainer.accelerator.num_processes}.pt")


if __name__ == "__main__":
    main()
