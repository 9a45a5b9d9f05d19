"""Can the posterior be trusted? Convergence, checks, leave-one-out, SBC."""
