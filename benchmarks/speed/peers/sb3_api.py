"""Train what has the interface of Stable-Baselines3: SB3 itself, SBX and this package."""

from typing import Any

import measure


def train(workload: dict[str, Any], algorithm: Any, env: Any, packages: tuple[str, ...], **keywords: Any) -> None:
    """Call ``learn`` and report; an iteration ends where ``train()`` returns, so logging counts with the next one.

    Args:
        workload: what to run.
        algorithm: class with the constructor of SB3's PPO, of sb3-contrib's TRPO, whose critic is trained for
            ``n_epochs``, or of SB3's SAC.
        env: the vectorised environments.
        packages: whose versions to report.
        **keywords: further keywords of the constructor; without ``policy`` it is an MLP.
    """
    if algorithm.__name__ == "SAC":
        train_off_policy(workload, algorithm, env, packages, **keywords)
        return
    steps = workload["n_steps"] * workload["n_envs"]
    width = workload["width"]
    policy = keywords.pop("policy", "MlpPolicy")
    layers = {"net_arch": {"pi": [width, width], "vf": [width, width]}} if policy == "MlpPolicy" else {}
    policy_kwargs = layers | keywords.pop("policy_kwargs", {})
    epochs = "n_critic_updates" if "TRPO" in algorithm.__name__ else "n_epochs"
    model = algorithm(
        policy,
        env,
        n_steps=workload["n_steps"],
        batch_size=workload["batch_size"],
        **{epochs: workload["n_epochs"]},
        policy_kwargs=policy_kwargs,
        seed=workload["seed"],
        device=workload["device"],
        **keywords,
    )
    watch = measure.Stopwatch(workload["warmup"])
    if workload["breakdown"]:
        break_down(watch, model)
    model.train = watch.timed(model.train, "update", ends_iteration=True)
    watch.begin()
    model.learn(steps * (workload["warmup"] + workload["iterations"]))
    watch.report(steps, packages)


def train_off_policy(
    workload: dict[str, Any], algorithm: Any, env: Any, packages: tuple[str, ...], **keywords: Any
) -> None:
    """Call ``learn`` with one update a step and report; an iteration ends after ``n_steps`` calls of ``train()``.

    The random steps before the first update count with the first iteration, which is warm-up. Arguments are those of
    :func:`train`.
    """
    width, steps = workload["width"], workload["n_steps"]
    model = algorithm(
        "MlpPolicy",
        env,
        batch_size=workload["batch_size"],
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [width, width]},
        seed=workload["seed"],
        device=workload["device"],
        **keywords,
    )
    watch = measure.Stopwatch(workload["warmup"])
    update = watch.timed(model.train, "update")
    updates = 0

    def train_and_count(*arguments: Any, **options: Any) -> None:
        nonlocal updates
        update(*arguments, **options)
        updates += 1
        if updates % steps == 0:
            watch.end_iteration()

    model.train = train_and_count
    watch.begin()
    model.learn(model.learning_starts + steps * (workload["warmup"] + workload["iterations"]))
    watch.report(steps, packages)


def break_down(watch: measure.Stopwatch, model: Any) -> None:
    """Time the parts of an iteration.

    ``env`` is the vectorised environment with its Monitor; ``buffer`` is writing the rollout and advantage estimation;
    ``logging`` is the logger's output. What is left of ``collect_rollouts`` is ``policy``: actions, values,
    log-probabilities and the loop around them. What is left of ``train`` is ``update``.
    """
    watch.wrap(model.env, ("step", "step_tensor"), "env")
    buffer = model.rollout_buffer
    watch.wrap(buffer, ("reset", "add", "add_ends", "compute_returns_and_advantage"), "buffer")
    watch.wrap(model, ("_estimate_advantages",), "buffer")
    watch.wrap(model, ("dump_logs", "_dump_logs"), "logging")
    watch.wrap(model, ("collect_rollouts",), "policy")
