"""A Pyro program as a batched log density, and what all engines share."""
