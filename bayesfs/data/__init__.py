"""Reading, drawing and storing data: trees of videos, stores of embeddings, episodes."""
