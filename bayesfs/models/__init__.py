"""Models: each file one Pyro program with its mathematics."""
