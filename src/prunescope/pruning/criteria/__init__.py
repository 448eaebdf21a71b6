"""Criteria, one file a family. A criterion scores every prunable weight: higher = keep."""
