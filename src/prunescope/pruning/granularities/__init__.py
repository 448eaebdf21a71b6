"""Granularities, one file a family. A granularity says which weights stay or go together."""
