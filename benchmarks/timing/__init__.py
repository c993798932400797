"""The subjects of `benchmarks/speed.py`, one a module."""
