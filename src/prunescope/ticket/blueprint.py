"""What it takes to build a network again, as files of ours tell it. Nothing in a file is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from prunescope.core.configure import configure, split_spec
from prunescope.core.errors import PrunescopeError
from prunescope.core.files import read_json
from prunescope.models.shrink import resize
from prunescope.models.zoo import build_model

FORMAT = 1
_LIBRARIES = ("torchvision", "timm")
#: Larger numbers in a file are no network's, and would only fill the memory.
_MOST, _CHANNELS = 10**6, 10**4
#: Options that name weights: they are in a file of their own.
_TRAINED = ("weights", "pretrained")


@dataclass(frozen=True)
class Blueprint:
    """A network's architecture.

    Attributes:
        model: name and options, as for `models.zoo.build_model`, without weights.
        classes: number of logits.
        shape: (C, H, W) of one image.
        sizes: {module: {attribute: value}} of the modules that were made smaller (`models.shrink.Shrunk`).
        attributes: {attribute of the network: value} that came with weights it was once trained from.
    """

    model: Mapping[str, Any]
    classes: int
    shape: tuple[int, int, int]
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    attributes: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.classes, *self.shape)
        if not all(0 < number <= _MOST for number in numbers):
            raise PrunescopeError(f"classes and shape must be numbers from 1 to {_MOST:,}, got {numbers}")
        if self.shape[0] > _CHANNELS:
            raise PrunescopeError(f"images must have channels from 1 to {_CHANNELS:,}, got {self.shape[0]:,}")
        unknown = set(self.attributes) - {"transform_input"}
        if unknown:
            raise PrunescopeError(f"attributes: a network has no {', '.join(map(repr, sorted(unknown)))} to be set")
        object.__setattr__(self, "model", {k: v for k, v in self.model.items() if k not in _TRAINED})
        split_spec(self.model, "model")

    @classmethod
    def of(cls, model: Mapping[str, Any], network: nn.Module, classes: int, shape: tuple[int, int, int]) -> Blueprint:
        """Of a network that was built from `model`: GoogLeNet and Inception treat images as their weights want it."""
        attributes = {"transform_input": True} if getattr(network, "transform_input", False) else {}
        return cls(model, classes, shape, attributes=attributes)

    def build(self, network: nn.Module | None = None) -> nn.Module:
        """The network, untrained, in eval mode.

        Args:
            network: of this architecture before it was made smaller, for networks of the user's own; it is changed.

        Raises:
            PrunescopeError: the name stands for code that is not ours to run; or sizes do not suit the network.
        """
        if network is None:
            name = str(self.model["name"])
            library, colon, _ = name.partition(":")
            if colon and library not in _LIBRARIES:
                raise PrunescopeError(
                    f"model {name!r} is a function of your own, and files do not decide what code runs: build it and "
                    "pass the network (model=..., --model)"
                )
            network = build_model(self.model, classes=self.classes, channels=self.shape[0], seed=0)
            for key, value in self.attributes.items():
                if not hasattr(network, key):
                    raise PrunescopeError(f"model {name!r} has no attribute {key!r}")
                setattr(network, key, value)
        return resize(network, self.sizes).eval()


def read_facts(path: Path, kind: str, needs: Sequence[str] = ()) -> tuple[Blueprint, dict[str, Any]]:
    """The blueprint in a JSON file of ours, and all else that it says.

    Args:
        kind: what the file describes: `ticket` or `network`.
        needs: keys that must be there.

    Raises:
        PrunescopeError: missing, damaged, of another format, or describing what cannot be.
    """
    if not path.is_file():
        raise PrunescopeError(f"{path.parent} holds no {kind}: there is no {path.name}")
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != kind or "network" not in found:
        raise PrunescopeError(f"{path} is damaged, or does not describe a {kind}")
    if found.get("format") != FORMAT:
        raise PrunescopeError(f"{path} has format {found.get('format')!r}; this version reads format {FORMAT}")
    missing = [key for key in needs if key not in found]
    if missing:
        raise PrunescopeError(f"{path} is damaged: it lacks {', '.join(missing)}")
    if not isinstance(found["network"], dict):
        raise PrunescopeError(f"{path}: network: expected a mapping, got {found['network']!r}")
    return configure(Blueprint, found["network"], f"{path}: network"), found
