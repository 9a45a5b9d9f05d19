"""Parts of benchmarks/uncertainty.py: one property, or a few that share work, in each."""
