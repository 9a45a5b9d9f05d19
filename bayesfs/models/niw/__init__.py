"""Classes whose covariance is unknown too (normal-inverse-Wishart)."""
