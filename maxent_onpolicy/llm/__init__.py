"""Entropy advantage and entropy control for language models: estimators, methods, a trainer, environments."""
