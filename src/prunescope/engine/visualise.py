"""Images made to excite a filter: feature visualisation by activation maximisation.

The image is a spectrum of waves, scaled by 1/f as in photographs, with decorrelated colours, squeezed into the pixels'
range, and shifted a little at each step so that no answer hangs on single pixels (Olah, Mordvintsev & Schubert 2017,
"Feature Visualization"; parameters as in their code, Lucid).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array
from prunescope.data.split import Normalisation
from prunescope.engine.extremes import as_maps
from prunescope.engine.untouched import untouched
from prunescope.engine.upto import output_of

#: Square root of the covariance of ImageNet's colours, as in Lucid: columns are what varies most, then less.
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
START, GAIN = 0.01, 0.25


@dataclass(frozen=True, eq=False)
class Visualisation:
    """One image for each filter that was asked for.

    Attributes:
        images: uint8 (F, H, W, 3); grey where the network reads one channel.
        activations: float32 (F,), the filter's largest activation on its image.
    """

    images: Array
    activations: Array


@dataclass(frozen=True)
class Ascent:
    """How images are made.

    Attributes:
        steps: of Adam.
        rate: its learning rate.
        jitter: the image is shifted by up to so many pixels at each step, either way.
        seed: of the first images and the shifts.
        device: where the network runs.
    """

    steps: int = 256
    rate: float = 0.05
    jitter: int = 4
    seed: int = 0
    device: torch.device | str = "cpu"


def visualise(
    model: nn.Module,
    layer: str,
    filters: Sequence[int],
    shape: tuple[int, int, int],
    normalisation: Normalisation,
    *,
    options: Ascent | None = None,
) -> Visualisation:
    """For each filter of a layer an image of `shape` (C, H, W) on which its largest activation is as large as can be.

    All filters are done in one batch, but each image is that of its filter alone. The network runs no further than the
    layer, at any size of image that it takes that far: a side of twice the receptive field is enough. The model is
    left as it was.

    Raises:
        PrunescopeError: images that are neither grey nor RGB, or a filter or a layer that does not exist.
    """
    options = options or Ascent()
    if shape[0] not in (1, 3):
        raise PrunescopeError(f"images can be made grey or RGB, got {shape[0]} channels")
    model.to(options.device)
    with untouched(model), torch.enable_grad():
        spectrum = _first(layer, filters, shape, options).requires_grad_()
        optimiser = torch.optim.Adam([spectrum], lr=options.rate)
        shifts = _shifts(options)
        for shift in shifts.tolist():
            x = normalisation(_pixels(spectrum, shape).roll(shift, (2, 3)))
            peaks = _middle(_maps(model, layer, filters, x)).amax((1, 2))
            (spectrum.grad,) = torch.autograd.grad(-peaks.sum(), spectrum)
            optimiser.step()
        with torch.no_grad():
            images = _pixels(spectrum, shape).round().byte()
            found = _maps(model, layer, filters, normalisation(images)).amax((1, 2))
    pictures = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
    return Visualisation(pictures.cpu().numpy(), found.cpu().numpy())


def _first(layer: str, filters: Sequence[int], shape: tuple[int, int, int], options: Ascent) -> Tensor:
    """Random waves (F, C, H, W // 2 + 1, 2), each filter's own whichever others there are."""
    size = (shape[0], shape[1], shape[2] // 2 + 1, 2)
    drawn = [torch.randn(size, generator=torch_generator(options.seed, "waves", layer, index)) for index in filters]
    return (START * torch.stack(drawn)).to(options.device)


def _shifts(options: Ascent) -> Tensor:
    generator = torch_generator(options.seed, "jitter")
    return torch.randint(-options.jitter, options.jitter + 1, (options.steps, 2), generator=generator)


def _pixels(spectrum: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Waves -> images (F, C, H, W), 0 to 255."""
    _, height, width = shape
    down = torch.fft.fftfreq(height, device=spectrum.device)[:, None]
    across = torch.fft.rfftfreq(width, device=spectrum.device)
    scale = (height * width) ** 0.5 / torch.hypot(down, across).clamp_min(1 / max(height, width))
    waves = torch.view_as_complex(spectrum * scale[..., None])
    images = GAIN * torch.fft.irfft2(waves, s=(height, width))
    if shape[0] == 3:
        colours = torch.tensor(COLOURS, device=spectrum.device)
        images = torch.einsum("rc,fchw->frhw", colours / colours.norm(dim=0).max(), images)
    return 255 * torch.sigmoid(images)


def _middle(maps: Tensor) -> Tensor:
    """The middle third of the rows and columns: there the pattern comes to lie, and no shift loses it."""
    for axis, size in enumerate(maps.shape[1:], start=1):
        maps = maps.narrow(axis, size // 3, max(1, size - 2 * (size // 3)))
    return maps


def _maps(model: nn.Module, layer: str, filters: Sequence[int], x: Tensor) -> Tensor:
    """Each image's map of its own filter, (F, h, w)."""
    maps = as_maps(output_of(model, layer, x), layer)
    wrong = [index for index in filters if not 0 <= index < maps.shape[1]]
    if wrong:
        raise PrunescopeError(f"layer {layer!r} has filters 0 to {maps.shape[1] - 1}, got {wrong[0]}")
    return maps[torch.arange(len(maps)), list(filters)]
