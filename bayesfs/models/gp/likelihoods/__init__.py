"""Likelihoods of class functions, one a file."""
