"""Benchmarks of `anysched` and its peers, with the same work, in turn, in one run. Run as ``python -m benchmarks``."""
