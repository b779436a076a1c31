"""Published methods that control the entropy of a language model in RL, behind one interface.

A method is a small dataclass of settings and state, see :class:`EntropyControl`; its mathematics are functions in
:mod:`~maxent_onpolicy.llm.methods.formulas`. :func:`make_method` makes one by name, :class:`Compose` puts several
together.
"""

from maxent_onpolicy.llm.methods.base import EntropyControl, EntropyValues
from maxent_onpolicy.llm.methods.compose import Compose
from maxent_onpolicy.llm.methods.formulas import nucleus_entropy
from maxent_onpolicy.llm.methods.registry import METHODS, READ_IN, MethodInfo, compose, list_methods, make_method

__all__ = [
    "METHODS",
    "READ_IN",
    "Compose",
    "EntropyControl",
    "EntropyValues",
    "MethodInfo",
    "compose",
    "list_methods",
    "make_method",
    "nucleus_entropy",
]
