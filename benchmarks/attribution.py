"""Attribution maps, deletion, insertion and ROAD: ours beside Captum and pytorch-grad-cam called directly.

python benchmarks/attribution.py [--model resnet20] [--images 32] [--size 32] [--batch-size 32] [--repeats 3]

Everybody gets the same network, images and classes. Ours are the library's doors (`ps.attributions`, the curves of
`ps.faithfulness`), which guard the network; of the peers only the call itself is timed, without setting up. Where a
peer gives the same numbers, the largest difference is printed. pytorch-grad-cam has no deletion or insertion curves,
but removes the most or least relevant pixels at one percentile: curves are made of that, step by step, with the
data's mean in place of its imputation. The authors' loop, an image at a time with all its steps in one batch, stands
beside it. Contenders take turns; medians are compared.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.compat import torchvision_module
from prunescope.core.seeds import torch_generator
from prunescope.engine.allocator import tune_allocator
from prunescope.engine.attribute import normalised, upsample
from prunescope.engine.attribution.rewritten import folded_for
from prunescope.engine.faithfulness import Protocol, faithfulness_curves, ranks
from prunescope.engine.imputation import imputed
from prunescope.models.layers import last_conv
from prunescope.models.zoo import build_model

CAMS = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM"}
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Contenders:
    """The same maps and scores by different means."""

    def __init__(self, model: nn.Module, x: Tensor, target: Tensor, batch_size: int) -> None:
        torchvision_module()  # which the peers import
        self.model, self.x, self.target, self.batch_size = model, x, target, batch_size
        self.captum, self.cam = importlib.import_module("captum.attr"), importlib.import_module("pytorch_grad_cam")
        self.targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
        self.road = importlib.import_module("pytorch_grad_cam.metrics.road")
        self.removal = importlib.import_module("pytorch_grad_cam.metrics.perturbation_confidence")

    def ours(self, method: str, **options: object) -> Tensor:
        spec = {"name": method, **options}
        return ps.attributions(self.model, self.x, method=spec, target=self.target, batch_size=self.batch_size)

    def enlarged(self, method: str) -> Tensor:
        """Scaled to 1 and of the images' size, as pytorch-grad-cam gives them."""
        return upsample(normalised(self.ours(method)), (self.x.shape[2], self.x.shape[3]))

    def captums(self, tool: str, **options: object) -> Tensor:
        made = getattr(self.captum, tool)(self.model)
        parts = zip(self.x.split(self.batch_size), self.target.split(self.batch_size), strict=True)
        found = [made.attribute(x.clone().requires_grad_(), target=y, **options).detach() for x, y in parts]
        return torch.cat(found)

    def cams(self, name: str) -> np.ndarray:
        layer = self.model.get_submodule(last_conv(self.model))
        parts = list(zip(self.x.split(self.batch_size), self.target.split(self.batch_size), strict=True))
        with getattr(self.cam, name)(self.model, [layer]) as tool:
            tool.batch_size = self.batch_size
            return np.concatenate([tool(x, [self.targets.ClassifierOutputTarget(int(k)) for k in y]) for x, y in parts])

    def one_protocol(self, maps: Tensor, protocol: Protocol) -> dict[str, Tensor]:
        """As `ps.faithfulness`, without the random control, which no peer has."""
        own = folded_for(self.model, self.x[:16])
        return faithfulness_curves(own, self.x, maps, self.target, protocol).areas()

    def roads(self, maps: Tensor) -> np.ndarray:
        wanted = [self.targets.ClassifierOutputSoftmaxTarget(int(k)) for k in self.target]
        metric = self.road.ROADCombined([round(100 * (1 - share)) for share in SHARES])
        return np.asarray(metric(self.x, maps.numpy(), wanted, self.model))

    def removals(self, maps: Tensor, steps: int) -> np.ndarray:
        """Deletion and insertion (images, 2) from pytorch-grad-cam's removal of pixels by percentile."""
        wanted = [self.targets.ClassifierOutputSoftmaxTarget(int(k)) for k in self.target]
        kinds, areas = (self.removal.RemoveMostRelevantFirst, self.removal.RemoveLeastRelevantFirst), []
        for kind in kinds:
            scores = []
            for gone in (100 * step / steps for step in range(steps + 1)):
                # Below percentile 0 there is nothing: at either end the picture is whole, or empty.
                keep = {0: torch.ones_like, 100: torch.zeros_like}.get(gone)
                take = (lambda x, _mask, keep=keep: x * keep(x)) if keep else kind(100 - gone, lambda x, mask: x * mask)
                metric = self.removal.PerturbationConfidenceMetric(take)
                scores.append(metric(self.x, maps.numpy(), wanted, self.model, return_diff=False))
            areas.append(np.mean([(a + b) / 2 for a, b in zip(scores[1:], scores[:-1], strict=True)], axis=0))
        return np.stack(areas, axis=1)

    @torch.no_grad()
    def loops(self, maps: Tensor, steps: int) -> np.ndarray:
        """Deletion and insertion as in the authors' script: an image at a time, all its steps in one batch."""
        found = []
        for image, heat, k in zip(self.x, maps, self.target.tolist(), strict=True):
            order = np.argsort(-heat.numpy().ravel(), kind="stable")
            pair = []
            for start, end in ((image, torch.zeros_like(image)), (torch.zeros_like(image), image)):
                pictures = []
                for step in range(steps + 1):
                    picture = start.clone().numpy().reshape(len(image), -1)
                    gone = order[: step * len(order) // steps]
                    picture[:, gone] = end.numpy().reshape(len(image), -1)[:, gone]
                    pictures.append(picture.reshape(image.shape))
                scores = self.model(torch.from_numpy(np.stack(pictures))).softmax(1)[:, k].numpy()
                pair.append((scores[1:] + scores[:-1]).mean() / 2)
            found.append(pair)
        return np.array(found)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = "cpu"


def timed(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            start = CLOCKS[clock]()
            run()
            if turn:
                seconds[name].append(CLOCKS[clock]() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def tell(what: str, images: int, found: dict[str, float], note: str = "") -> None:
    """A line: images per second of ours and the peers, and how many times as fast ours is."""
    (_, own), *others = found.items()
    peers = ", ".join(f"{name} {images / s:.0f} ({s / own:.2f} x)" for name, s in others)
    print(f"{what:24} ours {images / own:7.0f} images/s; {peers}{'; ' + note if note else ''}", flush=True)


def main() -> None:
    """Print images per second and ratios (above 1: ours is faster)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="more than one waits long on a machine that is busy")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu", help="cpu: not disturbed by other programs")
    args = parser.parse_args()
    global clock
    clock = args.clock
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    tune_allocator()
    model = build_model(args.model, classes=10, channels=3, seed=0).eval()
    x = torch.randn(args.images, 3, args.size, args.size, generator=torch_generator(0, "benchmark"))
    target = torch.randint(0, 10, (args.images,), generator=torch_generator(1, "benchmark"))
    run, count = Contenders(model, x, target, args.batch_size), args.images
    print(
        f"{args.model}, {count} images of {args.size} pixels, batches of {args.batch_size}, {args.threads} thread(s), "
        f"{args.clock} clock"
    )

    def captum(method: str, tool: str, options: dict[str, Any], **peer: object) -> None:
        ours, theirs = run.ours(method, **options, heat="absolute"), run.captums(tool, **peer)
        gap = float((ours - theirs.sum(1).abs()).abs().max() / ours.max())
        made = {"ours": lambda: run.ours(method, **options), "Captum": lambda: run.captums(tool, **peer)}
        tell(method, count, timed(made, args.repeats), f"maps differ by {gap:.0e}")

    captum("saliency", "Saliency", {}, abs=False)
    captum("input_x_gradient", "InputXGradient", {})
    captum("integrated_gradients", "IntegratedGradients", {"steps": 16}, baselines=0.0, n_steps=16)
    captum("deeplift", "DeepLift", {})
    for method, name in CAMS.items():
        made = {"ours": lambda m=method: run.enlarged(m), "pytorch-grad-cam": lambda n=name: run.cams(n)}
        tell(method, count, timed(made, args.repeats))
    part = Contenders(model, x[:8], target[:8], args.batch_size)
    made = {
        "ours": lambda: part.enlarged("scorecam"),
        "pytorch-grad-cam": lambda: quietly(lambda: part.cams("ScoreCAM")),
    }
    tell("scorecam", 8, timed(made, 1))
    faithfulness(run, args.repeats)


def quietly(call: Callable[[], Any]) -> Any:
    """Without the progress bar of Score-CAM."""
    tqdm = importlib.import_module("pytorch_grad_cam.score_cam").tqdm
    kept, tqdm.tqdm = tqdm.tqdm, lambda items: items
    try:
        return call()
    finally:
        tqdm.tqdm = kept


def faithfulness(run: Contenders, repeats: int) -> None:
    """Deletion, insertion, ROAD, and the imputation of ROAD alone, on smooth maps as CAMs are."""
    count, size = len(run.x), run.x.shape[-1]
    maps = torch.rand(count, 4, 4, generator=torch_generator(2, "benchmark"))
    maps = nn.functional.interpolate(maps[:, None], size=(size, size), mode="bilinear")[:, 0]
    curves = Protocol(steps=16, insertion="mean", shares=())
    ours = torch.stack([*run.one_protocol(maps, curves).values()], 1).numpy()
    gap = float(np.abs(ours - run.loops(maps, 16)).max())
    made = {"ours": lambda: run.one_protocol(maps, curves), "a loop over images": lambda: run.loops(maps, 16)}
    tell("deletion and insertion", count, timed(made, repeats), f"areas differ by {gap:.0e}")
    gap = float(np.abs(ours - run.removals(maps, 16)).max())
    made = {"ours": lambda: run.one_protocol(maps, curves), "pytorch-grad-cam": lambda: run.removals(maps, 16)}
    tell("the same", count, timed(made, repeats), f"areas differ by {gap:.0e}")
    road = Protocol(steps=1, shares=SHARES)
    made = {"ours": lambda: run.one_protocol(maps, road), "pytorch-grad-cam": lambda: run.roads(maps)}
    gap = float(np.abs(run.one_protocol(maps, road)["road"].numpy() - run.roads(maps)).max())
    tell("ROAD", count, timed(made, repeats), f"scores differ by {gap:.0e}, mostly by its noise")
    impute, order = run.road.NoisyLinearImputer(noise=0.0), ranks(maps)
    for share in (0.1, 0.5, 0.9):
        missing = order < round(share * size * size)
        peer = torch.stack([impute(a, (~b).float()) for a, b in zip(run.x, missing, strict=True)])
        gap = float((imputed(run.x, missing) - peer).abs().max())
        made = {
            "ours": lambda m=missing: imputed(run.x, m),
            "pytorch-grad-cam": lambda m=missing: [impute(a, (~b).float()) for a, b in zip(run.x, m, strict=True)],
        }
        tell(f"imputing {share:.0%}", count, timed(made, repeats), f"pixels differ by {gap:.0e}")


if __name__ == "__main__":
    main()
