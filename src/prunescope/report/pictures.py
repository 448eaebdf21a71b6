"""Pixels to data URIs: test images and, over them, heat maps as small transparent PNGs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

#: Longest side of a picture on the page, and above which a picture is kept as JPEG.
_SIDE, _SMALL = 224, 96
_TINY = 32
#: Longest side of a heat map: finer ones, of the pixels themselves, are averaged.
_HEAT = 56
#: Heat from nothing to its maximum: violet, red, orange, light yellow; strength is also carried by opacity, so that
#: the picture stays visible where the map says nothing.
_STOPS = np.array([[92, 22, 127], [205, 36, 84], [250, 130, 36], [255, 240, 140]], dtype=np.float64)


def picture_uri(image: Array) -> str:
    """A uint8 image (C, H, W), one or three channels, as a data URI; large ones are made smaller."""
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    picture = Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0])
    if max(picture.size) <= _SMALL:
        return _uri(picture, "PNG", optimize=True)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return _uri(picture, "JPEG", quality=85)


def thumbnail_uri(image: Array) -> str:
    """A small uint8 image (C, H, W) among hundreds on a page: kept exactly up to 32 pixels, above that as JPEG."""
    if max(image.shape[1:]) <= _TINY:
        return picture_uri(image)
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    return _uri(Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]), "JPEG", quality=80)


def heat_uri(heat: Array) -> str:
    """A map (h, w) >= 0 at the layer's own resolution as an RGBA PNG; the browser scales it smoothly. "" when blank."""
    values = heat.astype(np.float64)
    if not np.isfinite(values).all() or values.max() <= 0:
        return ""
    if max(values.shape) > _HEAT:
        share = _HEAT / max(values.shape)
        size = (max(1, round(values.shape[1] * share)), max(1, round(values.shape[0] * share)))
        values = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX), np.float64)
    values /= values.max()
    place = np.linspace(0, 1, len(_STOPS))
    rgb = np.stack([np.interp(values, place, _STOPS[:, c]) for c in range(3)], axis=2)
    alpha = 255 * np.minimum(1.0, 1.25 * values)[..., None]
    return _uri(Image.fromarray(np.concatenate([rgb, alpha], axis=2).round().astype(np.uint8)), "PNG", optimize=True)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return file_uri(buffer.getvalue(), kind)


def file_uri(content: bytes, kind: str) -> str:
    """The content of a picture file as a data URI; "" of nothing."""
    return f"data:image/{kind.lower()};base64," + base64.b64encode(content).decode("ascii") if content else ""
