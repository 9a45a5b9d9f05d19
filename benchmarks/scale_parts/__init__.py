"""Parts of `benchmarks/scale.py`, one idea each."""
