"""What computes: versions, for provenance."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import version

from prunescope import __version__


@lru_cache(maxsize=1)
def surroundings() -> dict[str, str]:
    """Versions of what computes."""
    packages = ("torch", "torchvision", "lightning-fabric", "numpy", "scikit-learn")
    return {
        "prunescope": __version__, "python": platform.python_version(), "machine": platform.machine(),
        **{name: version(name) for name in packages},
    }  # fmt: skip
