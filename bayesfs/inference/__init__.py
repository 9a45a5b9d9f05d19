"""Engines: each file one algorithm that turns a model and a support set into a posterior."""
