"""From frames to embeddings and measured quality."""
