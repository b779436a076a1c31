"""The tests of stable-baselines3 that PPO passes and RPO need not, by the reason."""

DISCRETE = "discrete actions have no mean to shift: RPO raises an error that names `rpo_alpha`"
SQUASHED = "squashed actions are refused: RPO raises an error that names `rpo_alpha`"
CLASS_NAME = "expects the class name PPO in a warning"

WITH_DISCRETE_ACTIONS = (
    "tests/test_cnn.py::test_cnn[False-PPO]",
    "tests/test_cnn.py::test_cnn[True-PPO]",
    "tests/test_cnn.py::test_image_like_input[False-PPO]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch0]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch1]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch2]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch3]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch4]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch5]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch6]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch7]",
    "tests/test_custom_policy.py::test_flexible_mlp[PPO-net_arch8]",
    "tests/test_dict_env.py::test_dict_spaces[False-PPO]",
    "tests/test_dict_env.py::test_dict_spaces[True-PPO]",
    "tests/test_dict_env.py::test_dict_vec_framestack[False-PPO]",
    "tests/test_dict_env.py::test_dict_vec_framestack[True-PPO]",
    "tests/test_dict_env.py::test_goal_env[PPO]",
    "tests/test_dict_env.py::test_multiprocessing[PPO]",
    "tests/test_identity.py::test_discrete[env0-PPO]",
    "tests/test_identity.py::test_discrete[env1-PPO]",
    "tests/test_identity.py::test_discrete[env2-PPO]",
    "tests/test_logger.py::test_rollout_success_rate_onpolicy_algo",
    "tests/test_predict.py::test_mixing_gym_vecenv_api",
    "tests/test_predict.py::test_predict[auto-CartPole-v1-PPO]",
    "tests/test_predict.py::test_predict[cpu-CartPole-v1-PPO]",
    "tests/test_run.py::test_advantage_normalization[False-PPO]",
    "tests/test_run.py::test_advantage_normalization[True-PPO]",
    "tests/test_run.py::test_ppo[0.2-CartPole-v1]",
    "tests/test_run.py::test_ppo[None-CartPole-v1]",
    "tests/test_save_load.py::test_no_resource_warning",
    "tests/test_save_load.py::test_save_load_net_arch_none",
    "tests/test_spaces.py::test_action_spaces[CartPole-v1-PPO]",
    "tests/test_spaces.py::test_discrete_obs_space[Taxi-v3-PPO]",
    "tests/test_tensorboard.py::test_tensorboard[ppo]",
    "tests/test_train_eval_mode.py::test_a2c_ppo_collect_rollouts_with_batch_norm[CartPole-v1-PPO]",
    "tests/test_train_eval_mode.py::test_a2c_ppo_train_with_batch_norm[CartPole-v1-PPO]",
    "tests/test_train_eval_mode.py::test_predict_with_dropout_batch_norm[CartPole-v1-PPO]",
    "tests/test_vec_extract_dict_obs.py::test_vec_with_ppo",
    "tests/test_vec_monitor.py::test_vec_monitor_ppo",
)
WITH_SQUASHED_ACTIONS = (
    "tests/test_distributions.py::test_squashed_gaussian[PPO]",
    "tests/test_sde.py::test_state_dependent_noise[True-False-PPO]",
    "tests/test_sde.py::test_state_dependent_noise[True-True-PPO]",
)
REASONS = {
    **dict.fromkeys(WITH_DISCRETE_ACTIONS, DISCRETE),
    **dict.fromkeys(WITH_SQUASHED_ACTIONS, SQUASHED),
    "tests/test_run.py::test_ppo_warnings": CLASS_NAME,
}
