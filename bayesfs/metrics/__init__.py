"""Scores of predictions: proper scores, calibration, selection, intervals over users."""
