"""Prediction sets, abstention and novelty by thresholds learnt on train users."""
