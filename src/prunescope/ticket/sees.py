"""What the units of a network see: a row of numbers per unit, and its best patches as one small picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.correlations import channel_correlations
from prunescope.engine.sees.look import Look, kernels_of, what_filters_see
from prunescope.engine.sees.norms import behind_norms
from prunescope.engine.sees.views import COLOUR_SELECTIVE, SHAPE_SELECTIVE, LayerView
from prunescope.metrics.redundancy import clusters, redundancy

#: Side of a patch that is kept, in pixels; nine of them are about 5 kB. Smaller ones are kept as they are.
SIDE = 48
#: Up to this side patches are kept without loss.
SMALL = 16
#: Patches that fit side by side in one picture.
MOST = 100


@dataclass(frozen=True, eq=False)
class Sees:
    """What was seen.

    Attributes:
        rows: a row per unit of a 2-d convolution (`sees.csv`).
        pictures: a row per unit: `layer`, `channel`, `patches` (a WebP of the best patches side by side, the best
            first; empty for a dead unit) and `kernel` (a PNG of first-layer weights; otherwise empty); `maximised`
            where pictures were made (`ticket.maximised`).
        facts: how it was looked, as plain data.
    """

    rows: pd.DataFrame
    pictures: pd.DataFrame
    facts: dict[str, Any]

    @property
    def colour_selective(self) -> dict[str, Array]:
        """{layer: bool (channels,)}; False of dead units, which answer to nothing."""
        flags = self.rows["colour_selective"].fillna(0).astype(bool)
        return {str(layer): part.to_numpy() for layer, part in flags.groupby(self.rows["layer"].to_numpy(), sort=False)}


def look(
    network: nn.Module,
    split: Split,
    units: Sequence[tuple[str, int]],
    *,
    k: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_looked: Callable[[int, int], None] | None = None,
) -> Sees:
    """The k best patches of every unit, what in them it answers to, and which other channel answers alike.

    Answers are taken behind the norm of a convolution, where it has one.

    Args:
        on_looked: called with (images that were run, of how many).

    Raises:
        PrunescopeError: no unit belongs to a 2-d convolution, or what `what_filters_see` refuses.
    """
    layers = [layer for layer in dict.fromkeys(name for name, _ in units) if _convolution(network, layer)]
    if not layers:
        raise PrunescopeError("what units see is known of 2-d convolutions, and none is among the layers")
    places = behind_norms(network.to(device), split.shape, layers)
    options = Look(k=k, side=SIDE, seed=seed, device=device)
    views = what_filters_see(
        network, split, list(places.values()), options=options, on_batch=_counted(network, split, layers, k, on_looked)
    )
    alike = channel_correlations(network, split, list(places.values()), batch_size=options.batch_size, device=device)
    found = [_layer(network, layer, view, split, alike) for layer, view in zip(layers, views, strict=True)]
    wanted = [unit for unit in units if unit[0] in places]
    rows, pictures = (
        pd.concat(parts).set_index(["layer", "channel"], drop=False).loc[wanted] for parts in zip(*found, strict=True)
    )
    facts = {
        "patches": min(k, len(split)), "images": len(split), "shuffles": options.shuffles,
        "colour_selective_from": COLOUR_SELECTIVE, "shape_selective_from": SHAPE_SELECTIVE,
        "behind_norms": sum(layer != place for layer, place in places.items()),
    }  # fmt: skip
    return Sees(rows, pictures, facts)


def _convolution(network: nn.Module, layer: str) -> bool:
    return isinstance(network.get_submodule(layer), nn.Conv2d)


def _counted(
    network: nn.Module, split: Split, layers: Sequence[str], k: int, on_looked: Callable[[int, int], None] | None
) -> Callable[[int], None] | None:
    if on_looked is None:
        return None
    modules = map(network.get_submodule, layers)
    filters = sum(module.out_channels for module in modules if isinstance(module, nn.Conv2d))
    done, of = 0, len(split) + filters * min(k, len(split))

    def count(images: int) -> None:
        nonlocal done
        done += images
        on_looked(done, of)

    return count


def _layer(
    network: nn.Module, layer: str, view: LayerView, split: Split, alike: dict[str, Array]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `sees.csv`, and the pictures."""
    filters, dead = len(view.colour), view.extremes.dead
    kernels = kernels_of(network.get_submodule(layer), split, view.frame)
    best = [b"" if gone else strip(row, view.frame) for row, gone in zip(view.patches, dead, strict=True)]
    top = [best[0] for best in view.top_classes(1)]
    own = {"layer": layer, "channel": np.arange(filters)}
    rows = pd.DataFrame({
        **own, "live": (~dead).astype(int), "colour": view.colour, "shape": view.shape,
        "colour_selective": _flags(view.colour_selective, view.colour),
        "shape_selective": _flags(view.shape_selective, view.shape),
        "class_selectivity": view.classes, "class_selectivity_means": view.classes_of_means,
        "top_class": [None if gone else split.classes[c] for (c, _), gone in zip(top, dead, strict=True)],
        "top_images": [0 if gone else n for (_, n), gone in zip(top, dead, strict=True)],
        "chroma": kernels.get("chroma", np.full(filters, np.nan)), **_redundancy(alike[view.layer]),
        "frame": view.frame,
    })  # fmt: skip
    pictures = pd.DataFrame({
        **own, "patches": best,
        "kernel": [encoded(tile, "PNG") for tile in kernels["kernels"]] if kernels else [b""] * filters,
    })  # fmt: skip
    return rows, pictures


def _flags(selective: Array, index: Array) -> pd.Series[Any]:
    """1 or 0; missing where there is no index."""
    return pd.Series(selective.astype(int)).astype("Int64").where(np.isfinite(index))


def _redundancy(correlations: Array) -> dict[str, Any]:
    """Largest correlation with another channel, which that is, and the cluster."""
    largest = redundancy(correlations, np.ones(len(correlations), dtype=bool))
    others = np.where(np.eye(len(correlations), dtype=bool), -np.inf, np.nan_to_num(correlations, nan=-np.inf))
    partner = pd.Series(others.argmax(axis=1)).astype("Int64").where(np.isfinite(largest))
    return {"redundancy": largest, "partner": partner, "cluster": clusters(correlations)}


def strip(patches: Array, frame: int) -> bytes:
    """Patches (k, SIDE, SIDE, 3) side by side, with the pixels that the receptive field has if these are fewer."""
    side = min(frame, SIDE)
    pixels = ((np.arange(side) + 0.5) * SIDE / side).astype(int)
    return webp(np.concatenate(list(patches[:, pixels[:, None], pixels]), axis=1))


def webp(pixels: Array) -> bytes:
    """The file of a picture (side, width, 3), without loss where it is small."""
    kept: dict[str, Any] = {"lossless": True} if len(pixels) <= SMALL else {"quality": 75}
    return encoded(pixels, "WEBP", **kept)


def encoded(pixels: Array, kind: str, **options: Any) -> bytes:
    """The file of a uint8 picture (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()
