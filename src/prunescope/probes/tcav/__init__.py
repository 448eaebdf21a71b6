"""Which concepts a class is sensitive to (TCAV), and which concept regions its images lie in."""

from prunescope.probes.tcav.probe import Tcav
from prunescope.probes.tcav.region_probe import ConceptRegions

__all__ = ["ConceptRegions", "Tcav"]
