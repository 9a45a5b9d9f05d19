"""Simulated data whose truth is known: tasks of the hierarchy, and rendered videos."""
