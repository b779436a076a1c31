"""Runs in which a language model learns on tasks of text, and the command ``maxent-onpolicy llm``."""
