"""Environments as SB3 VecEnvs."""
