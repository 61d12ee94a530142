"""`anysched` beside its peers: the same work, in turn, in one run. Run as ``python -m benchmarks``."""
