"""Judges of what looks alike for `squeezenet_units.py`: trained on groups of classes, trained on one image a class, not
trained, and colours. They see 64 pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from squeezenet_unit_labels import GROUPS, shrunk
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.compat import torchvision_module
from prunescope.core.seeds import derive
from prunescope.core.types import Array
from prunescope.engine.embedding.base import embed
from prunescope.engine.embedding.encoder import Encoder, Eye, RandomNetwork
from prunescope.engine.embedding.plain import Colour, Label
from prunescope.models.zoo import seeded

SIDE = 64
#: Neighbours that are asked for their group.
NEAREST = 5


def judges(split: ps.Split, groups: Tensor) -> dict[str, Array]:
    """{name: vectors (N, d)}, whose dot product is the similarity."""
    small = replace(split, images=shrunk(split, SIDE), segments=None)
    coarse = replace(small, labels=groups, classes=tuple(GROUPS))
    return {
        "groups": embed(Encoder(), coarse), "groups, second": embed(Encoder(kernel=5, seed=1), coarse),
        "classes": embed(Encoder(), small), "random": embed(RandomNetwork(), small), "lpips": random_lpips(small),
        "colour": embed(Colour(), small), "group label": embed(Label(), coarse),
    }  # fmt: skip


def random_lpips(split: ps.Split) -> Array:
    """LPIPS (Zhang et al. 2018, eq. 1) by an AlexNet with random weights, all channels weighed alike: vectors (N, N)
    whose squared distances are those of the maps, of unit length at every place, averaged over places and layers."""
    with seeded(derive(0, "judge", "alexnet")):
        trunk = torchvision_module().models.alexnet().features.eval()
    with torch.inference_mode():
        maps = torch.cat([_unit_maps(trunk, x) for _, x, _ in split.batches(50)])
    maps = maps - maps.mean(0)
    values, axes = torch.linalg.eigh((maps @ maps.T).double())  # so few images span at most as many directions
    return (axes * values.clamp_min(0).sqrt()).float().numpy()


def _unit_maps(trunk: nn.Module, x: Tensor) -> Tensor:
    found = []
    for layer in trunk.children():
        x = layer(x.clone())  # its ReLUs write over what they are given
        if isinstance(layer, nn.ReLU):
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            found.append(unit.flatten(1) / (x.shape[2] * x.shape[3]) ** 0.5)
    return torch.cat(found, 1)


def neighbours(vectors: Array, groups: Array) -> float:
    """Share of an image's nearest others that are of its group, mean over groups: how much of them a judge sees."""
    squares = (vectors**2).sum(1)
    distance = squares[:, None] + squares - 2 * vectors @ vectors.T
    np.fill_diagonal(distance, np.inf)
    same = groups[np.argsort(distance, axis=1)[:, :NEAREST]] == groups[:, None]
    return float(np.mean([same[groups == group].mean() for group in np.unique(groups)]))


def held_out(split: ps.Split, groups: Tensor, encoder: Encoder) -> float:
    """Balanced accuracy, over groups, of such an encoder trained on every second image, on the others."""
    coarse = replace(split, images=shrunk(split, SIDE), labels=groups, classes=tuple(GROUPS), segments=None)
    train, held = (coarse.subset(torch.arange(start, len(split), 2)) for start in (0, 1))
    with seeded(derive(encoder.seed, "eye", encoder.kernel)):
        network = Eye(len(GROUPS), 3, encoder.width, encoder.kernel)
    training = ps.Training(
        epochs=encoder.epochs, batch_size=128, optimizer="adamw", lr=2e-3, weight_decay=0.05, decay_norm_bias=False,
        schedule="onecycle", precision="32",
    )  # fmt: skip
    ps.fit(network, train, training, seed=derive(encoder.seed, "encoder"))
    with torch.inference_mode():
        right = torch.cat([network.eval()(x).argmax(1) == y for _, x, y in held.batches(50)])
    return float(torch.stack([right[held.labels == group].float().mean() for group in held.labels.unique()]).mean())
