"""Bayesian softmax heads per task."""
