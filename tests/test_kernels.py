"""OpenBLAS is asked for kernels that it would not find by itself, before numpy loads it."""

import os
import subprocess
import sys

import pytest

from maxent_onpolicy.kernels import VARIABLE, kernels_for, wanted_kernels

AVX512 = "fpu avx2 avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "kernels"),
    [
        ("AuthenticAMD", AVX512, "SkylakeX"),
        ("AuthenticAMD", "fpu avx2", None),
        ("AuthenticAMD", AVX512.replace("avx512vl", ""), None),
        ("GenuineIntel", AVX512, None),  # OpenBLAS knows them
    ],
)
def test_kernels_follow_from_the_processor(vendor, flags, kernels):
    assert kernels_for(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n") == kernels


def test_nothing_is_asked_for_where_nothing_is_known():
    assert kernels_for("") is None
    assert kernels_for("Features : fp asimd\n") is None


def imported(*modules: str, **variables: str) -> str:
    """Import modules in a new process; return the variable."""
    code = f"import os, {', '.join(modules)}; print(os.environ.get({VARIABLE!r}))"
    env = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_choice_is_made_before_numpy_or_not_at_all(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert imported("maxent_onpolicy") == str(wanted_kernels())
    assert imported("numpy", "maxent_onpolicy") == "None"
    assert imported("maxent_onpolicy", **{VARIABLE: "Haswell"}) == "Haswell"
