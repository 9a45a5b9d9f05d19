"""Distributions that PyTorch lacks: systematic draws of classes, Pólya-Gamma."""
