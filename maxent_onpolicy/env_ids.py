"""Prefixes of environment ids that Gymnasium does not know; nothing is imported, so that reading them costs no time."""

#: Games that a policy plays against itself, of OpenSpiel and of PettingZoo.
SELF_PLAY = ("openspiel:", "pettingzoo:")
#: Sets of tasks that a language model works on; after a colon there may be which of its tasks.
TEXT = ("textworld", "scienceworld", "reasoning_gym")


def is_text(env_id: str) -> bool:
    """Return whether an environment is for language models."""
    return env_id.partition(":")[0] in TEXT
