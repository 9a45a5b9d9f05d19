"""A taught recogniser for a device."""
