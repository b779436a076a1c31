"""Run directories, the evaluation protocol, statistics and reports."""
