"""Laplace's approximation, batched over tasks."""
