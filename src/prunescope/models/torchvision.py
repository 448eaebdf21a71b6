"""torchvision's classification networks, with their heads and stems fitted to the data at hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

from torch import nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError, choices
from prunescope.models.layers import is_auxiliary, replace_module
from prunescope.models.weights import load_weights, read_weights

IMAGENET_CLASSES = 1000
_AUXILIARY = ("googlenet", "inception_v3")


def torchvision_factory(name: str) -> Callable[..., nn.Module]:
    """The factory for the torchvision classification network called `name`.

    Its options:
        pretrained: true for torchvision's own ImageNet weights, which it downloads; or the path of such a file
            (1,000 classes). The head is then replaced by a new one. They expect images normalised like ImageNet's;
            a split's own normalisation is close to that for natural photographs.
        small_stem: for images of 32x32 or so: the stem's 7x7 convolution of stride 2 becomes 3x3 of stride 1 and the
            pooling after it is left out, or stays with `pool`. ResNets (ResNeXt and wide ones too) and GoogLeNet only.

    GoogLeNet and Inception keep their auxiliary heads: in training mode they return them beside the logits.
    """
    library = torchvision_module("torchvision.models")
    known = library.list_models(module=library)
    if name not in known:
        raise choices("torchvision model", name, known)

    def factory(
        classes: int, channels: int, pretrained: bool | str | Path = False, small_stem: bool | str = False
    ) -> nn.Module:
        if pretrained is False:
            model = library.get_model(name, weights=None, num_classes=classes, **_arguments(name))
        else:
            model = _pretrained(library, name, pretrained)
            _replace_heads(model, classes)
        if channels != 3:
            _replace_input(model, channels, trained=pretrained is not False)
        if small_stem:
            _shrink_stem(model, name, small_stem)
        return model

    return factory


def _arguments(name: str) -> dict[str, Any]:
    # Without init_weights the two warn that their (slow, truncated normal) initialisation may change one day.
    return {"aux_logits": True, "init_weights": True} if name in _AUXILIARY else {}


def _pretrained(library: Any, name: str, source: bool | str | Path) -> nn.Module:
    auxiliary = {"aux_logits": True} if name in _AUXILIARY else {}
    if not isinstance(source, bool):
        model = library.get_model(name, weights=None, num_classes=IMAGENET_CLASSES, **_arguments(name))
        if name in _AUXILIARY:
            model.transform_input = True  # as torchvision does for its weights, which were ported from TensorFlow
        load_weights(model, read_weights(Path(source)), where=str(source))
        return model
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*auxiliary heads.*")  # they get new last layers anyway
            return library.get_model(name, weights="DEFAULT", **auxiliary)
    except (OSError, RuntimeError) as error:
        raise PrunescopeError(
            f"model 'torchvision:{name}': its ImageNet weights could not be downloaded ({error}); "
            "fetch the file elsewhere and give its path as `pretrained`"
        ) from error


def _replace_heads(model: nn.Module, classes: int) -> None:
    """New last layers for `classes`: of the network, and of each auxiliary head."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    outputs = [(name, layer) for name, layer in layers if _width(layer) == IMAGENET_CLASSES]
    # Some networks have inner layers that are 1,000 wide by chance: of the main part only the last is the head.
    main = [pair for pair in outputs if not is_auxiliary(pair[0])][-1:]
    for name, layer in main + [pair for pair in outputs if is_auxiliary(pair[0])]:
        replace_module(model, name, _resized(layer, classes))
    if hasattr(model, "num_classes"):
        model.num_classes = classes  # type: ignore[assignment]


def _width(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _resized(layer: nn.Linear | nn.Conv2d, classes: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
    return nn.Conv2d(layer.in_channels, classes, layer.kernel_size, bias=layer.bias is not None)  # type: ignore[arg-type]


def _replace_input(model: nn.Module, channels: int, trained: bool) -> None:
    """A first convolution for images of `channels`, with the variance of its output unchanged."""
    name, old = _first_conv(model)
    new = _like(old, in_channels=channels)
    if trained:  # a grey image gets the response that its copy in three channels had
        new.weight.data = old.weight.data.mean(1, keepdim=True).repeat(1, channels, 1, 1) * 3 / channels
    else:
        nn.init.normal_(new.weight, std=old.weight.std().item() * sqrt(old.in_channels / channels))
    if old.bias is not None and new.bias is not None:
        new.bias.data = old.bias.data.clone()
    replace_module(model, name, new)
    if getattr(model, "transform_input", False):
        model.transform_input = False  # type: ignore[assignment]  # it reads three channels


def _shrink_stem(model: nn.Module, name: str, how: bool | str) -> None:
    if how not in (True, "pool"):
        raise choices("small_stem", how, ["true", "false", "pool"], f"model 'torchvision:{name}'")
    pooling = {"ResNet": "maxpool", "GoogLeNet": "maxpool1"}.get(type(model).__name__)
    if pooling is None:
        raise PrunescopeError(f"model 'torchvision:{name}': small_stem is for ResNets and GoogLeNet only")
    where, old = _first_conv(model)
    new = _like(old, kernel_size=3, stride=1, padding=1)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    replace_module(model, where, new)
    if how != "pool":
        replace_module(model, pooling, nn.Identity())


def _first_conv(model: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def _like(conv: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    same = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return nn.Conv2d(**{**{name: getattr(conv, name) for name in same}, **changes}, bias=conv.bias is not None)
