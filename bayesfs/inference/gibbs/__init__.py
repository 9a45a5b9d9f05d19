"""Pólya-Gamma Gibbs sampling of linear heads."""
