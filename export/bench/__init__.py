"""Benchmarks against what a user would otherwise run: same inputs, same threads, same machine, one run."""
