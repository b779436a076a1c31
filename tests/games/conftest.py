"""Games that several tests solve; read once."""

import pytest

from maxent_onpolicy.games.sequence_form import SequenceFormGame


@pytest.fixture(scope="session")
def kuhn() -> SequenceFormGame:
    pytest.importorskip("pyspiel")
    return SequenceFormGame.from_openspiel("kuhn_poker")


@pytest.fixture(scope="session")
def leduc() -> SequenceFormGame:
    pytest.importorskip("pyspiel")
    return SequenceFormGame.from_openspiel("leduc_poker")
