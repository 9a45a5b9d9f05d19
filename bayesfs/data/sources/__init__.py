"""Folders of recordings, before any pixel is read: start with `open.read_tree`."""
