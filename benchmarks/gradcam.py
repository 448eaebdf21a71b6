"""Grad-CAM maps per second: ours beside Captum's and pytorch-grad-cam's, on the same network and images.

python benchmarks/gradcam.py [--model resnet20] [--layer NAME] [--images 512] [--batch-size 64] [--repeats 3]

Ours is the whole sweep as a study runs it: normalising, the forward pass, accuracy and the other numbers of the
`performance` probe, the maps, the record. The others are their maps alone, for given classes, at the same batch size.
Contenders take turns; the medians are compared. The allocator is tuned for all of them, as our command line does it.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Dataset, Split
from prunescope.engine.allocator import tune_allocator
from prunescope.models.layers import last_conv
from prunescope.models.zoo import build_model
from prunescope.probes.base import measure, probe
from prunescope.probes.gradcam import gradcam_maps


def data(count: int, size: int, classes: int) -> Dataset:
    """Random pixels: speed does not depend on what is seen."""
    generator = torch_generator(0, "benchmark")
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=generator)
    split = Split(images, labels, np.arange(count).astype(str), tuple(map(str, range(classes))))
    return Dataset("random", split.subset([0, 1]), split.subset([0, 1]), split)


class Contenders:
    """The same maps by different means; each method walks over all images once."""

    def __init__(self, model: nn.Module, layer: str, images: Dataset, batch_size: int) -> None:
        torchvision_module()  # which the peers import
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
        self.model, self.layer, self.data, self.batch_size = model, layer, images, batch_size
        self.wanted = targets.ClassifierOutputTarget
        self.grad_cam = importlib.import_module("pytorch_grad_cam").GradCAM
        self.captum = importlib.import_module("captum.attr").LayerGradCam

    def batches(self, channels_last: bool) -> Iterator[tuple[Tensor, Tensor]]:
        for _, x, y in self.data.test.batches(self.batch_size):
            yield (x if channels_last else x.contiguous()), y

    def forward(self, channels_last: bool = True) -> None:
        """Only the network, as `untouched` and a sweep without gradients run it."""
        with torch.inference_mode():
            for x, _ in self.batches(channels_last):
                self.model(x)

    def ours(self, *targets: str) -> None:
        """Accuracy and maps; without targets only accuracy."""
        wanted = {"performance": probe("performance")}
        if targets:
            wanted["gradcam"] = probe("gradcam", layer=self.layer, targets=targets)
        measure(self.model, wanted, self.data, batch_size=self.batch_size)

    def captum_maps(self, channels_last: bool = False) -> None:
        tool = self.captum(self.model, self.model.get_submodule(self.layer))
        for x, y in self.batches(channels_last):
            tool.attribute(x, y, relu_attributions=True)

    def pytorch_grad_cam_maps(self, channels_last: bool = False) -> None:
        with self.grad_cam(self.model, [self.model.get_submodule(self.layer)]) as tool:
            for x, y in self.batches(channels_last):
                tool(x, [self.wanted(k) for k in y.tolist()])

    def difference(self) -> float:
        """Largest difference between Captum's maps and ours, as a share of the largest value."""
        x, y = next(self.batches(False))
        tool = self.captum(self.model, self.model.get_submodule(self.layer))
        peer = tool.attribute(x, y, relu_attributions=True)[:, 0].detach()
        ours = gradcam_maps(self.model, x, layer=self.layer, target=y)
        return float((ours - peer).abs().max() / peer.max())


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(contenders: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if turn:
                seconds[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    """Print medians, maps per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--layer", default="", help="the last convolution when left out")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="more than one waits long on a machine that is busy")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: not disturbed by other programs")
    parser.add_argument("--untuned", action="store_true", help="leave the allocator alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tuned = not args.untuned and tune_allocator()
    model = build_model(args.model, classes=10, channels=3, seed=0).eval()
    run = Contenders(model, args.layer or last_conv(model), data(args.images, args.size, 10), args.batch_size)
    print(
        f"{args.model}, layer {run.layer}, {args.images} images of {args.size} pixels, batches of {args.batch_size}, "
        f"{args.threads} thread(s), {args.clock} clock, allocator {'tuned' if tuned else 'untouched'}, "
        f"median of {args.repeats}; our maps are within {run.difference():.0e} of Captum's, relative to the largest"
    )
    names = {
        "ours: accuracy, one map an image": lambda: run.ours("true"),
        "ours: accuracy, two maps an image": lambda: run.ours("reference", "true"),
        "ours: accuracy alone": run.ours,
        "forward alone": run.forward,
        "Captum": run.captum_maps,
        "Captum, channels last": lambda: run.captum_maps(True),
        "pytorch-grad-cam": run.pytorch_grad_cam_maps,
        "pytorch-grad-cam, channels last": lambda: run.pytorch_grad_cam_maps(True),
    }
    found = timed(names, args.repeats, CLOCKS[args.clock])
    first = next(iter(found.values()))
    print(f"{'':34} {'ms':>7} {'images/s':>9}   time relative to ours with one map")
    for name, seconds in found.items():
        print(f"{name:34} {seconds * 1e3:7.0f} {args.images / seconds:9.0f} {seconds / first:7.2f}")
    print(
        f"one map costs {first / found['ours: accuracy alone'] - 1:.0%} over accuracy alone, "
        f"{first / found['forward alone'] - 1:.0%} over the forward pass alone"
    )


if __name__ == "__main__":
    main()
