"""A network's weights, its mask, and how they came to be: what training and pruning hand on, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import read_text
from prunescope.core.mask import Mask
from prunescope.models.weights import load_weights, read_safetensors

FORMAT = 1
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One state of one network.

    Attributes:
        weights: the whole state_dict (parameters and buffers), contiguous, on the CPU; pruned weights are zero.
        mask: None when nothing was pruned.
        round: 0 for dense; then the round of pruning that made it.
        history: one dictionary per epoch of the training that led here.
        info: JSON-able facts about it.
    """

    weights: Mapping[str, Tensor]
    mask: Mask | None = None
    round: int = 0
    history: tuple[dict[str, Any], ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kept in (self.mask or {}).items():
            if name not in self.weights or self.weights[name].shape != kept.shape:
                got = tuple(self.weights[name].shape) if name in self.weights else "no such weights"
                raise PrunescopeError(f"mask of {name!r} has shape {tuple(kept.shape)}, the checkpoint has {got}")
            alive = int(torch.count_nonzero(self.weights[name][~kept]))  # NaN counts
            if alive:
                raise PrunescopeError(f"{alive} weights of {name!r} are not zero although the mask prunes them")

    @classmethod
    def of(
        cls,
        model: nn.Module,
        mask: Mask | None = None,
        *,
        round: int = 0,
        history: Iterable[Mapping[str, Any]] = (),
        info: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """A copy of the network's present state.

        >>> Checkpoint.of(nn.Linear(2, 1)).density
        1.0
        """
        weights = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in model.state_dict().items()
        }
        return cls(weights, mask, round, tuple(dict(epoch) for epoch in history), dict(info or {}))

    @property
    def density(self) -> float:
        """Nominal density: kept over prunable weights; 1.0 without a mask."""
        return 1.0 if self.mask is None else self.mask.density

    def into(self, model: M) -> M:
        """Load the weights strictly into the network, apply the mask, and return the network."""
        load_weights(model, self.weights, where="of the checkpoint")
        if self.mask is not None:
            self.mask.apply_(model)
        return model

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors`, `mask.safetensors` (one bit a weight) and `checkpoint.json` into the folder.

        Equal tensors give equal bytes. Not atomic in itself: whoever needs that passes a temporary folder
        (`core.files.atomic_folder`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "weights.safetensors", self.weights, list(self.weights))
        if self.mask is not None:
            shapes = {name: list(kept.shape) for name, kept in self.mask.items()}
            _write(folder / "mask.safetensors", {name: _pack(kept) for name, kept in self.mask.items()}, shapes)
        facts = {
            "format": FORMAT, "round": self.round, "masked": self.mask is not None,
            "history": list(self.history), "info": dict(self.info),
        }  # fmt: skip
        (folder / "checkpoint.json").write_text(json.dumps(facts, indent=1, default=_plain), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read what `save` wrote, bit by bit the same.

        Raises:
            PrunescopeError: a file is missing, damaged or of another format (named), or pruned weights are not zero.
        """
        folder = Path(folder)
        facts = _facts(folder / "checkpoint.json")
        tensors, names = _read(folder / "weights.safetensors")
        mask = _read_mask(folder / "mask.safetensors") if facts["masked"] else None
        try:
            weights = {name: tensors[name] for name in names}
            return cls(weights, mask, facts["round"], tuple(facts["history"]), facts["info"])
        except KeyError as error:
            raise PrunescopeError(f"{folder / 'weights.safetensors'} is damaged: no tensor {error}") from None
        except PrunescopeError as error:
            raise PrunescopeError(f"{folder}: {error}") from error


def read_mask(folder: Path) -> Mask | None:
    """The mask of a stored checkpoint without its weights; None when nothing was pruned.

    Raises:
        PrunescopeError: a file is missing, damaged or of another format.
    """
    folder = Path(folder)
    return _read_mask(folder / "mask.safetensors") if _facts(folder / "checkpoint.json")["masked"] else None


def _write(path: Path, tensors: Mapping[str, Tensor], extra: object) -> None:
    # One entry of metadata only: safetensors writes several in random order. The file itself does not keep the
    # order of the tensors, and a mask's order decides ties of the cut.
    path.write_bytes(save(dict(tensors), metadata={"prunescope": json.dumps(extra)}))


def _read(path: Path) -> tuple[dict[str, Tensor], Any]:
    if not path.is_file():
        raise PrunescopeError(f"{path} is missing, so this is no complete checkpoint")
    tensors = read_safetensors(path)
    try:
        with safe_open(path, "pt") as file:
            return tensors, json.loads(file.metadata()["prunescope"])
    except (SafetensorError, KeyError, TypeError, JSONDecodeError) as error:
        raise PrunescopeError(f"{path} was not written by prunescope ({error})") from error


def _read_mask(path: Path) -> Mask:
    tensors, shapes = _read(path)
    try:
        return Mask({name: _unpack(tensors[name], shape) for name, shape in shapes.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise PrunescopeError(f"{path} is damaged ({error})") from error


def _pack(kept: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(kept.flatten().numpy()))


def _unpack(bits: Tensor, shape: list[int]) -> Tensor:
    count = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(np.bool_)).view(shape)


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_text(path))
    except JSONDecodeError as error:
        raise PrunescopeError(f"{path} is damaged ({error})") from error
    except PrunescopeError as error:
        raise PrunescopeError(f"{error}, so this is no complete checkpoint") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise PrunescopeError(f"{path} has format {found!r}; this version of prunescope reads format {FORMAT}")
    missing = {"round", "masked", "history", "info"} - set(facts)
    if missing:
        raise PrunescopeError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    return facts


def _plain(value: Any) -> Any:
    """numpy scalars and tensors of one number in the history."""
    if hasattr(value, "item"):
        return value.item()
    return str(value)
