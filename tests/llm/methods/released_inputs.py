"""Inputs to which the numbers in ``released.json`` belong: drawn by Python's own generator, the same everywhere."""

import random

import torch

from maxent_onpolicy.llm.batch import TokenBatch

ROWS, COLUMNS, TURNS = 8, 12, 3


def inputs() -> TokenBatch:
    """Return four prompts' two completions each, in double precision; a row's tokens are all of one turn."""
    draw = random.Random(20240611)

    def tokens(low: float, high: float) -> torch.Tensor:
        numbers = [[draw.uniform(low, high) for _ in range(COLUMNS)] for _ in range(ROWS)]
        return torch.tensor(numbers, dtype=torch.float64)

    mask = tokens(0, 1) < 0.8
    mask[:, 0] = True
    old_log_prob, entropy = tokens(-2.05, -0.05), tokens(0.1, 2.1)
    row = torch.arange(ROWS)
    return TokenBatch(
        log_prob=(old_log_prob + tokens(-0.5, 0.5)).clamp(max=-0.01),
        old_log_prob=old_log_prob,
        entropy=entropy,
        old_entropy=entropy * tokens(0.7, 1.3),
        advantage=tokens(-2, 2),
        mask=mask,
        turn=torch.where(mask, (row % TURNS).unsqueeze(1), -1),
        group=row // 2,
        reward=torch.tensor([draw.random() for _ in range(ROWS)], dtype=torch.float64),
    )


def turn_inputs() -> TokenBatch:
    """Return the same in other places: each completion has three turns and one advantage."""
    batch = inputs()
    mask = batch.mask.clone()
    mask[:, :: COLUMNS // TURNS] = True
    turn = (torch.arange(COLUMNS) // (COLUMNS // TURNS)).expand(ROWS, COLUMNS)
    return batch.replaced(
        mask=mask, turn=torch.where(mask, turn, -1), advantage=batch.advantage[:, :1].expand(ROWS, COLUMNS)
    )


#: Entropies of six batches one after the other, for methods that follow a target of 1.
ENTROPIES = (0.5, 0.7, 1.2, 0.9, 1.5, 0.95)
