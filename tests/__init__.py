"""A package, so that one of this name in site-packages, as verl puts there, does not hide it."""
