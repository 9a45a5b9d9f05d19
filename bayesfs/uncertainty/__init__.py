"""How unsure, of which kind, at which level, from which cause, and what would help."""
