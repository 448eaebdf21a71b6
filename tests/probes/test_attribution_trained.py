"""On a trained network: attribution, faithfulness and sanity beside peers and slow loops, and what they must find."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from scipy.stats import spearmanr
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.compat import torchvision_module
from prunescope.core.types import Record
from prunescope.data.split import Dataset
from prunescope.engine.attribute import upsample
from prunescope.engine.faithfulness import blurred
from prunescope.engine.sanity import parameter_stages, randomise
from prunescope.probes.base import Probe, measure, probe

Trained = tuple[nn.Module, Dataset]


@pytest.fixture(scope="module")
def trained() -> Trained:
    data = ps.load_data({"name": "shapes", "size": 16, "train": 512, "val": 32, "test": 48})
    model = ps.build_model({"name": "small_cnn", "width": 16}, classes=len(data.classes), channels=3, seed=0)
    ps.fit(model, data.train, ps.Training(epochs=10, batch_size=64, lr=0.1), seed=0)
    return model.eval(), data


def record(trained: Trained, item: Probe) -> Record:
    return measure(trained[0], {"it": item}, trained[1], batch_size=19)["it"]


def images(trained: Trained, count: int = 48) -> tuple[Tensor, Tensor]:
    _, x, _ = next(trained[1].test.batches(count))
    with torch.no_grad():
        return x.contiguous(), trained[0](x).argmax(1)


def test_it_has_learnt(trained: Trained) -> None:
    assert record(trained, probe("performance")).metrics["top1"] > 0.5


@pytest.mark.parametrize("layer", ["features.relu2", "features.relu3"])
@pytest.mark.parametrize(("method", "peer"), [("gradcam++", "GradCAMPlusPlus"), ("layercam", "LayerCAM")])
def test_cams_as_pytorch_grad_cam_has_them(trained: Trained, method: str, peer: str, layer: str) -> None:
    torchvision_module()
    package, scaled = (
        importlib.import_module("pytorch_grad_cam"),
        importlib.import_module("pytorch_grad_cam.utils.image"),
    )
    wanted = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    (x, target), model = images(trained), trained[0]
    with getattr(package, peer)(model, [model.get_submodule(layer)]) as tool:
        theirs = tool(x, [wanted(int(k)) for k in target])
    ours = ps.attributions(model, x, method={"name": method, "layer": layer}, target=target).numpy()
    ours = scaled.scale_cam_image(scaled.scale_cam_image(ours, (16, 16)))
    large = ours.max((1, 2)) > 0
    assert large.mean() > 0.5
    correlations = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(ours[large], theirs[large], strict=True)]
    assert np.median(correlations) > 0.999
    if method == "layercam":
        np.testing.assert_allclose(ours[large], theirs[large], atol=1e-3)


@pytest.mark.parametrize(
    ("method", "tool", "options"),
    [
        ("saliency", Saliency, {"abs": False}),
        ("integrated_gradients", IntegratedGradients, {"baselines": 0.0, "n_steps": 32}),
    ],
)
def test_pixels_as_captum_has_them(trained: Trained, method: str, tool: Any, options: dict[str, Any]) -> None:
    x, target = images(trained)
    theirs = tool(trained[0]).attribute(x.clone().requires_grad_(), target=target, **options).detach().float()
    found = record(trained, probe("attribution", method={"name": method, "heat": "absolute"}))
    expected = theirs.sum(1).abs()
    expected /= expected.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(found.arrays["image.reference"], expected.numpy(), atol=5e-3)


def test_faithfulness_by_loops(trained: Trained) -> None:
    """Pixel after pixel as Petsiuk et al. (2018) do, for a few images."""
    (x, target), model, steps = images(trained), trained[0], 8
    found = record(trained, probe("faithfulness", method="gradcam", images=0, steps=steps))
    maps = upsample(ps.attributions(model, x, target=target), (16, 16))
    for i in range(4):
        order = sorted(range(256), key=lambda place: -float(maps[i].flatten()[place]))
        for name, start, end in (
            ("deletion", x[i], torch.zeros_like(x[i])), ("insertion", blurred(x[i : i + 1])[0], x[i]),
        ):  # fmt: skip
            scores = []
            for step in range(steps + 1):
                picture = start.clone().reshape(3, 256)
                for place in order[: step * 256 // steps]:
                    picture[:, place] = end.reshape(3, 256)[:, place]
                with torch.no_grad():
                    scores.append(float(model(picture.view(1, 3, 16, 16)).softmax(1)[0, target[i]]))
            area = np.trapezoid(scores, dx=1 / steps)
            assert float(found.arrays[f"image.{name}"][i]) == pytest.approx(area, abs=1e-4)


def test_sanity_by_loops(trained: Trained) -> None:
    (x, target), model = images(trained), trained[0]
    found = record(trained, probe("sanity", method="gradcam", images=0, stages=3))
    own = ps.attributions(model, x, target=target)
    other = copy.deepcopy(model)
    for stage, names in enumerate(parameter_stages(model, 3)):
        randomise(other, names, 0)
        maps = ps.attributions(other, x, target=target)
        both = [(a.flatten(), b.flatten()) for a, b in zip(own, maps, strict=True) if a.max() > 0 and b.max() > 0]
        values = [spearmanr(a, b)[0] for a, b in both]
        assert found.arrays["stage.cascading"][stage, 0] == pytest.approx(np.nanmean(values), abs=1e-3)


def test_maps_beat_random_ones_and_hang_on_the_weights(trained: Trained) -> None:
    method = {"name": "integrated_gradients", "steps": 8}
    found = record(trained, probe("faithfulness", method=method)).metrics
    for name, sign in (("deletion", -1), ("insertion", 1), ("road", 1)):
        assert sign * (found[name] - found[f"random.{name}"]) > 0.01
    left = record(trained, probe("sanity", method=method, images=24, stages=2)).metrics["left"]
    edges = record(trained, probe("sanity", method="edges", images=24, stages=2)).metrics["left"]
    assert left < 0.6 < edges == pytest.approx(1)
