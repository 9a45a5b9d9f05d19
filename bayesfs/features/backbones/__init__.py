"""Frozen networks: frames -> features, one file each. `spec.backbone_of` makes them."""
