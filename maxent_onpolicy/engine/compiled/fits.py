"""Whether a model can be compiled, as far as that shows without trying, and whether it pays."""

import math
from typing import TYPE_CHECKING, Any

import torch

from maxent_onpolicy.engine.adam_options import why_not_one_adam, why_not_options
from maxent_onpolicy.engine.buffer import why_own_buffer
from maxent_onpolicy.engine.compiled.cache import why_no_compiler
from maxent_onpolicy.engine.distributed import world
from maxent_onpolicy.engine.hooks import why_hooked

if TYPE_CHECKING:
    from maxent_onpolicy.algorithms.base import OnPolicyAlgorithm

# Measured by benchmarks/speed/engines.py; see results/speed/engines.csv. Seconds for one program without a cache, and
# seconds that it saves each minibatch: it saves calls of operators, whose number hardly depends on the network.
COMPILE_SECONDS = 20.0
SAVED_SECONDS = 1.0e-3


def why_not_compiled(algorithm: "OnPolicyAlgorithm") -> str | None:
    """Return why the compiled tier cannot train a model, or ``None`` if it is worth trying."""
    if not hasattr(algorithm, "_loss"):
        return f"the algorithm {type(algorithm).__name__}, whose update is not one loss"
    if world().size > 1:
        return "training in several processes, which may exchange gradients in every minibatch"
    policy = algorithm.policy
    return (
        why_own_buffer(algorithm.rollout_buffer)
        or why_hooked(policy)
        or _optimizer(policy)
        or why_no_compiler(algorithm.device)
    )


def _optimizer(policy: Any) -> str | None:
    optimizer = policy.optimizer
    reason = why_not_one_adam(optimizer)
    if reason is not None:
        return reason
    group = optimizer.param_groups[0]
    if not {id(p) for p in policy.parameters() if p.requires_grad} <= {id(p) for p in group["params"]}:
        return "an optimiser that does not hold all of the policy's parameters"
    foreign = next(
        (name for name, p in policy.named_parameters() if p.requires_grad and p.dtype != torch.float32), None
    )
    if foreign is not None:
        return f"the parameter {foreign}, which is not float32"
    return why_not_options(optimizer, ("amsgrad", "maximize", "differentiable", "decoupled_weight_decay"))


def minibatches_to_come(algorithm: Any) -> int:
    """Return the number of minibatch steps that are left of the current call of ``learn()``."""
    rollout = algorithm.rollout_buffer.buffer_size * algorithm.rollout_buffer.n_envs
    iterations = max(0, math.ceil((algorithm._total_timesteps - algorithm.num_timesteps) / rollout))
    return iterations * algorithm.n_epochs * math.ceil(rollout / algorithm.batch_size)


def break_even(algorithm: Any) -> int:
    """Return the number of minibatch steps after which compiling has paid for itself."""
    rollout = algorithm.rollout_buffer.buffer_size * algorithm.rollout_buffer.n_envs
    programs = 1 if rollout % algorithm.batch_size == 0 or rollout < algorithm.batch_size else 2
    return math.ceil(programs * COMPILE_SECONDS / SAVED_SECONDS)
