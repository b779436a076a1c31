"""Time the steps of one trainer, and what of them it adds to GRPO's."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.llm.contenders import CONTENDERS, Contender
from benchmarks.llm.shapes import WORDS, Shape, make_model, make_tokenizer, peak_memory
from benchmarks.llm.turns import WARM_UP, Turn

# What EntropyAdvantageGRPOTrainer adds to GRPOTrainer, all that takes any time.
_OWN = ("_pass_of_sampling", "_look_at", "_control", "_train_critic")


def measure(contender: str, shape: Shape, layers: int, steps: int, turn: Turn) -> None:
    """Train for some steps, each when it is its turn, on completions that are always the same and cost nothing.

    Reported are ``seconds`` of the whole step, those of them that were its ``own`` (nothing of GRPO's), ``cpu`` time
    of all threads, and the process's largest ``memory``, MiB.

    Args:
        contender: which.
        shape: of model and batch.
        layers: of the model.
        steps: of the optimiser.
        turn: to wait for, and to report to.
    """
    from transformers import TrainerCallback

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(CONTENDERS[contender], shape, layers, steps, folder)
        own = Own()
        if CONTENDERS[contender].settings is not None:
            for name in _OWN:
                setattr(trainer, name, own.timed(getattr(trainer, name)))
        start = {"wall": 0.0, "cpu": 0.0}
        memory: list[float] = []

        class Watch(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                turn.wait()
                if len(memory) == WARM_UP:
                    own.watch_gradients()  # which takes memory: hence after what is reported of memory
                own.seconds = own.probing = 0.0
                start.update(wall=time.perf_counter(), cpu=time.process_time())

            def on_step_end(self, *_: Any, **__: Any) -> None:
                seconds, cpu = time.perf_counter() - start["wall"], time.process_time() - start["cpu"]
                memory.append(peak_memory() if len(memory) < WARM_UP else memory[-1])
                turn.end(seconds=seconds - own.probing, own=own.seconds, cpu=cpu, memory=memory[-1])

        trainer.add_callback(Watch())
        trainer.train()


class Own:
    """Sums the time that a trainer spends on what GRPO does not do.

    Attributes:
        seconds: found since they were set to 0.
        probing: seconds that only finding them took.
    """

    def __init__(self) -> None:
        self.seconds = self.probing = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - began

        return call

    def watch_gradients(self) -> None:
        """Let the gradient of entropies count, which GRPO computes entropies without.

        TRL's head turns tiles of logits into their gradients. A tile that takes in the entropy's is done twice, with
        and without, and the difference counts.
        """
        from trl.kernels import chunked_logprob

        fold = chunked_logprob._backward_tile

        def watched(tile: Any, *arguments: Any, HAS_ENTROPY_GRAD: bool, **keywords: Any) -> None:
            times = [time.perf_counter()]
            if HAS_ENTROPY_GRAD:
                other = tile.clone()
                times.append(time.perf_counter())
                fold(other, *arguments, HAS_ENTROPY_GRAD=False, **keywords)
            times.append(time.perf_counter())
            fold(tile, *arguments, HAS_ENTROPY_GRAD=HAS_ENTROPY_GRAD, **keywords)
            if HAS_ENTROPY_GRAD:
                self.seconds += (time.perf_counter() - times[2]) - (times[2] - times[1])
                self.probing += times[2] - times[0]

        chunked_logprob._backward_tile = watched


def make_trainer(contender: Contender, shape: Shape, layers: int, steps: int, folder: str) -> Any:
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
        rollout_func=play,
    )


def _reward(completions: list[str], **_: Any) -> list[float]:
    """Rewards that differ within every group."""
    return [float(number * number % 7) for number in range(len(completions))]
