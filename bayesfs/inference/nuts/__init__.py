"""The no-U-turn sampler for every task at once."""
