"""One artifact to be made from others, and the key that it is stored under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

#: Raise when the meaning of stored artifacts changes; all keys change with it.
FORMAT = 1

Kind = Literal["data", "train", "scan", "prune", "retrain", "probe"]


@dataclass(frozen=True, eq=False)
class Cell:
    """One artifact to be made from others.

    Attributes:
        kind: `data`, `train`, `scan`, `prune`, `retrain` or `probe`.
        params: canonical JSON-able parameters; defaults are left out.
        parents: {role: cell}.
        label: for people; not part of the key.
    """

    kind: Kind
    params: Mapping[str, Any]
    parents: Mapping[str, Cell] = field(default_factory=dict)
    label: str = ""

    @cached_property
    def key(self) -> str:
        """16 hex digits: a hash of kind, parameters, the parents' keys and the format version."""
        parts = [FORMAT, self.kind, self.params, {role: parent.key for role, parent in self.parents.items()}]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder(self) -> str:
        """Name of its folder in the store."""
        return f"{self.kind}-{self.key}"
