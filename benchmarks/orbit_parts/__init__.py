"""What `benchmarks/orbit.py` is made of."""
