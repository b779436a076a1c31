"""This package's algorithms in RL-Baselines3-Zoo: names, settings, search spaces.

Importing this needs no Zoo; :func:`register` needs it: ``pip install "maxent-onpolicy[zoo]"``.
"""

from maxent_onpolicy.zoo.registration import algorithms, register, settings_file

__all__ = ["algorithms", "register", "settings_file"]
