"""What is learnt before any task is inferred."""
