"""Which kernels OpenBLAS takes for numpy's matrix products.

OpenBLAS chooses when numpy is imported. It does not know AMD's newest processors
(0.3.31 and family 26, Zen 5) and takes kernels for AVX2, with which small products
take twice as long as with those for AVX-512, and an update a quarter longer.
"""

import os
import sys
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
_NEEDED = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_CPUINFO = Path("/proc/cpuinfo")


def kernels_for(cpuinfo: str) -> str | None:
    """Return OpenBLAS's name for the kernels to ask for, or ``None`` if its own choice is good.

    Args:
        cpuinfo: what Linux tells of a processor, in lines ``name : value``.
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    wide = set(fields.get("flags", "").split()) >= _NEEDED
    return "SkylakeX" if wide and fields.get("vendor_id") == "AuthenticAMD" else None


def wanted_kernels() -> str | None:
    """Return the kernels to ask for on this processor; ``None`` if OpenBLAS, or the user, has chosen."""
    if VARIABLE in os.environ:
        return None
    try:
        first, *_ = _CPUINFO.read_text().split("\n\n")
    except OSError:  # not Linux
        return None
    return kernels_for(first)


def choose_kernels() -> None:
    """Ask OpenBLAS for the faster kernels, by its environment variable; does nothing once numpy is imported."""
    kernels = None if "numpy" in sys.modules else wanted_kernels()
    if kernels is not None:
        os.environ[VARIABLE] = kernels
