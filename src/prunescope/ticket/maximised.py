"""A picture made to excite each unit that was looked at, to lie beside its patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.sees.norms import behind_norms
from prunescope.engine.visualise import Ascent, visualise
from prunescope.ticket.sees import Sees, webp

#: Longest side of a picture that is kept, in pixels.
SIDE = 64
#: Pixels of all pictures that are made at once, which bounds memory: 2 of 224 x 224, 128 of 32 x 32.
AT_ONCE = 2**17


def maximised(
    network: nn.Module,
    split: Split,
    sees: Sees,
    *,
    steps: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_made: Callable[[int, int], None] | None = None,
) -> Sees:
    """What was seen, with a column `maximised` in its pictures: WebPs, each by so many steps of gradient ascent.

    Answers are taken where `look` took them. A picture has twice the side of the layer's receptive field, or the
    images' own where that is less or the network takes no other. Of a layer for which the network cannot be run or
    differentiated there is none (empty bytes), and `facts["maximise"]["failed"]` says why.

    Args:
        split: such images as the network reads.
        on_made: called with (pictures that are done, of how many).
    """
    frames = {layer: int(frame) for layer, frame in zip(sees.rows["layer"], sees.rows["frame"], strict=True)}
    found: dict[tuple[str, int], bytes] = {}
    failed, done = dict[str, str](), 0
    for layer, place in behind_norms(network.to(device), split.shape, list(frames)).items():
        channels = [int(channel) for name, channel in sees.pictures.index if name == layer]

        def count(made: int, before: int = done) -> None:
            if on_made is not None:
                on_made(before + made, len(sees.pictures))

        options = Ascent(steps=steps, jitter=min(Ascent.jitter, frames[layer] // 3), seed=seed, device=device)
        try:
            made = _Layer(network, place, split, options, count).pictures(channels, 2 * frames[layer])
            found |= {(layer, channel): picture for channel, picture in zip(channels, made, strict=True)}
        except PrunescopeError as error:
            failed[layer] = str(error)
        except Exception as error:  # whatever the network's own code raises, or autograd about it
            failed[layer] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        done += len(channels)
    column = [found.get(unit, b"") for unit in sees.pictures.index]
    told = {"steps": steps, "failed": failed}
    return replace(sees, pictures=sees.pictures.assign(maximised=column), facts={**sees.facts, "maximise": told})


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer of which pictures are made.

    Attributes:
        place: module whose answers are the layer's.
        on_made: called with how many are done.
    """

    network: nn.Module
    place: str
    split: Split
    options: Ascent
    on_made: Callable[[int], None]

    def pictures(self, channels: Sequence[int], side: int) -> list[bytes]:
        """At the side that is enough; where the network does not take it, at that of the images."""
        colours, height, width = self.split.shape
        enough = (colours, min(side, height), min(side, width))
        try:
            return self._made(channels, enough)
        except Exception:
            if enough == self.split.shape:
                raise
            return self._made(channels, self.split.shape)

    def _made(self, channels: Sequence[int], shape: tuple[int, int, int]) -> list[bytes]:
        found: list[bytes] = []
        size = max(1, AT_ONCE // (shape[1] * shape[2]))
        for start in range(0, len(channels), size):
            part = channels[start : start + size]
            made = visualise(self.network, self.place, part, shape, self.split.normalisation, options=self.options)
            found += [_kept(Image.fromarray(image)) for image in made.images]
            self.on_made(len(found))
        return found


def _kept(image: Image.Image) -> bytes:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)  # larger ones only
    return webp(np.asarray(image))
