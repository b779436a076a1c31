"""The command line: train, evaluate, bench, report, list."""
