"""Stein variational gradient descent, batched over tasks."""
