"""Measures the parts that the clock rules, each beside what it replaces, in one run."""
