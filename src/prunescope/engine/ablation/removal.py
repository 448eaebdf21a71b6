"""What takes the place of a unit that is taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.ablation.gates import Reading
from prunescope.engine.ablation.worlds import Single, Worlds

#: What takes a unit's place: the classes below, in their order (`resample` is `Borrowed` where images come in batches).
Kind = Literal["zero", "weights", "mean", "resample"]


class Removal(Protocol):
    """A way to take a unit out."""

    @property
    def where_made(self) -> bool:
        """Whether that happens at the layer's own output, and not where the unit is read."""
        ...

    def event(self, at: Reading, worlds: Worlds, value: Tensor) -> Single:
        """What every world's unit is at one place, where the whole network has `value`."""
        ...


@dataclass(frozen=True)
class Zero:
    """Zeros, at every reader of the unit: neither biases nor norms leak. As if the connections behind it were cut."""

    where_made: ClassVar[bool] = False

    def event(self, at: Reading, worlds: Worlds, value: Tensor) -> Single:
        return Single(None, at.offset, at.axis, at.width)


@dataclass(frozen=True)
class Weights:
    """The unit's weights and bias in its own layer are zeros; what a norm adds behind it stays, and so leaks on.

    Of an attention head: its rows of the input projections.
    """

    where_made: ClassVar[bool] = True

    def event(self, at: Reading, worlds: Worlds, value: Tensor) -> Single:
        constant = at.gate.meta.get("constant")  # of a norm that was folded into the layer
        if constant is None:
            return Single(None, at.offset, at.axis, at.width)
        return _constant(constant, at, worlds, value)


@dataclass(frozen=True, eq=False)
class Mean:
    """The unit's mean over images and places, at every reader (`channel_means`).

    Attributes:
        of: {name of a gate: one number per index along the axis of channels}.
    """

    of: Mapping[str, Tensor]
    where_made: ClassVar[bool] = False

    def event(self, at: Reading, worlds: Worlds, value: Tensor) -> Single:
        return _constant(self.of[at.gate.name], at, worlds, value)


@dataclass(frozen=True, eq=False)
class Resample:
    """What the unit holds on another image, at every reader: all its images see the same unit content, shuffled.

    Attributes:
        partner: (images,) for every image of the chunk the one that gives its content.
    """

    partner: Tensor
    where_made: ClassVar[bool] = False

    @classmethod
    def seeded(cls, images: int, seed: int, *labels: object) -> Resample:
        """A random cycle through all images of a chunk, so that none is its own partner.

        Raises:
            PrunescopeError: there is one image only.
        """
        if images < 2:
            raise PrunescopeError(f"resampling takes a unit from another image: needs 2 images at once, got {images}")
        order = torch.randperm(images, generator=torch_generator(seed, "resample", *labels))
        partner = torch.empty_like(order)
        partner[order] = order.roll(1)
        return cls(partner)

    def event(self, at: Reading, worlds: Worlds, value: Tensor) -> Single:
        if len(self.partner) != worlds.images:
            raise PrunescopeError(f"partners are known for {len(self.partner)} images, the chunk has {worlds.images}")
        others = value[self.partner.to(value.device)]
        return Single(worlds.channel_of(others, at.offset, at.axis, at.width), at.offset, at.axis, at.width)


@dataclass(frozen=True, eq=False)
class Borrowed:
    """What the unit holds on another image, at every reader, where that image is none of the chunk's.

    Attributes:
        of: {name of a gate: its value on the other images}, with as many of them in front as the chunk has images.
    """

    of: Mapping[str, Tensor]
    where_made: ClassVar[bool] = False

    def event(self, at: Reading, worlds: Worlds, value: Tensor) -> Single:
        content = worlds.channel_of(self.of[at.gate.name], at.offset, at.axis, at.width)
        return Single(content, at.offset, at.axis, at.width)


def _constant(vector: Tensor, at: Reading, worlds: Worlds, value: Tensor) -> Single:
    """The same at all places."""
    like = worlds.channel_of(value, at.offset, at.axis, at.width)
    found = vector.to(value)[at.index(worlds.channel)]  # (n, width)
    places = [1] * (value.dim() - 2)
    found = found.view(-1, 1, *places) if at.axis == 1 else found.view(-1, *places, at.width)
    return Single(found.expand_as(like), at.offset, at.axis, at.width)
