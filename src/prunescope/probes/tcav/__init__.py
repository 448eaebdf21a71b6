"""Which concepts a class is sensitive to (TCAV), and which concept regions its images lie in."""

from prunescope.probes.tcav.probe import Tcav


__all__ = ["Tcav"]
