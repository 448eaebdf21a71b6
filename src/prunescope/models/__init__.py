"""Networks by name, their layers, and their weights on disk."""
