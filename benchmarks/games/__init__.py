"""Benchmarks of the solvers of zero-sum games, and of those of other libraries."""
