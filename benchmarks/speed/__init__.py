"""Speed of this package and of its peers, measured alternately in fresh processes: ``python -m benchmarks.speed``."""
