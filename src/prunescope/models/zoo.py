"""Names to networks: our own, torchvision's, timm's and the user's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunescope.core.errors import PrunescopeError, choices, missing_extra
from prunescope.core.imports import call, imported
from prunescope.core.registry import Registry
from prunescope.core.seeds import derive

#: Network factories `(classes, channels) -> nn.Module` by name.
models: Registry[Callable[..., nn.Module]] = Registry("model", group="prunescope.models", package="prunescope.models")


def build_model(config: Mapping[str, Any] | str, *, classes: int, channels: int, seed: int) -> nn.Module:
    """A network in training mode, on the CPU, initialised from `seed` alone.

    Args:
        config: a name, or a mapping with `name` and options. Names are registered ones (`resnet20`),
            `torchvision:NAME` for any of its classification models (options `pretrained`, `small_stem`: see
            `torchvision_model`), `timm:NAME` (option `pretrained`), or `package.module:function` of the user's, which
            is called with the remaining options and, where it takes them, `classes` and `channels`.
            Option `weights` (all names): a file that is loaded strictly once the network is built.
        classes: number of logits.
        channels: channels of the images.
        seed: equal seeds give equal bits; the global random state is left as it was.

    >>> model = build_model("resnet8", classes=10, channels=3, seed=0)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Raises:
        PrunescopeError: unknown name or option, package not installed, or weights that do not fit.
    """
    options = {"name": config} if isinstance(config, str) else dict(config)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise PrunescopeError(f"model: expected a name or a mapping with `name`, got {config!r}")
    weights = options.pop("weights", None)
    with seeded(derive(seed, "init")):
        model = call(_factory(name), options, {"classes": classes, "channels": channels}, f"model {name!r}")
    if not isinstance(model, nn.Module):
        raise PrunescopeError(f"model {name!r} must return an nn.Module, got {type(model).__name__}")
    if weights is not None:
        from prunescope.models.weights import load_weights, read_weights

        load_weights(model, read_weights(Path(weights)), where=str(weights))
    return model.train()


def _factory(name: str) -> Callable[..., nn.Module]:
    if ":" not in name:
        if name not in models:
            raise choices("model", name, [*models, "torchvision:NAME", "timm:NAME", "package.module:function"])
        return models[name]
    family, _, rest = name.partition(":")
    if family == "torchvision":
        from prunescope.models.torchvision import torchvision_factory

        return torchvision_factory(rest)
    if family == "timm":
        return _timm_factory(rest)
    return imported(name, "model")


def _timm_factory(name: str) -> Callable[..., nn.Module]:
    try:
        import timm
    except ImportError:
        raise missing_extra("timm", "timm", f"model 'timm:{name}'") from None
    if not timm.is_model(name):
        raise choices("timm model", name, timm.list_models())

    def factory(classes: int, channels: int, pretrained: bool = False) -> nn.Module:
        return timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels)

    return factory


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global CPU random state of torch, numpy and Python set from `seed` inside, and restored on leaving.

    Constructors of layers draw from the global state and cannot be given a generator.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state is the point)
    try:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would also seed the accelerators, which are not restored here.
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
