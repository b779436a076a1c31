"""Settings of the whole suite."""

from hypothesis import settings

# The same examples at every run: a failure repeats, and no run fails by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
