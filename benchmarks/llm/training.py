"""Time the steps of one trainer."""

import tempfile
import time
from typing import Any

from benchmarks.llm.contenders import CONTENDERS, Contender
from benchmarks.llm.shapes import WORDS, Shape, make_model, make_tokenizer, peak_memory
from benchmarks.llm.turns import Turn


def measure(contender: str, shape: Shape, layers: int, steps: int, generated: bool, turn: Turn) -> None:
    """Train for some steps, each when it is its turn.

    Reported are ``seconds`` of the whole step, those of them that were ``generation``, ``cpu`` time, and the process's
    largest ``memory`` so far, MiB.

    Args:
        contender: which.
        shape: of model and batch.
        layers: of the model.
        steps: of the optimiser.
        generated: whether the model generates its completions; otherwise they are always the same, for nothing.
        turn: to wait for, and to report to.
    """
    from transformers import TrainerCallback

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(CONTENDERS[contender], shape, layers, steps, generated, folder)
        clock = {"wall": 0.0, "cpu": 0.0, "generation": 0.0}
        generate = trainer._generate

        def timed(prompts: Any) -> Any:
            began = time.perf_counter()
            found = generate(prompts)
            clock["generation"] += time.perf_counter() - began
            return found

        class Watch(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                turn.wait()
                clock.update(wall=time.perf_counter(), cpu=time.process_time(), generation=0.0)

            def on_step_end(self, *_: Any, **__: Any) -> None:
                seconds, cpu = time.perf_counter() - clock["wall"], time.process_time() - clock["cpu"]
                turn.end(seconds=seconds, generation=clock["generation"], cpu=cpu, memory=peak_memory())

        trainer._generate = timed
        trainer.add_callback(Watch())
        trainer.train()


def make_trainer(contender: Contender, shape: Shape, layers: int, steps: int, generated: bool, folder: str) -> Any:
    """Return a trainer of a new model."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from maxent_onpolicy.llm.trl import EntropyAdvantageGRPOConfig, EntropyAdvantageGRPOTrainer

    plain = contender.settings is None
    arguments: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": shape.completions // contender.parts,
        "gradient_accumulation_steps": contender.parts,
        "num_generations": shape.generations,
        "max_completion_length": shape.tokens,
        "generation_kwargs": {"min_new_tokens": shape.tokens},
        "max_steps": steps,
        "learning_rate": 1e-6,
        "beta": 0.0,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        **(contender.settings or {}),
    }
    random = torch.Generator().manual_seed(0)
    prompts = torch.randint(WORDS, (shape.completions, shape.prompt), generator=random)
    completions = torch.randint(2, shape.vocabulary, (shape.completions, shape.tokens), generator=random).tolist()
    # a turn, what somebody else says, and another turn
    own = [int(not shape.tokens // 2 <= place < 5 * shape.tokens // 8) for place in range(shape.tokens)]

    def play(texts: list[str], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [trainer.processing_class(text)["input_ids"] for text in texts],
            "completion_ids": completions,
            "logprobs": [[-1.0] * shape.tokens] * len(texts),
            "env_mask": [own] * len(texts),
        }

    return (GRPOTrainer if plain else EntropyAdvantageGRPOTrainer)(
        make_model(shape, layers),
        _reward,
        args=(GRPOConfig if plain else EntropyAdvantageGRPOConfig)(**arguments),
        train_dataset=Dataset.from_dict({"prompt": [" ".join(f"w{word}" for word in row) for row in prompts.tolist()]}),
        processing_class=make_tokenizer(),
        rollout_func=None if generated else play,
    )


def _reward(completions: list[str], **_: Any) -> list[float]:
    """Rewards that differ within every group."""
    return [float(number * number % 7) for number in range(len(completions))]
