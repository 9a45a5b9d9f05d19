"""Approximations of the posterior over class functions."""
