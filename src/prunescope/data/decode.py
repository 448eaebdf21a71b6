"""Image files to uint8 arrays of one size, in threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_CHUNK = 32  # files per task: a task costs as much as decoding a small image
_LONG = 5000  # files from which on a progress bar is worth its lines


@dataclass(frozen=True)
class Decoding:
    """How a file becomes an array: shorter side resized to `size` (antialiased bilinear), centre cut out.

    Attributes:
        size: pixels per side of the result.
        channels: 3 (RGB) or 1 (luminance).
    """

    size: int
    channels: int = 3

    def __post_init__(self) -> None:
        if self.size < 1:
            raise PrunescopeError(f"size must be at least 1 pixel, got {self.size}")
        if self.channels not in (1, 3):
            raise PrunescopeError(f"channels must be 1 or 3, got {self.channels}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.size, self.size

    def __call__(self, path: Path) -> Array:
        """uint8 (C, size, size). JPEGs are decoded at a fraction of their size when twice `size` is still left.

        Raises:
            PrunescopeError: the file is missing, truncated or not an image; names it.
        """
        try:
            with Image.open(path) as image:
                pixels = np.asarray(self._fitted(image), np.uint8)
        except MemoryError:
            raise
        except Exception as error:  # readers of formats raise whatever a broken file runs them into
            raise PrunescopeError(f"cannot read image {path}: {error}") from error
        return pixels.transpose(2, 0, 1) if self.channels == 3 else pixels[None]

    def labels(self, values: Array) -> Array:
        """Numbers of pixels (H, W), int32, cut and resized as the image is, to the nearest pixel: (size, size)."""
        if values.shape == (self.size, self.size):
            return values
        fitted = ImageOps.fit(
            Image.fromarray(values.astype(np.int32)), (self.size, self.size), Image.Resampling.NEAREST
        )
        return np.asarray(fitted, np.int32)

    def _fitted(self, image: Image.Image) -> Image.Image:
        mode = "RGB" if self.channels == 3 else "L"
        image.draft(None, (2 * self.size, 2 * self.size))
        upright = _eight_bit(ImageOps.exif_transpose(image)).convert(mode)
        if upright.size == (self.size, self.size):
            return upright
        return ImageOps.fit(upright, (self.size, self.size), Image.Resampling.BILINEAR)


def decode(paths: Sequence[Path], decoding: Decoding, out: Array | None = None) -> Array:
    """uint8 (N, C, size, size) of all files, in order.

    Args:
        out: array (a memory map, say) to write into instead of a new one.

    Raises:
        PrunescopeError: a file cannot be read; names it.
    """
    if out is None:
        out = np.empty((len(paths), *decoding.shape), np.uint8)
    made = out

    def work(start: int) -> int:
        part = paths[start : start + _CHUNK]
        for i, path in enumerate(part, start):
            made[i] = decoding(path)
        return len(part)

    Image.init()  # is not safe to happen first inside of threads
    with _progress(len(paths)) as advance, ThreadPoolExecutor(workers()) as pool:
        try:
            for done in pool.map(work, range(0, len(paths), _CHUNK)):
                advance(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return made


def workers() -> int:
    """Threads: one per core that this process may use, at most 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 16)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey values scaled, which PIL would clip; palettes resolved with their transparency."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A function to call with the number of files done; draws only for long work that a person watches."""
    if total <= _LONG or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("decoding images", total=total)
        yield lambda done: bar.advance(task, done)
