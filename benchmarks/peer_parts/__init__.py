"""What `benchmarks/peers.py --photos` is made of."""
