"""What `prunescope prune` is asked to do, before anything of it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunescope.core.configure import canonical, split_spec
from prunescope.core.errors import PrunescopeError
from prunescope.core.files import sha256
from prunescope.data.load import load_data
from prunescope.data.split import Dataset
from prunescope.engine.training import Training
from prunescope.models.weights import load_weights, read_weights
from prunescope.models.zoo import build_model
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.zeros import Zeros
from prunescope.study.config import read_yaml, set_key
from prunescope.study.study import recipe_mapping
from prunescope.ticket.blueprint import Blueprint
from prunescope.ticket.prune import as_recipe

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, eq=False)
class Job:
    """One network to prune, and how.

    Attributes:
        model: name and options, as for `models.zoo.build_model`.
        weights: file of the trained weights; None: they come with the model's options.
        data: as for `data.load.load_data`; without it `classes` and `shape` say what the network is for.
        rewind_weights: file of what the recipe rewinds to.
        device: where to train; not part of what the ticket is.
    """

    model: Mapping[str, Any]
    weights: Path | None
    recipe: Recipe
    data: Mapping[str, Any] | None = None
    classes: int | None = None
    shape: tuple[int, ...] | None = None
    retrain: bool = True
    zeros: Zeros = "auto"
    rewind_weights: Path | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.data is None and (self.classes is None or self.shape is None or len(self.shape) != 3):
            raise PrunescopeError(
                "without data, say how many classes the network tells apart and how large its images are: "
                "--classes 10 --shape 3,32,32"
            )
        if self.weights is None and not {"weights", "pretrained"} & set(self.model):
            raise PrunescopeError(f"model {self.model['name']!r}: no trained weights to prune; name a file: --weights")

    def identity(self) -> dict[str, Any]:
        """What decides the ticket, as plain data: files count by their content, and where data lies does not."""
        model = {key: canonical(value) for key, value in self.model.items() if key != "weights"}
        file = self.weights or (Path(str(self.model["weights"])) if "weights" in self.model else None)
        return {
            "model": model, "weights": None if file is None else _digest(file),
            "recipe": recipe_mapping(self.recipe, Training()), "data": canonical(self.data), "classes": self.classes,
            "shape": canonical(self.shape), "retrain": self.retrain, "zeros": self.zeros, "seed": self.seed,
            "rewind_weights": None if self.rewind_weights is None else _digest(self.rewind_weights),
        }  # fmt: skip

    def load(self) -> Material:
        """Read data and weights, and build the network."""
        data = None if self.data is None else load_data(self.data)
        classes = self.classes or 0 if data is None else len(data.classes)
        shape = tuple(self.shape or ()) if data is None else data.train.shape
        assert len(shape) == 3
        network = trained(self.model, self.weights, classes, shape[0])
        blueprint = Blueprint.of(self.model, network, classes, shape)
        return Material(network, data, blueprint, self._origin(network))

    def _origin(self, network: nn.Module) -> dict[str, Tensor] | None:
        if self.rewind_weights is None:
            return None
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        load_weights(network, read_weights(self.rewind_weights), where=str(self.rewind_weights))
        found = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(state)
        return found


def trained(model: Mapping[str, Any], weights: Path | None, classes: int, channels: int) -> nn.Module:
    """A network with the weights of a file; None: with those that its options bring."""
    network = build_model(model, classes=classes, channels=channels, seed=0)
    if weights is not None:
        load_weights(network, read_weights(weights), where=str(weights))
    return network


@dataclass(frozen=True, eq=False)
class Material:
    """What a job works on: the trained network, its data, how to build it again, and what to rewind to."""

    network: nn.Module
    data: Dataset | None
    blueprint: Blueprint
    origin: Mapping[str, Tensor] | None


def read_spec(text: str, where: str) -> dict[str, Any]:
    """`NAME`, `{name: NAME, option: value}` or a YAML file of it, as given on the command line.

    >>> read_spec("{name: shapes, size: 16}", "data")
    {'name': 'shapes', 'size': 16}
    """
    name, options = split_spec(read_yaml(Path(text) if text.endswith(_SUFFIXES) else text), where)
    return {"name": name, **options}


def read_recipe_file(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file as in study.yaml, with `key.sub=value` overrides applied."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise PrunescopeError(f"{path}: expected a mapping with criterion, schedule ...; got {raw!r}")
    for override in overrides:
        set_key(raw, override)
    return as_recipe(raw)


def _digest(path: Path) -> str:
    path = path.expanduser()
    if not path.is_file():
        raise PrunescopeError(f"weights {path}: no such file")
    return sha256(path)
