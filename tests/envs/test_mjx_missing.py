"""What happens where MJX is not installed."""

import sys

import pytest

from maxent_onpolicy import make_vec_env


def test_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    for name in ("tasks", "vec_env"):
        monkeypatch.delitem(sys.modules, f"maxent_onpolicy.envs.mjx.{name}", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'maxent-onpolicy\[mjx\]'"):
        make_vec_env("Hopper-v5", 2, backend="mjx")
