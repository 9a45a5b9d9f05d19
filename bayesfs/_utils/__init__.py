"""Small helpers that know nothing of models: display, spacing, atomic files, progress."""
