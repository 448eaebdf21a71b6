"""Predictions of a network without one of its units, recomputing only what depends on it."""
