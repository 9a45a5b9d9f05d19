"""bayesfs: Bayesian few-shot recognition of objects in short, real, messy videos."""
