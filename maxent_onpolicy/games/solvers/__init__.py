"""Solvers of zero-sum games."""
