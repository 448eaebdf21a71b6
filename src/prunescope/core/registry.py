"""Names to parts: criteria, probes, models and data sources find their way into configs and help by registering."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from prunescope.core.errors import PrunescopeError, choices

T = TypeVar("T")
P = TypeVar("P")


class Registry(Mapping[str, T], Generic[T]):
    """A dictionary of parts of one kind that fills itself from decorators and from entry points of other packages.

    >>> numbers = Registry[int]("number")
    >>> _ = numbers.register("one")(1)
    >>> numbers["one"]
    1
    """

    def __init__(self, kind: str, group: str | None = None, package: str | None = None) -> None:
        """A registry of parts called `kind` in messages.

        Args:
            group: entry point group in which other packages offer parts.
            package: our own package of parts; all its modules are imported at first use, so a new file is enough.
        """
        self.kind = kind
        self.group = group
        self.package = package
        self._parts: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[P], P]:
        """Decorator: file the class or function under `name`. Two different parts may not share a name."""

        def add(part: P) -> P:
            known = self._parts.get(name)
            if known is not None and getattr(known, "__qualname__", None) != getattr(part, "__qualname__", None):
                raise PrunescopeError(f"{self.kind} {name!r} is registered twice: {known!r} and {part!r}")
            self._parts[name] = part  # type: ignore[assignment]
            if isinstance(part, type):
                part.name = name  # type: ignore[attr-defined]
                # Fields are the configuration: pydantic, higher up, refuses keys that are not fields.
                part.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}  # type: ignore[attr-defined]
            return part

        return add

    def __getitem__(self, name: str) -> T:
        self._load()
        try:
            return self._parts[name]
        except KeyError:
            raise choices(self.kind, name, self._parts) from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        self._load()
        return len(self._parts)

    def _load(self) -> None:
        """Import our own and third parties' parts once, at first use, so that `import prunescope` stays fast."""
        if self._complete:
            return
        self._complete = True
        if self.package is not None:
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        if self.group is not None:
            for entry in entry_points(group=self.group):
                self.register(entry.name)(entry.load())
