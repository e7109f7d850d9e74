"""Figures of the benchmark on a GPU."""
