"""Recipes: short scripts that choose a model, an engine or an evaluation."""
