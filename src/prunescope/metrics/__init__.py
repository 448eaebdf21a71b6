"""Distances and statistics: numpy in, numpy out. Knows nothing of networks."""
