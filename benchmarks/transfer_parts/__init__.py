"""Parts of `benchmarks/transfer.py`: worlds, tasks, methods, simple heads, scores."""
