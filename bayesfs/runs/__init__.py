"""A study kept in a run directory, here or on a cluster."""
