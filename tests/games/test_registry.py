"""Games by name."""

import sys

import pytest

from maxent_onpolicy.games.markov import MarkovGame
from maxent_onpolicy.games.matrix import MatrixGame
from maxent_onpolicy.games.registry import list_games, make_game
from maxent_onpolicy.games.sequence_form import SequenceFormGame


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("matching_pennies", MatrixGame),
        ("rock_paper_scissors", MatrixGame),
        ("biased_rock_paper_scissors", MatrixGame),
        ("perturbed_rock_paper_scissors", MatrixGame),
        ("random_matrix", MatrixGame),
        ("random_markov", MarkovGame),
        ("soccer", MarkovGame),
    ],
)
def test_own_games_need_no_extra(name, kind, monkeypatch):
    for module in ("pyspiel", "numba", "scipy"):
        monkeypatch.setitem(sys.modules, module, None)
    assert isinstance(make_game(name), kind)


def test_every_game_of_the_list_can_be_made():
    pytest.importorskip("pyspiel")
    games = list_games()
    assert len(dict(games)) == len(games) > 7
    for name, text in games:
        assert "\n" not in text
        assert isinstance(make_game(name), MatrixGame | MarkovGame | SequenceFormGame)


def test_arguments_reach_the_game():
    assert make_game("random_matrix", m=2, n=3, batch=4).payoff.shape == (4, 2, 3)
    assert make_game("soccer", gamma=0.5).gamma == 0.5
    assert make_game("random_markov", states=3, actions=(2, 2), horizon=4).horizon == 4


def test_openspiels_games_take_arguments_either_way():
    pytest.importorskip("pyspiel")
    written = make_game("liars_dice(numdice=1,dice_sides=2)")
    assert isinstance(written, SequenceFormGame)
    for other in (make_game("liars_dice", numdice=1, dice_sides=2), make_game("liars_dice(numdice=1)", dice_sides=2)):
        assert other.fingerprint == written.fingerprint
    assert make_game("goofspiel", num_cards=3, imp_info=True).trees[0].n_states > 0


def test_openspiels_matrix_games_are_matrix_games():
    pytest.importorskip("pyspiel")
    assert make_game("matrix_brps").payoff.tolist() == make_game("biased_rock_paper_scissors").payoff.tolist()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("matchin_pennies", {}, r"no game 'matchin_pennies' \(did you mean 'matching_pennies'\?\)"),
        ("khun_poker", {}, r"no game 'khun_poker' \(did you mean 'kuhn_poker'\?\)"),
        ("leduc_pocker(players=2)", {}, r"did you mean 'leduc_poker'"),
        ("random_matrix", {"sed": 1}, r"no argument 'sed' \(did you mean 'seed'\?\); it has m, n, batch, seed"),
        ("matching_pennies", {"seed": 1}, "no argument 'seed'; it has none"),
        ("random_matrix", {"m": 0}, "`m` must be"),
        ("kuhn_poker", {"cards": 3}, "cannot load 'kuhn_poker.cards=3.'"),
        ("matrix_pd", {}, r"not zero-sum: payoffs at \(0, 0\) are 5 and 5"),
    ],
)
def test_what_there_is_not_is_refused(name, arguments, message):
    pytest.importorskip("pyspiel")
    with pytest.raises(ValueError, match=message):
        make_game(name, **arguments)


def test_without_openspiel_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(ImportError, match=r"kuhn_poker needs OpenSpiel: pip install 'maxent-onpolicy\[games\]'"):
        make_game("kuhn_poker(players=2)")
    with pytest.raises(ValueError, match=r"'socer' \(did you mean 'soccer'\?\); those of OpenSpiel need pip install"):
        make_game("socer")
