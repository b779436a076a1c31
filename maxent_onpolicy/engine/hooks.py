"""Who listens to a policy's passes, gradients and steps, which not every engine makes one by one."""

from typing import Any


def why_hooked(policy: Any) -> str | None:
    """Return what listens to a policy's modules, gradients or optimiser, or ``None``."""
    for name, module in policy.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            return f"a forward or backward hook on {name or 'the policy'}"
    for name, parameter in policy.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"a hook on the gradient of {name}"
    if policy.optimizer._optimizer_step_pre_hooks or policy.optimizer._optimizer_step_post_hooks:
        return "a hook on the optimiser"
    return None
