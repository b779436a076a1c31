"""Settings of the whole suite."""

import os

from hypothesis import settings
from threadpoolctl import threadpool_info

# Plugins import numpy before the package can choose its kernels. Processes that tests start must compute the same bits.
for library in threadpool_info():
    if library["internal_api"] == "openblas":
        os.environ.setdefault("OPENBLAS_CORETYPE", library["architecture"])

# The same examples at every run: a failure repeats, and no run fails by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
