"""Self-play by id: ``make_vec_env``, the exact score that replaces episodes of evaluation, and the commands."""

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from maxent_onpolicy import PPO, make_vec_env
from maxent_onpolicy.cli.config import make_config
from maxent_onpolicy.cli.main import main
from maxent_onpolicy.cli.runner import execute
from maxent_onpolicy.evaluation.protocol import evaluate_policy
from maxent_onpolicy.evaluation.ranges import load_score_ranges
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.games import openspiel
from maxent_onpolicy.games.selfplay import InformationStates, PettingZooVecEnv, SelfPlayVecEnv
from maxent_onpolicy.games.sequence_form import SequenceFormGame

SMALL = {"n_steps": 32, "batch_size": 64, "n_epochs": 1, "gamma": 1.0, "seed": 0, "device": "cpu", "compile": False}


def model_of(env):
    return PPO("MaskedMlpPolicy", env, **SMALL).learn(256)


def test_an_id_makes_what_the_class_makes():
    by_id, by_class = make_vec_env("openspiel:leduc_poker", 4, seed=3), SelfPlayVecEnv("leduc_poker", 4, seed=3)
    assert isinstance(by_id, SelfPlayVecEnv)
    for env in (by_id, by_class):
        env.reset()
    for _ in range(20):
        action = by_id.tree.mask[by_id._nodes].argmax(1)
        (seen, reward, done, _), (other, *rest, _) = by_id.step(action), by_class.step(action)
        np.testing.assert_array_equal(seen["observation"], other["observation"])
        np.testing.assert_array_equal([reward, done], rest)


def test_games_of_pettingzoo_have_ids_too():
    env = make_vec_env("pettingzoo:connect_four_v3", 2, seed=0)
    assert isinstance(env, PettingZooVecEnv)
    assert env.num_envs == 2


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("openspiel:kuhn_pokr", {}, "no game 'kuhn_pokr'.*kuhn_poker"),
        (
            "openspiel:liars_dice",
            {"numdice": 1},
            r"`numdice`: .* in its name, as in 'openspiel:liars_dice'\(numdice=1\)",
        ),
        ("openspiel:kuhn_poker", {"wrapper": lambda env: env}, "`wrapper`: games in self-play are stepped together"),
        (
            "openspiel:kuhn_poker",
            {"discretize_bins": 3},
            "`discretize_bins`: a game's moves are discrete already, got 3",
        ),
        ("openspiel:kuhn_poker", {"backend": "gymnasium"}, "cannot make 'openspiel:kuhn_poker' as asked; selfplay can"),
        ("CartPole-v1", {"backend": "selfplay"}, r"\(it needs an id like 'openspiel:kuhn_poker'\)"),
    ],
)
def test_what_cannot_be_made_is_refused(env_id, options, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(env_id, **options)


def test_an_evaluation_is_the_mean_return_of_both_seats_against_best_responses():
    env = make_vec_env("openspiel:kuhn_poker", 4, seed=0)
    model = model_of(env)
    found = evaluate_policy(model, make_vec_env("openspiel:kuhn_poker", 2), episodes=10, seed=0)
    states = InformationStates("kuhn_poker")
    assert found["stochastic"].returns == -states.evaluate(model).exploitability
    assert found["stochastic"].lengths == 0
    # A pure strategy, and each seat's best response to it, by the sequence form.
    pure = states.behaviours(model, deterministic=True)
    assert all(set(np.unique(behaviour)) <= {0.0, 1.0} for behaviour in pure)
    assert (
        found["deterministic"].returns == -SequenceFormGame.from_openspiel("kuhn_poker").evaluate(pure).exploitability
    )


@pytest.mark.parametrize("game", ["kuhn_poker", "leduc_poker"])
def test_scores_of_a_game_begin_at_the_uniform_policy_and_end_at_an_equilibrium(game):
    found = load_score_ranges()[f"openspiel:{game}"]
    whole = SequenceFormGame.from_openspiel(game)
    assert -found.low == pytest.approx(whole.evaluate(whole.uniform()).exploitability, abs=1e-5)
    assert found.high == 0


def test_an_exact_score_needs_observations_as_the_game_gives_them():
    env = make_vec_env("openspiel:kuhn_poker", 2, seed=0)
    model = model_of(env)
    normalized = VecNormalize(env, norm_obs=True, norm_obs_keys=["observation"])
    with pytest.raises(ValueError, match="`normalize_observation`: a policy of a game is measured on observations as"):
        evaluate_policy(model, normalized, episodes=1, seed=0)


def test_a_game_that_is_too_large_is_played_and_the_user_is_told(monkeypatch):
    monkeypatch.setattr(openspiel, "MAX_HISTORIES", 20)
    with pytest.raises(openspiel.GameTooLargeError, match="kuhn_poker has more than 20 histories"):
        SequenceFormGame.from_openspiel("kuhn_poker")
    env = make_vec_env("openspiel:kuhn_poker", 2, seed=0)
    model = model_of(env)
    with pytest.warns(UserWarning, match="judged by playing against itself as player 0"):
        found = evaluate_policy(model, env, episodes=6, seed=0, modes=["stochastic"])
    assert len(found["stochastic"].returns) == 6
    assert (found["stochastic"].lengths >= 2).all()


def test_a_run_is_trained_judged_and_evaluated_from_the_command_line(tmp_path, capsys):
    settings = {
        "total_timesteps": 512,
        "n_envs": 4,
        "hyperparameters": {"n_steps": 32, "batch_size": 64, "tau": 0.05, "magnet": "ema", "device": "cpu"},
        "evaluation": {"every": 256, "modes": ["stochastic"]},
    }
    who = {"label": "MaxEntPPO", "algorithm": "MaxEntPPO", "env_id": "openspiel:kuhn_poker", "seed": 0}
    config = make_config(settings, "test", suite="s", **who)
    assert config.policy == "MaskedMlpPolicy"
    run = RunDirectory.create(tmp_path / "run", config.to_json(), {})
    execute(run)
    rows = run.read_eval()
    assert rows["timesteps"].tolist() == [0, 256, 512]
    assert rows["return"].iloc[0] == pytest.approx(-0.4583, abs=0.03)  # nearly uniform
    assert main(["evaluate", str(run.path), "--modes", "stochastic"]) == 0
    shown = capsys.readouterr().out
    assert f"{rows['return'].iloc[-1]:.2f}" in shown


def test_a_report_says_that_returns_are_exact(tmp_path):
    settings = {"total_timesteps": 64, "n_envs": 4, "hyperparameters": SMALL | {"n_steps": 16}}
    del settings["hyperparameters"]["seed"]
    who = {"label": "PPO", "algorithm": "PPO", "env_id": "openspiel:kuhn_poker", "seed": 0}
    config = make_config(settings, "test", suite="s", **who)
    execute(RunDirectory.create(tmp_path / "runs" / "PPO" / "kuhn" / "seed_0", config.to_json(), {}), keep_model=False)
    assert any("its exploitability with the other sign" in note for note in load_results(tmp_path).notes)
