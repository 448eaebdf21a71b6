"""Pixels to data URIs: test images and, over them, heat maps as small transparent PNGs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

#: Dark red to yellow; transparency carries the value, so that the picture stays visible under a weak map.
_COLD, _HOT = np.array([200.0, 30.0, 60.0]), np.array([255.0, 230.0, 60.0])


def picture_uri(image: Array) -> str:
    """A uint8 image (C, H, W), one or three channels, as a PNG data URI."""
    pixels = image.transpose(1, 2, 0)
    return _uri(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]))


def heat_uri(heat: Array) -> str:
    """A map (h, w) >= 0 at the layer's own resolution as an RGBA PNG; the browser scales it smoothly. "" when blank."""
    values = heat.astype(np.float64)
    if not np.isfinite(values).all() or values.max() <= 0:
        return ""
    values = (values / values.max())[..., None]
    rgb = _COLD + (_HOT - _COLD) * values
    return _uri(Image.fromarray(np.concatenate([rgb, 235 * values], axis=2).round().astype(np.uint8), "RGBA"))


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
