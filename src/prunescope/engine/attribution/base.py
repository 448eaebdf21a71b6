"""The protocol of an attribution method, and its two kinds: of an inner layer, and of the pixels themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from prunescope.core.configure import named
from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.registry import Registry
from prunescope.engine.attribution.places import as_maps, both_of
from prunescope.engine.sweep import find_module
from prunescope.models.layers import map_layer

#: Normalised images (B, C, H, W) and a class for each, (B,), to maps (B, h, w), at least 0, not normalised.
Explainer = Callable[[Tensor, Tensor], Tensor]
Heat = Literal["positive", "absolute", "largest"]

#: Methods by name. Register a frozen dataclass that subclasses `Method`.
methods: Registry[type[Method]] = Registry(
    "attribution method", group="prunescope.attributions", package="prunescope.engine.attribution"
)


class Method(ABC):
    """Options of one way to say which pixels speak for a class. Subclass as a frozen dataclass and register.

    Class attributes:
        summary: one line.
        passes: what a map costs, in words.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    passes: ClassVar[str] = ""

    @abstractmethod
    def explainer(self, model: nn.Module) -> Explainer:
        """What gives maps of this network. Refuse here, or at the first images, a network that cannot be explained.

        It is asked for, and used, inside `untouched(model)`, with gradients recorded; a map must not depend on which
        other images are in its batch.
        """


def method_of(spec: object, where: str = "method") -> Method:
    """The method that a name, or a mapping with `name` and options, stands for; a method stands for itself.

    Raises:
        PrunescopeError: an unknown name or option.
    """
    return spec if isinstance(spec, Method) else named(methods, spec, where)


@dataclass(frozen=True)
class LayerMethod(Method):
    """Maps at the resolution of an inner layer.

    Attributes:
        layer: module whose output is weighed: maps (B, C, h, w) or (B, h, w, C), or tokens (B, T, C). "": the last
            convolution; in a transformer the norm before its last attention, behind which only the class token counts.
        grid: (h, w), where the shape alone does not tell how tokens are laid out; () finds it (`places.as_maps`).
    """

    layer: str = ""
    grid: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.grid and (len(self.grid) != 2 or min(self.grid) < 1):
            raise PrunescopeError(f"{self.name}: grid is a height and a width, got {list(self.grid)}")

    def place(self, model: nn.Module) -> str:
        """Name of the layer in this network; an unknown one is an error."""
        layer = self.layer or map_layer(model)
        find_module(model, layer)
        return layer


@dataclass(frozen=True)
class Cam(LayerMethod):
    """A class activation map: a sum over channels, from one forward pass and one backward pass down to the layer."""

    passes: ClassVar[str] = "one forward, one backward down to the layer"

    @abstractmethod
    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Activation and gradient of a logit, both (B, C, h, w), to maps (B, h, w), at least 0."""

    def explainer(self, model: nn.Module) -> Explainer:
        layer = self.place(model)
        return lambda x, target: self.of(*both_of(model, layer, x, target), x.shape[2:], layer)

    def of(self, activation: object, gradient: Tensor, size: tuple[int, ...], layer: str) -> Tensor:
        """Maps from what the layer gave, of whatever layout; `size` (H, W) is the images'."""
        values = as_maps(activation, size, layer, self.grid)
        found = self.weigh(values.detach(), as_maps(gradient, size, layer, self.grid))
        if not bool(found.isfinite().all()):
            raise PrunescopeError(f"{self.name}: maps of layer {layer!r} are not finite; are the weights?")
        return found


@dataclass(frozen=True)
class InputMethod(Method):
    """Signed numbers for every channel of every pixel, made one map by `heat`.

    Attributes:
        heat: `positive`: the sum over channels where it is above 0, which is what speaks *for* the class; `absolute`:
            the sum's size, for or against; `largest`: the largest size among the channels, as is usual for gradients.
    """

    heat: Heat = "positive"

    def __post_init__(self) -> None:
        if self.heat not in get_args(Heat):
            raise choices("heat", self.heat, get_args(Heat), self.name)

    @abstractmethod
    def attributor(self, model: nn.Module) -> Explainer:
        """As `explainer`, but signed and per channel: it gives (B, C, H, W)."""

    def explainer(self, model: nn.Module) -> Explainer:
        signed = self.attributor(model)

        def maps(x: Tensor, target: Tensor) -> Tensor:
            found = signed(x, target).detach()
            if not bool(found.isfinite().all()):
                raise PrunescopeError(f"{self.name}: attributions are not finite; are the weights?")
            return collapsed(found, self.heat)

        return maps


def collapsed(signed: Tensor, heat: Heat) -> Tensor:
    """Attributions (B, C, H, W) as maps (B, H, W), at least 0; see `InputMethod.heat`.

    >>> import torch
    >>> collapsed(torch.tensor([[[[1.0, 1.0]], [[2.0, -3.0]]]]), "positive").tolist()
    [[[3.0, 0.0]]]
    """
    if heat == "largest":
        return signed.abs().amax(dim=1)
    total = signed.sum(dim=1)
    return total.relu() if heat == "positive" else total.abs()
