"""What is killed: add a line for every algorithm, option or kind of environment that has a state of its own."""

from typing import NamedTuple


class Case(NamedTuple):
    """Settings of a run.

    Attributes:
        arguments: of ``maxent-onpolicy train``.
        every: seconds between checkpoints while nobody kills it. Off-policy, an iteration is a step: a checkpoint at
            each takes many times as long as the training.
        slow: whether even a single run takes long.
    """

    arguments: tuple[str, ...]
    every: float = 0
    slow: bool = False


SHORT = (
    *("--timesteps", "512", "--n-envs", "2", "--eval-every", "150", "--eval-episodes", "1", "--seed", "3"),
    *("--device", "cpu"),
)
OFF_POLICY = (
    *SHORT,
    "--policy-kwargs.net-arch",
    "[16]",
    "--batch-size",
    "16",
    "--learning-starts",
    "100",
    "--buffer-size",
    "300",
)
ON_POLICY = (*SHORT, "--n-steps", "32", "--batch-size", "32", "--n-epochs", "2")
TRUST_REGION = (*SHORT, "--n-steps", "32", "--batch-size", "32")
NORMALIZED = ("--normalize-observation", "--normalize-reward")
SCHEDULES = ("--learning-rate", "linear:1e-3:0", "--clip-range", "linear:0.2:0.05")


def controllers(*names: str) -> tuple[str, ...]:
    """Arguments that ask for controllers."""
    return "--controllers", f"[{','.join(names)}]"


CASES = {
    "every option": Case(("MaxEntPPO", "CartPole-v1", *ON_POLICY, *NORMALIZED, "--tau", "auto", "--popart")),
    "MuJoCo": Case(("MaxEntPPO", "Hopper-v5", *ON_POLICY, *NORMALIZED, *SCHEDULES, "--tau", "linear:0.1:0")),
    "noise matrices": Case(("PPO", "Pendulum-v1", *ON_POLICY, *SCHEDULES, "--use-sde", "--target-kl", "0.003")),
    "eager": Case(("MaxEntPPO", "Pendulum-v1", *ON_POLICY, "--engine", "eager", "--target-kl", "0.003", "--popart")),
    "one critic": Case(("MaxEntPPO", "CartPole-v1", *ON_POLICY, "--reward-augmentation")),
    "tensors": Case(("PPO", "Pendulum-v1", *ON_POLICY, *NORMALIZED, "--backend", "torch")),
    "TRPO": Case(("TRPO", "Pendulum-v1", *TRUST_REGION, *NORMALIZED)),
    "MaxEntTRPO": Case(("MaxEntTRPO", "CartPole-v1", *TRUST_REGION, "--tau", "auto", "--popart")),
    "self-play": Case(
        ("MaxEntPPO", "openspiel:kuhn_poker", *ON_POLICY, "--tau", "linear:0.1:0", "--magnet", "ema", "--popart")
    ),
    "RPO": Case(("RPO", "Hopper-v5", *ON_POLICY, *NORMALIZED, *SCHEDULES)),
    "SAC": Case(("SAC", "Pendulum-v1", *OFF_POLICY, "--learning-rate", "linear:1e-3:0"), every=0.1),
    "SAC, every option": Case(
        ("SAC", "Hopper-v5", *OFF_POLICY, *NORMALIZED, "--n-steps", "3", "--ent-coef", "auto_0.1"), every=0.1
    ),
    "controlled steps": Case(("PPO", "Pendulum-v1", *ON_POLICY, *controllers("kl_adaptive_lr", "ppo_br"))),
    "controlled entropy": Case(("MaxEntPPO", "CartPole-v1", *ON_POLICY, *controllers("target_entropy", "bapo"))),
    "compiled": Case(("MaxEntPPO", "Pendulum-v1", *ON_POLICY, "--engine", "compiled"), slow=True),
}
