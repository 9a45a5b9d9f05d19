"""Scores, calibration, diagnostics and the report."""
