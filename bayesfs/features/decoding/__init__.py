"""Recordings -> small square RGB frames: start with `video.decode`."""
