"""Pruned networks from disk: a ticket's folder, or a checkpoint in a study's store."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.configure import configure
from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.files import read_json
from prunescope.core.mask import Mask
from prunescope.data.load import load_data
from prunescope.data.sources import sources
from prunescope.data.split import Normalisation
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.zoo import build_model
from prunescope.study.folder import read_folder
from prunescope.study.store import Store
from prunescope.ticket.blueprint import Blueprint
from prunescope.ticket.run import read_ticket

Model = nn.Module | Mapping[str, Any] | None
#: Images on which networks are compared.
IMAGES = 64


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned network.

    Attributes:
        network: with its weights, zeros where they are pruned; in eval mode, on the CPU.
        dense: the same architecture, untrained: what it costs is what the dense network costs.
        images: real ones, normalised, (N, C, H, W); None when there are none.
        source: where the images are from, in words.
    """

    network: nn.Module
    dense: nn.Module
    mask: Mask
    blueprint: Blueprint
    images: Tensor | None
    source: str


def read_pruned(
    folder: Path, *, model: nn.Module | Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
) -> Pruned:  # fmt: skip
    """Read a ticket, or a `prune` or `retrain` cell of a study (then with images from the study's store).

    Args:
        model: a network of the architecture, or its name and options, where it is of the user's own code.
        data: where images are from; None: the data that a ticket names, if it can be read.

    Raises:
        PrunescopeError: neither of the two, damaged, not pruned, or a network that only the user can build.
    """
    if (folder / "ticket.json").is_file():
        return _ticket(folder, model, data)
    if (folder / "cell.json").is_file():
        return _cell(folder, model, data)
    raise PrunescopeError(
        f"{folder} holds no ticket (ticket.json), and is no checkpoint of a study (cells/retrain-... in its folder)"
    )


def _ticket(folder: Path, model: Model, data: Mapping[str, Any] | None) -> Pruned:
    blueprint, facts = read_ticket(folder)
    images, source = None, "noise"
    if data is not None:
        images, source = _images(data, blueprint)
    elif facts["data"] is not None:
        images, source = _named(facts, blueprint, folder)
    return _pruned(folder, blueprint, model, images, source)


def _named(facts: Mapping[str, Any], blueprint: Blueprint, folder: Path) -> tuple[Tensor | None, str]:
    """Images of the data that the ticket was made with, where they are still there."""
    try:
        spec = facts["job"]["data"]
        if str(spec["name"]).partition(":")[0] not in sources:
            raise PrunescopeError("it comes from a function of your own, and files do not decide what code runs")
        return _images(spec, blueprint)
    except (PrunescopeError, OSError, KeyError, TypeError) as error:
        warnings.warn(f"the ticket's data cannot be read here ({error}): name it with --data", PrunescopeWarning, 2)
        return None, "noise"


def _images(spec: Mapping[str, Any], blueprint: Blueprint) -> tuple[Tensor, str]:
    data = load_data(spec)
    if data.val.shape != blueprint.shape:
        raise PrunescopeError(f"data {data.name!r} has images of {data.val.shape}, the network wants {blueprint.shape}")
    chosen = data.val.subset(list(range(min(IMAGES, len(data.val)))))
    return chosen.normalisation(chosen.images[:]), f"validation images of {data.name}"


def _cell(folder: Path, model: Model, data: Mapping[str, Any] | None) -> Pruned:
    cell, root = read_json(folder / "cell.json"), folder.resolve().parent.parent
    study, _, _ = read_folder(root)
    try:
        described = Path(str(cell["parents"]["data"])).name
    except (KeyError, TypeError):
        raise PrunescopeError(f"{folder} is no checkpoint: pruned networks are in cells/retrain-...") from None
    store = Store(root)
    facts = store.json(described, "data.json")
    spec = {"model": study.model, "classes": len(facts["classes"]), "shape": facts["shape"]}
    blueprint = configure(Blueprint, spec, str(store.path(described)))
    if study.model.get("pretrained") and blueprint.shape[0] == 3 and str(study.model["name"]) in _PORTED:
        spec["attributes"] = {"transform_input": True}
        blueprint = configure(Blueprint, spec, "study")
    images, source = _pictures(store.path(described) / "pictures.npz") if data is None else _images(data, blueprint)
    return _pruned(folder, blueprint, model, images, source)


#: Networks whose pretrained weights were made for images normalised otherwise, which the network itself sees to.
_PORTED = ("torchvision:googlenet", "torchvision:inception_v3")


def _pictures(path: Path) -> tuple[Tensor, str]:
    """Images in a study's store, normalised by their own statistics."""
    try:
        with np.load(path) as stored:
            images = torch.from_numpy(stored["images"][:IMAGES])
    except (OSError, ValueError, KeyError) as error:
        raise PrunescopeError(f"{path} is damaged ({error})") from None
    return Normalisation.of(images)(images), "test images in the study's store"


def _pruned(
    folder: Path, blueprint: Blueprint, model: Model, images: Tensor | None, source: str
) -> Pruned:  # fmt: skip
    checkpoint = Checkpoint.load(folder)
    if checkpoint.mask is None:
        raise PrunescopeError(f"{folder} holds a network of which nothing was pruned")
    if isinstance(model, Mapping):
        model = build_model(model, classes=blueprint.classes, channels=blueprint.shape[0], seed=0)
    dense = blueprint.build(copy.deepcopy(model)).cpu()
    network = checkpoint.into(copy.deepcopy(dense))
    return Pruned(network, dense, checkpoint.mask, blueprint, images, source)
