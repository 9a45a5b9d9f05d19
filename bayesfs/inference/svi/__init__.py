"""Stochastic variational inference, batched over tasks."""
