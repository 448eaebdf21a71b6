"""The protocol of an embedding, and the one function that embeds a split, once."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from prunescope.core.configure import canonical, named
from prunescope.core.errors import PrunescopeError
from prunescope.core.files import atomic_file
from prunescope.core.registry import Registry
from prunescope.core.types import Array
from prunescope.data.cache import cache_folder
from prunescope.data.split import Split

#: Embeddings by name. Register a frozen dataclass that subclasses `Embedding`.
embeddings: Registry[type[Embedding]] = Registry(
    "embedding", group="prunescope.embeddings", package="prunescope.engine.embedding"
)
_FORMAT = "embedding 1"


class Embedding(ABC):
    """Options of one way to embed. Subclass as a frozen dataclass, register, implement `vectors`.

    Class attributes:
        scaling: what is done to the vectors: `centred` (their mean taken off, then each of length 1), `unit` (only
            the latter), or `none`.
        kept: whether they are worth a file in the cache.
        summary: one line.
    """

    name: ClassVar[str]
    scaling: ClassVar[Literal["centred", "unit", "none"]] = "centred"
    kept: ClassVar[bool] = True
    summary: ClassVar[str] = ""

    @abstractmethod
    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        """(N, d), float32, on the CPU. The same for equal options and images; the global RNG is left alone."""

    def check(self, split: Split) -> None:
        """Refuse, before anything is computed, what cannot embed these images: a package or a file that is missing."""
        self.facts()

    def facts(self) -> str:
        """What the vectors depend on besides the options and the images: the content of a file of weights."""
        return ""


def embedding_of(spec: object, where: str = "embedding") -> Embedding:
    """The embedding that a name, or a mapping with `name` and options, stands for; an embedding stands for itself.

    Raises:
        PrunescopeError: an unknown name or option.
    """
    return spec if isinstance(spec, Embedding) else named(embeddings, spec, where)


def embed(embedding: Embedding, split: Split, *, batch_size: int = 256, device: torch.device | str = "cpu") -> Array:
    """The split's images as vectors, float32 (N, d); what took work is kept in the cache's folder and read from there.

    Raises:
        PrunescopeError: an empty split, vectors that are not finite, what the embedding refuses, a cache that cannot
            be written.
    """
    if not len(split):
        raise PrunescopeError(f"embedding {embedding.name!r}: the split has no images")

    def make() -> Array:
        found = embedding.vectors(split, batch_size=batch_size, device=device)
        _require_sound(found, embedding.name, split)
        return _scaled(found, embedding.scaling)

    return _kept(_path(embedding, split), len(split), make) if embedding.kept else make()


def _require_sound(vectors: Tensor, name: str, split: Split) -> None:
    if vectors.ndim != 2 or len(vectors) != len(split):
        raise PrunescopeError(
            f"embedding {name!r} gives {tuple(vectors.shape)} for {len(split)} images; it takes one vector for each, "
            f"({len(split)}, d)"
        )
    wrong = (~vectors.isfinite().all(1)).nonzero()[:, 0]
    if len(wrong):
        raise PrunescopeError(
            f"embedding {name!r}: the vectors of {len(wrong)} of {len(split)} images are not finite, the first of "
            f"image {str(split.ids[int(wrong[0])])!r}"
        )


def pixels(split: Split, batch_size: int, device: torch.device | str) -> Iterator[Tensor]:
    """float32 images (B, C, H, W) in [0, 1], in order."""
    for start in range(0, len(split), batch_size):
        yield split.images[start : start + batch_size].to(device).float().div_(255)


def _scaled(vectors: Tensor, scaling: str) -> Array:
    found = vectors.double()
    if scaling == "centred":
        found = found - found.mean(0)
    if scaling != "none":
        found = found / found.norm(dim=1, keepdim=True).clamp_min(1e-12)
    scaled: Array = found.float().numpy()
    return scaled


def _path(embedding: Embedding, split: Split) -> Path:
    told = json.dumps([_FORMAT, canonical(embedding), embedding.facts(), split.fingerprint], sort_keys=True)
    return cache_folder() / f"embedding-{hashlib.sha256(told.encode()).hexdigest()[:20]}.npy"


def _kept(path: Path, rows: int, make: Callable[[], Array]) -> Array:
    """The array in the file; made, and written, when it is not there or damaged. Of several processes one makes it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = _read(path, rows)
            if found is None:
                found = make()
                with atomic_file(path) as temporary, temporary.open("wb") as file:
                    np.save(file, found, allow_pickle=False)
            return found
    except OSError as error:
        raise PrunescopeError(
            f"cannot write the cache {path}: {error}; name another folder in PRUNESCOPE_CACHE"
        ) from error


def _read(path: Path, rows: int) -> Array | None:
    try:
        found: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = found.ndim == 2 and len(found) == rows and found.dtype == np.float32 and bool(np.isfinite(found).all())
    return found if sound else None
