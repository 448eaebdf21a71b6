"""Which human concepts a network's features hold, and which of them speak for its classes (concept bottlenecks)."""

from prunescope.probes.concepts.probe import Concepts

__all__ = ["Concepts"]
