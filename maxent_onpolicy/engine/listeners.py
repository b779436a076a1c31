"""Which callbacks must be told of every step, and what the others are told in its place."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback


def listens(callback: BaseCallback) -> bool:
    """Whether a callback, or one of those in a list, needs to be called after every step.

    All do but ``callback=None``, and those that say ``every_step = False``, an attribute or a property: nothing is lost
    if their ``_on_step`` is not called during the coming rollout. They work when rollouts or the training start or end.
    """
    if type(callback) is CallbackList:
        return any(listens(each) for each in callback.callbacks)
    if type(callback) is ConvertCallback:
        return callback.callback is not None
    return bool(getattr(callback, "every_step", True))


def tell_of_rollout(callback: BaseCallback, n_steps: int, locals_: dict[str, Any]) -> None:
    """Leave a callback that does not listen as if it had been called after every step of a rollout.

    Args:
        callback: whose model has made the steps.
        n_steps: of the rollout.
        locals_: the local variables after the last step.
    """
    callback.locals.update(locals_)
    parts = callback.callbacks if type(callback) is CallbackList else []
    for each in parts:
        tell_of_rollout(each, n_steps, locals_)
    callback.n_calls += n_steps
    callback.num_timesteps = callback.model.num_timesteps
