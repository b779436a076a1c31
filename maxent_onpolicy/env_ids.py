"""Prefixes of environment ids that Gymnasium does not know; nothing is imported, so that reading them costs no time."""

#: Games that a policy plays against itself, of OpenSpiel and of PettingZoo.
SELF_PLAY = ("openspiel:", "pettingzoo:")
