"""What users do with the solver: go on, save, load, predict, anneal, accelerate."""

import numpy as np
import pytest
import torch

from maxent_onpolicy.games import (
    OMWU,
    Annealing,
    SequenceFormGame,
    matching_pennies,
    random_markov_game,
    random_matrix_game,
    rock_paper_scissors,
)

KUHN = SequenceFormGame.from_openspiel("kuhn_poker")
GAMES = {
    "matrix": (random_matrix_game(3, 4), None),
    "batch": (random_matrix_game(3, 4, batch=5), None),
    "markov": (random_markov_game(6, (2, 3)), 3),
    "horizon": (random_markov_game(6, (2, 3), horizon=4), (1, 2)),
    "kuhn": (KUHN, "0"),
}


@pytest.mark.parametrize("kind", GAMES)
def test_a_loaded_solver_goes_on_exactly(kind, tmp_path):
    game, _ = GAMES[kind]
    whole = OMWU(game, 0.2).learn(60, check_every=10)
    OMWU(game, 0.2).learn(30, check_every=10).save(tmp_path / "half")
    resumed = OMWU.load(tmp_path / "half", game).learn(30, check_every=10)
    assert [record[:1] + record[2:] for record in resumed.history] == [
        record[:1] + record[2:] for record in whole.history
    ]


def test_an_annealed_solver_goes_on_exactly(tmp_path):
    schedule = Annealing(0.5, 0.7, minimum=1e-3)
    whole = OMWU(KUHN, schedule, acceleration="newton").learn(200, check_every=10)
    OMWU(KUHN, schedule, acceleration="newton").learn(100, check_every=10).save(tmp_path / "half.npz")
    resumed = OMWU.load(tmp_path / "half.npz", KUHN).learn(100, check_every=10)
    assert resumed.tau == whole.tau
    assert resumed.history[-1].exploitability == whole.history[-1].exploitability


def test_a_file_of_another_game_or_of_something_else_is_refused(tmp_path):
    path = OMWU(matching_pennies(), 0.1).learn(10).save(tmp_path / "pennies")
    with pytest.raises(ValueError, match="another game"):
        OMWU.load(path, rock_paper_scissors())
    (tmp_path / "text.npz").write_text("no solver")
    with pytest.raises(ValueError, match="not written by a solver"):
        OMWU.load(tmp_path / "text.npz", matching_pennies())
    with pytest.raises(FileNotFoundError):
        OMWU.load(tmp_path / "missing", matching_pennies())


@pytest.mark.parametrize("kind", GAMES)
def test_actions_are_drawn_from_the_policy(kind):
    game, observation = GAMES[kind]
    solver = OMWU(game, 0.2, seed=0).learn(50)
    probabilities, names = game.choices(solver.policy()[0], 0, observation)
    drawn = np.array([solver.predict(observation)[0] for _ in range(2000)])
    for index, name in enumerate(names):
        share = (drawn == name).mean(0)
        assert np.abs(share - probabilities[..., index]).max() < 0.06  # five standard deviations
    likeliest = np.asarray(names)[probabilities.argmax(-1)]
    assert (np.asarray(solver.predict(observation, deterministic=True)[0]) == likeliest).all()


def test_wrong_questions_are_refused():
    solver = OMWU(KUHN, 0.1).learn(10)
    with pytest.raises(ValueError, match="`player` must be 0 or 1"):
        solver.predict("0", player=2)
    with pytest.raises(ValueError, match="no information state"):
        solver.predict("king", player=0)


def test_newton_steps_find_the_same_equilibrium():
    plain = OMWU(KUHN, 0.05).learn(5_000, tol=1e-13)
    fast = OMWU(KUHN, 0.05, acceleration="newton").learn(1, check_every=1)
    assert fast.history[-1].qre_gap < 1e-13
    for one, other in zip(plain.policy(), fast.policy(), strict=True):
        assert all(np.allclose(one[state], other[state], atol=1e-6) for state in one)


def test_annealing_gets_to_a_nash_equilibrium():
    solver = OMWU(KUHN, "anneal").learn(30_000, tol=1e-11, check_every=50)
    found = solver.evaluate()
    assert found.exploitability < 1e-11
    assert found.value == pytest.approx(-1 / 18, abs=1e-10)


def test_the_temperature_falls_only_after_the_gap_has():
    solver = OMWU(KUHN, Annealing(0.5, 0.5)).learn(300, check_every=5)
    for before, after in zip(solver.history, solver.history[1:], strict=False):
        fell = after.tau < before.tau
        assert fell == (before.qre_gap <= before.tau)


def test_a_schedule_sees_what_is_left():
    seen = []

    def schedule(progress_remaining: float) -> float:
        seen.append(progress_remaining)
        return 0.1 + 0.1 * progress_remaining

    solver = OMWU(matching_pennies(), schedule).learn(40, tol=-0.0, check_every=10)
    assert seen[0] == 1.0
    assert solver.tau == pytest.approx(0.1 + 0.1 * seen[-1])


def test_a_callback_stops_learning():
    solver = OMWU(random_matrix_game(), 0.01).learn(1_000, callback=lambda now: now.iterations < 300)
    assert solver.iterations == 300


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["omwu", "extragradient", "mwu"])
def test_compiled_updates_are_the_same(variant):
    game = random_matrix_game(5, 6, batch=7)
    plain = OMWU(game, 0.1, 0.1, variant).learn(31, check_every=31).policy()
    compiled = OMWU(game, 0.1, 0.1, variant, compile=True).learn(31, check_every=31).policy()
    for one, other in zip(plain, compiled, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
