"""A pruned network made physically smaller, checked against the masked one, and written for use elsewhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import atomic_folder
from prunescope.core.seeds import torch_generator
from prunescope.core.surroundings import surroundings
from prunescope.engine.cost import BATCH_SIZES
from prunescope.engine.sweep import logits_of
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.export import export_onnx, export_program
from prunescope.models.graph import channel_graph
from prunescope.models.packed import entropy_bound, save_packed
from prunescope.models.shrink import shrink
from prunescope.pruning.zeros import CHANCE
from prunescope.ticket.blueprint import FORMAT, Blueprint
from prunescope.ticket.costs import costs
from prunescope.ticket.load import PACKED, WHOLE, load_shrunk
from prunescope.ticket.pruned import Pruned, read_pruned

#: Largest difference of a logit that is let through, times the largest logit where that is more than 1.
TOLERANCE = 1e-4
_NO_FASTER = "dense hardware will not run the network any faster for them"
#: Images of noise, where there are no real ones.
_NOISE = 16


@dataclass(frozen=True, eq=False)
class Smaller:
    """What became of a pruned network.

    Attributes:
        network: without the channels that nothing reads; the masked network itself when none could go.
        blueprint: how to build it.
        units, removed: channels, neurons and heads there were, and how many are gone.
        reason: why none could be looked for; empty otherwise.
        difference: largest absolute difference of a logit from the masked network's.
    """

    network: nn.Module
    blueprint: Blueprint
    units: int
    removed: int
    reason: str
    difference: float


def make_smaller(pruned: Pruned) -> Smaller:
    """Take out what nothing reads, and compare with the masked network, on real images where there are any.

    Raises:
        PrunescopeError: the outputs differ by more than 1e-4, or the network's code does not run without the channels.
    """
    shape, images = pruned.blueprint.shape, _images(pruned)
    try:
        units = channel_graph(pruned.network, shape).units
    except PrunescopeError as error:
        return Smaller(pruned.network, pruned.blueprint, 0, 0, str(error), 0.0)
    small = shrink(pruned.network, shape, images[:2])
    if not small.removed:
        return Smaller(pruned.network, pruned.blueprint, units, 0, "", 0.0)
    blueprint = replace(pruned.blueprint, sizes={name: dict(sizes) for name, sizes in small.sizes.items()})
    worst = difference(pruned.network, small.network, images)
    return Smaller(small.network.eval(), blueprint, units, small.removed, "", worst)


@torch.inference_mode()
def difference(network: nn.Module, other: nn.Module, images: Tensor, batch_size: int = 16) -> float:
    """Largest absolute difference of a logit, over all images (N, C, H, W).

    Raises:
        PrunescopeError: it is above 1e-4, or 1e-4 of the largest logit where that is more than 1.
    """
    batches = images.split(batch_size)
    expected, found = (torch.cat([logits_of(net(batch)) for batch in batches]) for net in (network, other))
    worst, largest = float((expected - found).abs().max()), max(1.0, float(expected.abs().max()))
    if not worst <= TOLERANCE * largest:  # NaN is not
        raise PrunescopeError(
            f"the smaller network gives other outputs: they differ by {worst:.2g} on {len(images)} images; "
            f"allowed: {TOLERANCE * largest:.2g}"
        )
    return worst


def _images(pruned: Pruned) -> Tensor:
    if pruned.images is not None:
        return pruned.images
    return torch.randn(_NOISE, *pruned.blueprint.shape, generator=torch_generator(0, "shrink"))


def shrink_folder(
    folder: str | Path,
    out: str | Path,
    *,
    model: nn.Module | Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    program: bool = False,
    onnx: bool = False,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = 30,
) -> dict[str, Any]:
    """Make the network of a ticket, or of a study's checkpoint, smaller, and write it into the new folder `out`.

    There: `network.json` (how to build it, differences, costs) and `network.safetensors`; where no channel could go,
    `packed.safetensors`: the mask and the kept weights. `load_shrunk` reads both. All or nothing is written.

    Args:
        model: a network of the architecture, or its name and options, where it comes from a function of the user's own.
        data: where the images are from on which outputs are compared.
        program, onnx: also `network.pt2` (torch.export) and `network.onnx`, each run and compared as well.
        batch_sizes, repeats: of the timing; 0 repeats: none.

    Returns:
        What `network.json` says.

    Raises:
        PrunescopeError: `out` exists; the folder holds no pruned network; outputs differ; it cannot be exported.
    """
    out = Path(out)
    if out.exists():
        raise PrunescopeError(f"{out} exists already: give another folder with --out, or move it away")
    pruned = read_pruned(Path(folder), model=model, data=data)
    small, images = make_smaller(pruned), _images(pruned)
    networks = {
        "dense": pruned.dense,
        "masked": pruned.network,
        **({"smaller": small.network} if small.removed else {}),
    }
    facts: dict[str, Any] = {
        "kind": "network", "format": FORMAT, "network": asdict(small.blueprint),
        "weights": WHOLE if small.removed else PACKED, "units": small.units, "removed": small.removed,
        "not_followed": small.reason, "density": pruned.mask.density,
        "compared": {"on": pruned.source, "images": len(images), "difference": small.difference},
        "exports": {}, "versions": surroundings(),
    }  # fmt: skip
    facts["costs"] = costs(networks, small.blueprint.shape, batch_sizes=batch_sizes, repeats=repeats)
    with atomic_folder(out) as place:
        _write(small, pruned, place, facts)
        shape = small.blueprint.shape
        if program:
            facts["exports"]["network.pt2"] = export_program(small.network, shape, place / "network.pt2", images=images)
        if onnx:
            facts["exports"]["network.onnx"] = export_onnx(small.network, shape, place / "network.onnx", images=images)
        (place / "network.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        own = None if model is None else copy.deepcopy(pruned.dense)
        difference(small.network, load_shrunk(place, own), images)
    return facts


def _write(small: Smaller, pruned: Pruned, place: Path, facts: dict[str, Any]) -> None:
    weights = Checkpoint.of(small.network).weights
    if small.removed:
        (place / WHOLE).write_bytes(save(dict(weights)))
    else:
        save_packed(weights, pruned.mask, place / PACKED)
        others = sum(tensor.nbytes for name, tensor in weights.items() if name not in pruned.mask)
        facts["entropy_bound"] = round(entropy_bound(pruned.mask) + others)
    facts["bytes"] = (place / facts["weights"]).stat().st_size


def in_words(facts: Mapping[str, Any]) -> Iterator[str]:
    """What `network.json` says, in sentences, without promises that hardware does not keep."""
    if facts["removed"]:
        yield f"{facts['removed']:,} of {facts['units']:,} channels are gone: nothing read them"
        found = facts["compared"]
        yield f"largest difference of a logit: {found['difference']:.1e} ({found['images']} images: {found['on']})"
        left = facts["costs"]["footprints"]["smaller"]
        zeros = left["parameters"] - left["nonzero"]
        if zeros > CHANCE * left["parameters"]:
            yield f"of what is left, {zeros:,} of {left['parameters']:,} parameters are zero: {_NO_FASTER}"
    else:
        why = f" ({facts['not_followed']})" if facts["not_followed"] else ": all of them are read"
        yield f"no channel can go{why}"
        yield (
            f"{PACKED} holds the mask and the kept weights in {facts['bytes']:,} bytes, where random masks and weights "
            f"hold {facts['entropy_bound']:,}; its pruned weights are zeros: {_NO_FASTER}"
        )
    for name, worst in facts["exports"].items():
        yield f"{name}: read back and run; largest difference of a logit {worst:.1e}"
