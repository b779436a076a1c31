"""What users do with the solver: go on, save, load, predict, anneal, accelerate."""

import numpy as np
import pytest
import torch

from maxent_onpolicy.games import (
    OMWU,
    Annealing,
    MatrixGame,
    SequenceFormGame,
    matching_pennies,
    perturbed_rock_paper_scissors,
    random_markov_game,
    random_matrix_game,
    rock_paper_scissors,
)
from maxent_onpolicy.games.solvers.temperature import Floor

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


def test_a_solver_that_came_back_to_the_floor_of_newton_steps_stays_there_when_loaded(leduc, tmp_path):
    solver = OMWU(leduc, Annealing(1.0, 0.1), acceleration="newton")
    solver._floor.stays = True
    again = OMWU.load(solver.learn(20, check_every=10).save(tmp_path / "solver"), leduc)
    assert again._floor == solver._floor
    assert again._floor.stays


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


def test_below_the_floor_of_newton_steps_the_temperature_goes_on_or_comes_back(kuhn, leduc):
    """Plain updates lose in Leduc poker what Newton steps have gained, and gain more in Kuhn poker."""
    kept, lower = (OMWU(game, "anneal", acceleration="newton").learn(3_000, check_every=50) for game in (leduc, kuhn))
    floor = kept._floor
    assert kept.tau == floor.tau
    assert floor.stays
    assert kept.history[-1].exploitability <= 2 * min(record.exploitability for record in kept.history) < 1e-6
    assert lower.tau < lower._floor.tau
    assert lower.history[-1].exploitability < 1e-13


def test_a_floor_holds_once_it_was_better_than_what_came_below():
    floor = Floor(0.1)
    assert floor.hold(0.4, 0.2, 1.0) == 0.2
    assert floor.hold(0.2, 0.05, 0.5) == 0.1  # not past it without a look
    assert floor.hold(0.1, 0.05, 0.3) == 0.05
    assert floor.hold(0.05, 0.025, 0.5) == 0.025
    assert floor.hold(0.025, 0.0125, 0.7) == 0.1
    assert floor.hold(0.1, 0.05, 0.3) == 0.1


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", ["omwu", "mwu"])
def test_annealing_goes_on_where_a_gap_is_zero(dtype, variant):
    game = MatrixGame([[1.0, 0.0], [3.0, 1.0]])  # a saddle point, which is found exactly
    solver = OMWU(game, "anneal", variant=variant, dtype=dtype).learn(1_500, check_every=10)
    assert solver.history[-1].nash_conv == 0.0
    assert solver.history[-1].qre_gap < 1e-20
    assert 1e-30 <= solver.tau < 1e-20


def test_a_schedule_sees_what_is_left():
    seen = []

    def schedule(progress_remaining: float) -> float:
        seen.append(progress_remaining)
        return 0.1 + 0.1 * progress_remaining

    solver = OMWU(matching_pennies(), schedule).learn(40, check_every=10)
    assert seen[0] == 1.0
    assert solver.tau == pytest.approx(0.1 + 0.1 * seen[-1])


@pytest.mark.parametrize("variant", ["omwu", "extragradient", "mwu"])
@pytest.mark.parametrize("game", [random_matrix_game(3, 4), random_markov_game(4, (2, 3))])
@pytest.mark.filterwarnings("ignore:eta=0.05 is above")
def test_the_midpoint_is_what_is_played_next(variant, game):
    """So says the average of all that was played, after one update more."""
    solver = OMWU(game, 0.3, 0.05, variant).learn(7)
    wanted, before = solver.policy("midpoint"), solver.policy("average")
    after = solver.learn(1).policy("average")
    for played, old, new in zip(wanted, before, after, strict=True):
        torch.testing.assert_close(8 * new - 7 * old, played, rtol=0, atol=1e-13)


def test_only_a_tolerance_stops_at_an_exact_solution():
    game = matching_pennies()  # solved by where solvers start
    assert OMWU(game, 0.1).learn(30, check_every=10).iterations == 30
    assert OMWU(game, 0.1).learn(30, tol=0.0, check_every=10).iterations == 10
    with pytest.raises(ValueError, match=r"`tol` must be in \[0, inf\), got -1"):
        OMWU(game, 0.1).learn(30, tol=-1.0)


@pytest.mark.parametrize(
    ("game", "tau"),
    [
        (perturbed_rock_paper_scissors(), 0.5),
        (random_matrix_game(4, 5, batch=3), 0.5),
        (random_markov_game(6, (2, 3)), 0.5),
        (KUHN, 2.0),
    ],
)
def test_gaps_at_the_equilibrium_are_not_negative(game, tau):
    """By rounding some of them are, if nothing is done about it."""
    solver = OMWU(game, tau).learn(1_500)
    assert all(record.qre_gap >= 0.0 for record in solver.history)
    assert (torch.as_tensor(solver.evaluate().qre_gap) >= 0.0).all()
    assert np.isfinite(solver.history[-1].qre_gap)
    assert solver.history[-1].qre_gap < 1e-14


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_gaps_of_what_is_no_number_are_none_either(tau):
    broken = torch.full((2,), float("nan"), dtype=torch.float64)
    assert np.isnan(matching_pennies().evaluate((broken, broken), tau).qre_gap)
    assert np.isnan(KUHN.evaluate([np.full(tree.n_sequences, np.nan) for tree in KUHN.trees], tau).qre_gap)


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
