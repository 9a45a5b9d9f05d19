"""Features of a whole tree, resumable: start with `extract.extract`."""
