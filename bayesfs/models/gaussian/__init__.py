"""The Gaussian hierarchy, exact and robust: start with `hierarchy`."""
