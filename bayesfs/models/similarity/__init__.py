"""Recognition by pooled similarities to the taught videos: see `bayesfs.models.similarity.pool`."""
