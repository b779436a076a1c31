"""Tianshou's PPO with its procedural interface and its DummyVectorEnv, without tests and checkpoints in between."""

import measure  # first: starts the clock

# isort: split
import gymnasium as gym
import torch
from gymnasium import spaces
from tianshou.algorithm.modelfree.ppo import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

workload = measure.read_workload()
torch.set_num_threads(workload["threads"])
torch.manual_seed(workload["seed"])
n_envs, steps = workload["n_envs"], workload["n_steps"] * workload["n_envs"]
total = steps * (workload["warmup"] + workload["iterations"])
watch = measure.Stopwatch(workload["warmup"])


def network(observation_space: gym.Space) -> Net:
    width = workload["width"]
    return Net(state_shape=observation_space.shape, hidden_sizes=[width, width], activation=torch.nn.Tanh)


def gaussian(parameters: tuple[torch.Tensor, torch.Tensor]) -> torch.distributions.Distribution:
    return torch.distributions.Independent(torch.distributions.Normal(*parameters), 1)


def policy_and_critic(env: gym.Env) -> tuple[torch.nn.Module, torch.nn.Module]:
    observation_space, action_space = env.observation_space, env.action_space
    if isinstance(action_space, spaces.Discrete):
        actor = DiscreteActor(
            preprocess_net=network(observation_space), action_shape=action_space.n, softmax_output=False
        )
        policy = DiscreteActorPolicy(actor=actor, action_space=action_space, dist_fn=logits)
        return policy, DiscreteCritic(preprocess_net=network(observation_space))
    actor = ContinuousActorProbabilistic(
        preprocess_net=network(observation_space), action_shape=action_space.shape, unbounded=True
    )
    policy = ProbabilisticActorPolicy(actor=actor, dist_fn=gaussian, action_space=action_space)
    return policy, ContinuousCritic(preprocess_net=network(observation_space))


def logits(values: torch.Tensor) -> torch.distributions.Distribution:
    return torch.distributions.Categorical(logits=values)


envs = DummyVectorEnv([lambda: gym.make(workload["env_id"]) for _ in range(n_envs)])
envs.seed(workload["seed"])
policy, critic = policy_and_critic(gym.make(workload["env_id"]))
algorithm = PPO(
    policy=policy,
    critic=critic,
    optim=AdamOptimizerFactory(lr=3e-4, eps=1e-5),
    ent_coef=0.0,
    vf_coef=0.5,
    max_grad_norm=0.5,
    max_batchsize=steps,
)
algorithm.update = watch.timed(algorithm.update, "update", ends_iteration=True)
collector = Collector(algorithm, envs, VectorReplayBuffer(steps, n_envs))
watch.begin()
algorithm.run_training(
    OnPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=total,
        collection_step_num_env_steps=steps,
        batch_size=workload["batch_size"],
        update_step_num_repetitions=workload["n_epochs"],
        verbose=False,
        show_progress=False,
    )
)
watch.report(steps, ("tianshou", "torch", "gymnasium", "mujoco", "numpy"))
