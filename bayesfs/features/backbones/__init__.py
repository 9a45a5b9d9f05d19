"""Frozen networks: frames -> features."""
