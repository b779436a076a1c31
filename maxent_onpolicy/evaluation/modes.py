"""What evaluations are called: how the policy acts, and on which distribution of environments it is judged.

A run may be evaluated in the environments it is trained in, and also on a test distribution: the same environments
with other keywords (Procgen: all levels instead of the 200 of training). The first is the split ``train``, the second
``test``.

Results in which nothing has a test split call an evaluation by its mode, ``stochastic``. Otherwise names say both,
``stochastic, test`` and ``stochastic, train``.
"""

MODES = ("deterministic", "stochastic")
SPLITS = ("test", "train")


def family(mode: str, split: str) -> str:
    """Return what evaluations in ``mode`` on a ``split`` are called: ``"stochastic, test"``."""
    return f"{mode}, {split}"


#: Every name of evaluations, in the order of reports: the test distribution leads.
FAMILIES = (*(family(mode, split) for split in SPLITS for mode in MODES), *MODES)


def split_of(name: str) -> str:
    """Return the split in the name of evaluations; empty if there is none."""
    return name.partition(", ")[2]


def adjective(name: str) -> str:
    """Return a name as it stands before a noun: ``"stochastic test"`` (evaluation)."""
    return name.replace(", ", " ")


def slug(name: str) -> str:
    """Return a name as a part of names of files and columns: ``"stochastic_test"``."""
    return name.replace(", ", "_")


def policy_words(name: str) -> str:
    """Return who is judged where, for a sentence: ``"stochastic policy on the test distribution"``."""
    mode, _, split = name.partition(", ")
    place = {"": "", "test": " on the test distribution", "train": " on the training distribution"}[split]
    return f"{mode} policy{place}"
