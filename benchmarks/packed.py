"""Pruned networks on disk: our packed files beside the information that they hold, and beside general compressors.

python benchmarks/packed.py [--model resnet20] [--densities 0.5 0.2 0.1 0.05 0.02] [--repeats 3]

All numbers are random, those that are not masked too (once trained, biases are not zero any more). Weights are cut by
magnitude over the whole network, or by whole filters. Sizes are shares of the dense safetensors file. The bound is of
random masks: n H(k/n) bits a tensor, 32 bits a kept weight, and what is not masked; masks of whole filters hold less,
and xz finds that the exponents of weights cut by magnitude are alike. Speed is in MB of dense file a second, in memory;
contenders take turns.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from prunescope.core.mask import Mask
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.packed import entropy_bound, load_packed, pack
from prunescope.models.zoo import build_model
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.turn import whole_mask


def pruned(name: str, density: float, unit: str) -> tuple[Mapping[str, Tensor], Mask]:
    """Weights and mask of a network cut at random initialisation."""
    model, cuts = build_model(name, classes=10, channels=3, seed=0), granularity(unit)
    mask = cut(model, whole_mask(model, cuts), criterion("magnitude"), keep=density, scope="global", granularity=cuts)
    mask.apply_(model)
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if key not in mask and tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return Checkpoint.of(model, mask).weights, mask


def timed(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def line(name: str, density: float, unit: str, repeats: int, folder: Path) -> str:
    """One row of the table."""
    weights, mask = pruned(name, density, unit)
    plain = save(dict(weights))
    makers: dict[str, Callable[[], bytes]] = {
        "packed": lambda: pack(weights, mask),
        "gzip": lambda: gzip.compress(plain, 6, mtime=0),
        "xz": lambda: lzma.compress(plain, preset=6),
    }
    files = {kind: make() for kind, make in makers.items()}
    path = folder / "packed"
    path.write_bytes(files["packed"])
    again, _ = load_packed(path)
    assert all(torch.equal(again[key], tensor) for key, tensor in weights.items())
    seconds = timed({**makers, "read": lambda: load_packed(path)}, repeats)
    bound = entropy_bound(mask) + sum(tensor.nbytes for key, tensor in weights.items() if key not in mask)
    shares = [len(content) / len(plain) for content in files.values()]
    speeds = [len(plain) / 1e6 / seconds[kind] for kind in ("packed", "read", "gzip", "xz")]
    return (
        f"{mask.density:>8.3f} {unit:>8} {bound / len(plain):>8.4f} " + " ".join(f"{share:>8.4f}" for share in shares)
        + f" {len(files['packed']) / bound:>13.4f}   " + " ".join(f"{speed:>8.0f}" for speed in speeds)
    )  # fmt: skip


def main() -> None:
    """Print sizes and speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.5, 0.2, 0.1, 0.05, 0.02])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.model}; sizes as shares of the dense safetensors file, speeds in MB of it a second")
    print(
        f"{'density':>8} {'unit':>8} {'bound':>8} {'packed':>8} {'gzip':>8} {'xz':>8} {'packed/bound':>13}   "
        f"{'write':>8} {'read':>8} {'gzip':>8} {'xz':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for unit in ("weight", "filter"):
            for density in args.densities:
                print(line(args.model, density, unit, args.repeats, Path(folder)))


if __name__ == "__main__":
    main()
