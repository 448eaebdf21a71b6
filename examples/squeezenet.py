"""A network that other people pruned: SqueezeNet by Deep Compression (Han et al. 2016), pruned further.

    python examples/squeezenet.py --weights FILE --images FOLDER --classes FILE.csv --out FOLDER

`FILE` is a state_dict of torchvision's squeezenet1_0; `FOLDER` holds ImageNet images, short side 256, in a folder per
class named by its wnid; the CSV gives `index,wnid,name` of all 1,000 classes. About five minutes on an idle core.
"""

from __future__ import annotations

import argparse
import copy
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import prunescope as ps
from prunescope.data.split import Normalisation
from prunescope.metrics.proportions import share_interval
from prunescope.models.density import effective_density
from prunescope.models.shrink import shrink
from prunescope.pruning.zeros import own_zeros
from prunescope.ticket.costs import costs

SIDE = 227  # Caffe's SqueezeNet: resize to 256, centre crop 227
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ONCE: dict[str, Any] = {"rewind": {"to": "none"}}
#: (name, recipe without its schedule, densities: shares of what its granularity cuts)
RECIPES: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    ("weights, global", {}, (0.3, 0.25, 0.2)),
    ("weights, layer", {"scope": "layer"}, (0.8,)),
    ("2:4", {"granularity": "n:m", "ignore": ["features.0"]}, (0.5,)),
    ("input channels, layer", {"granularity": "connection", "scope": "layer"}, (0.95,)),
    ("filters, layer", {"granularity": "filter", "scope": "layer"}, (0.95,)),
    ("channels, layer", {"granularity": "channel", "scope": "layer"}, (0.95,)),
]
#: Fine-tuned on one half of the images and measured on the other.
TUNED = [("weights, global", 0.25)]
TRAINING = ps.Training(epochs=2, batch_size=25, optimizer="adam", lr=2e-4, weight_decay=0.0, precision="32")
DISTILL = {"weight": 1.0, "temperature": 2.0}


def read_images(folder: Path, classes: Path) -> ps.Split:
    """All images, centre crops of 227 pixels, labelled by the 1,000 classes."""
    with classes.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    label = {row["wnid"]: int(row["index"]) for row in rows}
    files = sorted(file for file in folder.glob("*/*.jpg"))
    return ps.Split(
        torch.stack([_crop(file) for file in files]), torch.tensor([label[file.parent.name] for file in files]),
        np.array([file.stem for file in files]), tuple(row["name"] for row in rows), IMAGENET,
    )  # fmt: skip


def _crop(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    top, left = (pixels.shape[1] - SIDE) // 2, (pixels.shape[2] - SIDE) // 2
    return pixels[:, top : top + SIDE, left : left + SIDE]


@torch.inference_mode()
def logits(network: nn.Module, split: ps.Split) -> torch.Tensor:
    """(N, 1000)."""
    network = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.cat([network(x) for _, x, _ in split.batches(50)])


def measured(found: torch.Tensor, given: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Top-1 and top-5 with Wilson's 95 % intervals, and how often the decision is the given network's."""
    n = len(labels)
    top5 = (found.topk(5, 1).indices == labels[:, None]).any(1)
    shares = {"top1": found.argmax(1) == labels, "top5": top5, "same decision": found.argmax(1) == given.argmax(1)}
    row: dict[str, Any] = {"images": n}
    for name, hits in shares.items():
        share = share_interval(int(hits.sum()), n)
        row |= {name: round(share.value, 4), f"{name} low": round(share.low, 4), f"{name} high": round(share.high, 4)}
    return row


def cut(network: nn.Module, spec: dict[str, Any], density: float, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A copy, pruned, with every zero that it came with kept; and what is left of it."""
    pruned, zeros = copy.deepcopy(network), own_zeros(network, "keep")
    recipe = {**ONCE, **spec, "schedule": {"kind": "one-shot", "density": density}}
    ticket = ps.prune(pruned, recipe, zeros="keep", shape=(3, SIDE, SIDE), device="cpu", **options)
    weights = dict(pruned.named_parameters())
    assert not any(bool(weights[name][~kept].any()) for name, kept in zeros.items()), "a zero has come back"
    left = own_zeros(pruned, "keep")
    facts = {"weights kept": round(left.density, 4), "live": round(effective_density(pruned, left, (3, SIDE, SIDE)), 4)}
    assert ticket.mask is not None
    return pruned, facts


def further(network: nn.Module, split: ps.Split, given: torch.Tensor) -> Iterator[dict[str, Any]]:
    """Every recipe at every density, not retrained, on all images: no image decides anything."""
    start = {"recipe": "as it came", "asked": 1.0, "retrained": "no"}
    kept = round(own_zeros(network, "keep").density, 4)
    yield {**start, "weights kept": kept, "live": kept, **measured(given, given, split.labels)}
    for name, spec, densities in RECIPES:
        for density in densities:
            pruned, facts = cut(network, spec, density, retrain=False)
            row = measured(logits(pruned, split), given, split.labels)
            yield {"recipe": name, "asked": density, "retrained": "no", **facts, **row}


def tuned(network: nn.Module, split: ps.Split, given: torch.Tensor) -> Iterator[dict[str, Any]]:
    """Retrained on one half to answer as the given network does; the other half, of other classes, measures."""
    half = torch.arange(len(split)) % 2 == 0
    train, held = (split.subset(part.nonzero().flatten()) for part in (half, ~half))
    rest = given[~half]
    yield {"recipe": "as it came", "asked": 1.0, "retrained": "no", **measured(rest, rest, held.labels)}
    specs = {name: spec for name, spec, _ in RECIPES}
    for name, density in TUNED:
        for how, options in (("no", {"retrain": False}), ("distilled", {"data": train, "training": TRAINING})):
            spec = {**specs[name], **({"distill": DISTILL} if how == "distilled" else {})}
            pruned, facts = cut(network, spec, density, **options)
            row = measured(logits(pruned, held), rest, held.labels)
            yield {"recipe": name, "asked": density, "retrained": how, **facts, **row}


def sizes(network: nn.Module, split: ps.Split, repeats: int) -> Iterator[dict[str, Any]]:
    """What networks cost once the channels that nothing reads are gone; timed, unless `repeats` is 0."""
    images = IMAGENET(split.images[:16])
    for name, density in (("as it came", 1.0), ("channels, layer", 0.8), ("channels, layer", 0.5)):
        spec = {"granularity": "channel", "scope": "layer"}
        pruned = network if density == 1 else cut(network, spec, density, retrain=False)[0]
        small = shrink(pruned, (3, SIDE, SIDE), images)
        found = costs(
            {"masked": pruned, "smaller": small.network}, (3, SIDE, SIDE), batch_sizes=(1, 8), repeats=repeats
        )
        for which, footprint in found["footprints"].items():
            row = {"recipe": name, "asked": density, "network": which, "channels": small.units}
            row |= {"removed": small.removed if which == "smaller" else 0, "difference": small.difference}
            row |= {key: footprint[key] for key in ("parameters", "nonzero", "file_bytes", "packed_bytes")}
            row |= {"flops": footprint["flops"]["total"]}
            for size, times in found["latency"].items():
                row |= {f"ms batch {size} {key}": round(1e3 * times[which][key], 2) for key in ("value", "low", "high")}
            for size, ratios in found["speedup"].items():
                ratio = ratios.get(which, {"value": 1.0, "low": 1.0, "high": 1.0})
                row |= {f"speedup {size} {key}": round(ratio[key], 3) for key in ("value", "low", "high")}
            yield row


def zeros_of(network: nn.Module) -> Iterator[dict[str, Any]]:
    """Layer by layer, what was pruned before."""
    recognised = own_zeros(network)
    for row in ps.layer_table(own_zeros(network, "keep")):
        yield {**row, "shape": "x".join(map(str, row["shape"])), "taken as pruned": row["layer"] in recognised}


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """A CSV file, row by row; also on the screen."""
    found = []
    for row in rows:
        print(path.stem, row, flush=True)
        found.append(row)
    keys = list(dict.fromkeys(key for row in found for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def main() -> None:
    """Read, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weights", "--images", "--classes", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=["zeros", "recipes", "tuned", "sizes"], help="some of the tables")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes; 0: no timing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    model = {"name": "torchvision:squeezenet1_0", "weights": str(given.weights)}
    network = ps.build_model(model, classes=1000, channels=3, seed=0)
    split = read_images(given.images, given.classes)
    answers = logits(network, split)
    tables = {
        "zeros": lambda: zeros_of(network), "recipes": lambda: further(network, split, answers),
        "tuned": lambda: tuned(network, split, answers), "sizes": lambda: sizes(network, split, given.repeats),
    }  # fmt: skip
    for name in given.only or tables:
        write(given.out / f"{name}.csv", tables[name]())


if __name__ == "__main__":
    main()
