"""Cholesky factors of nearly singular matrices."""
