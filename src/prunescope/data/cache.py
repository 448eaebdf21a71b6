"""Images decoded once: kept as one array file, read or memory-mapped ever after."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.files import atomic_file
from prunescope.data.decode import Array, Decoding, decode
from prunescope.data.split import Images

Storage = Literal["auto", "memory", "memmap", "stream"]

_SMALL = 1 << 30  # bytes up to which `auto` reads into memory
_DIGEST = 16  # bytes at the end of the file, after what numpy reads


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images decoded whenever they are asked for: for sets that fit neither into memory nor on the cache's disk."""

    paths: tuple[Path, ...]
    decoding: Decoding

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.paths), *self.decoding.shape

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Tensor:
        chosen = np.arange(len(self.paths))[index if isinstance(index, slice) else np.asarray(index)]
        return torch.from_numpy(decode([self.paths[i] for i in np.atleast_1d(chosen)], self.decoding))


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """Some of other images, in an order of their own, without copying them."""

    images: Images
    positions: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.positions), *self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Tensor:
        return self.images[self.positions[index]]


def load_images(
    root: Path, files: Sequence[str], decoding: Decoding, *, storage: Storage = "auto", cache: bool = True
) -> Images:
    """The images of `files` (paths below `root`), in that order.

    Args:
        storage: `memory`; `memmap`: pages of the cache file, read and copied on demand; `stream`: decoded on
            demand, every time, and nothing is cached; `auto`: memory below 1 GiB, else memmap.
        cache: keep the decoded images in `cache_folder()`; without it, images are decoded into memory.

    Raises:
        PrunescopeError: an unreadable image, an unknown storage, a cache folder that cannot be written.
    """
    if storage not in ("auto", "memory", "memmap", "stream"):
        raise choices("storage", storage, ("auto", "memory", "memmap", "stream"))
    if storage == "stream":
        return StreamedImages(tuple(root / file for file in files), decoding)
    if not cache:
        if storage == "memmap":
            raise PrunescopeError("storage: memmap needs the cache; leave out  cache: false")
        return torch.from_numpy(decode([root / file for file in files], decoding))
    if storage == "auto":
        storage = "memory" if len(files) * int(np.prod(decoding.shape)) < _SMALL else "memmap"
    path = cache_folder() / f"images-{fingerprint(root, files, 'decoded 1', *astuple(decoding))}.npy"
    shape = (len(files), *decoding.shape)
    mapped = storage == "memmap"
    images = torch.from_numpy(
        cached_array(path, shape, lambda out: decode([root / f for f in files], decoding, out), mapped=mapped)
    )
    return ChosenImages(images, torch.arange(len(files))) if mapped else images


def choose(images: Images, positions: Tensor) -> Images:
    """`images[positions]`, of the same kind: a copy in memory, or a view that looks them up or decodes them."""
    if isinstance(images, StreamedImages):
        return StreamedImages(tuple(images.paths[i] for i in positions.tolist()), images.decoding)
    if isinstance(images, ChosenImages):
        return ChosenImages(images.images, images.positions[positions])
    return images[positions]


def cache_folder() -> Path:
    """`$PRUNESCOPE_CACHE`, else `~/.cache/prunescope`."""
    named = os.environ.get("PRUNESCOPE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "prunescope"


def fingerprint(root: Path, files: Sequence[str], *options: object) -> str:
    """20 hex digits over path below `root`, size and time of change of every file, and the options."""
    digest = hashlib.sha256(repr(options).encode())
    for file in files:
        try:
            status = os.stat(os.path.join(root, file))  # much faster than by pathlib
        except OSError as error:
            raise PrunescopeError(f"cannot read image {root / file}: {error.strerror}") from error
        digest.update(f"\0{file}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def cached_array(
    path: Path, shape: tuple[int, ...], fill: Callable[[Array], object], *, dtype: str = "uint8", mapped: bool = False
) -> Array:
    """The array kept in the file `path` (in `cache_folder()`), made by `fill(empty array)` when it is not yet there.

    A file that was cut short, or (unless it is mapped: every byte is compared) changed, is made again.

    Raises:
        PrunescopeError: the file cannot be written.
    """
    found = _read(path, shape, dtype, mapped=mapped)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # of several processes one makes it, the others wait
            found = _read(path, shape, dtype, mapped=mapped)
            if found is not None:
                return found
            with atomic_file(path) as temporary:
                _write(temporary, shape, dtype, fill)
    except OSError as error:
        hint = "name another folder in PRUNESCOPE_CACHE, or go on with  cache: false"
        raise PrunescopeError(f"cannot write the cache {path}: {error}; {hint}") from error
    made = _read(path, shape, dtype, mapped=mapped)
    if made is None:
        raise PrunescopeError(f"the cache {path} does not read back what was written: is the disk sound?")
    return made


def _write(path: Path, shape: tuple[int, ...], dtype: str, fill: Callable[[Array], object]) -> None:
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    fill(out)
    out.flush()
    digest = _digest(out)
    del out
    with path.open("ab") as file:
        file.write(digest)


def _read(path: Path, shape: tuple[int, ...], dtype: str, *, mapped: bool) -> Array | None:
    """The array, or None when the file is missing, cut short or (read into memory: every byte) not as written."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            found, _, kind = np.lib.format.read_array_header_1_0(file)
            file.seek(file.tell() + int(np.prod(shape)) * kind.itemsize)
            digest = file.read()
        if found != shape or kind != np.dtype(dtype) or len(digest) != _DIGEST:
            return None
        array: Array = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if mapped or _digest(array) == digest else None


def _digest(array: Array) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in np.array_split(array, max(1, len(array) // 4096)):
        digest.update(np.ascontiguousarray(part).data)
    return digest.digest()
