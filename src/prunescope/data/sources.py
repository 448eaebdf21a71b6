"""The registry of data sources, and the way from a name in a config to a `Dataset`."""

from __future__ import annotations

from typing import Protocol

from prunescope.core.registry import Registry
from prunescope.data.split import Dataset


class Source(Protocol):
    """A frozen dataclass whose fields are its configuration."""

    def load(self) -> Dataset:
        """Read, decode and split. Errors name the file or folder at fault."""
        ...


#: Data sources by name. Register a frozen dataclass with a `load() -> Dataset` method.
sources: Registry[type[Source]] = Registry("data source", group="prunescope.data")
