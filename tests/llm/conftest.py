"""Games, a tokenizer and a model, made once."""

from typing import Any

import pytest
from word_game import WordTasks

from maxent_onpolicy.llm.environments import TaskSet, make_tasks


@pytest.fixture(scope="session")
def text_games(tmp_path_factory: pytest.TempPathFactory) -> TaskSet:
    """Games of TextWorld, generated in a folder that is deleted later."""
    pytest.importorskip("textworld")
    games: Any = make_tasks("textworld", train=2, validation=1, test=1, seed=6, folder=tmp_path_factory.mktemp("games"))
    games.prepare(progress_bar=False)
    return games


@pytest.fixture(scope="session")
def word_tasks() -> WordTasks:
    return WordTasks()


@pytest.fixture(scope="session")
def word_tokenizer(word_tasks: WordTasks) -> Any:
    """A tokenizer that has hardly more than single bytes."""
    pytest.importorskip("transformers")
    from maxent_onpolicy.llm.sft import oracle_texts, play_oracle
    from maxent_onpolicy.llm.tokenizer import train_tokenizer

    return train_tokenizer(oracle_texts(play_oracle(word_tasks, word_tasks.ids("train"))), 280)


@pytest.fixture
def word_model(word_tokenizer: Any) -> Any:
    from maxent_onpolicy.llm.model import ModelSize, build_model

    size = ModelSize(layers=2, width=32, heads=2, key_value_heads=1, feed_forward=64)
    return build_model(word_tokenizer, size, seed=3)
