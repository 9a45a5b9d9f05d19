"""Baselines with the predictive of the Bayesian models."""
