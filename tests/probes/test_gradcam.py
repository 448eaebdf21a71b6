"""Maps equal to Captum's, to pytorch-grad-cam's and to the paper's sums written out; blank maps, masks, references."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.split import Dataset
from prunescope.engine.attribute import gradcam, normalised, upsample
from prunescope.engine.sweep import sweep
from prunescope.models.zoo import build_model
from prunescope.probes.base import Subject, measure, probe
from prunescope.probes.gradcam import FACTS, GradCam, gradcam_maps
from prunescope.probes.heat import inside_energy, pointing
from prunescope.testing import assert_same_record, tiny_data, tiny_network

LAYERS = ["conv1", "norm", "relu1", "conv2", "relu2"]


def images(data: Dataset) -> Tensor:
    """The test images, normalised, contiguous as other tools expect them."""
    return next(data.test.batches(1000))[1].contiguous()


def trained_looking(name: str = "resnet8") -> nn.Module:
    """A network whose batch norms have seen data, so that activations are as in a trained one."""
    model = build_model(name, classes=3, channels=3, seed=0)
    with torch.no_grad():
        for _ in range(3):
            model(images(tiny_data()))
    return model.eval()


def records(model: nn.Module, data: Dataset, *, reference: Record | None = None, **options: object) -> Record:
    return measure(model, {"it": probe("gradcam", **options)}, data, reference=reference, batch_size=9)["it"]


def performance(model: nn.Module, data: Dataset) -> Record:
    return measure(model, {"it": probe("performance")}, data)["it"]


def pytorch_grad_cam(module: str = "") -> Any:
    """The peer, which imports torchvision."""
    torchvision_module()
    return importlib.import_module(f"pytorch_grad_cam{module}")


# -- equal to others


@pytest.mark.parametrize("layer", LAYERS)
def test_equal_to_captum(layer: str) -> None:
    model, data = tiny_network().eval(), tiny_data()
    x, target = images(data), data.test.labels
    peer = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target, relu_attributions=True)
    ours = gradcam_maps(model, x, layer=layer, target=target)
    assert ours.max() > 0
    torch.testing.assert_close(ours, peer[:, 0].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["stage1.0.conv2", "stage2.0", "stage3.0.bn2", "stage3"])
def test_equal_to_captum_on_a_residual_network(layer: str) -> None:
    model, data = trained_looking(), tiny_data()
    x, target = images(data), data.test.labels
    peer = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target, relu_attributions=True)[:, 0].detach()
    ours = gradcam_maps(model, x, layer=layer, target=target)
    assert float((ours - peer).abs().max()) <= 1e-4 * float(peer.max())


@pytest.mark.parametrize("layer", LAYERS)
def test_equal_to_pytorch_grad_cam(layer: str) -> None:
    """Its maps are divided by their range, resized with OpenCV and divided again; the same is done to ours."""
    model, data = tiny_network().eval(), tiny_data()
    x, target = images(data), data.test.labels
    wanted = pytorch_grad_cam(".utils.model_targets").ClassifierOutputTarget
    scale_cam_image = pytorch_grad_cam(".utils.image").scale_cam_image
    with pytorch_grad_cam().GradCAM(model, [model.get_submodule(layer)]) as tool:
        peer = tool(x, [wanted(k) for k in target.tolist()])
    ours = gradcam_maps(model, x, layer=layer, target=target).numpy()
    ours = scale_cam_image(np.maximum(scale_cam_image(ours, (8, 8)), 0))
    # It adds 1e-7 to the range it divides by: maps that small are not the same thing there.
    large = gradcam_maps(model, x, layer=layer, target=target).amax((1, 2)).numpy() > 1e-3
    assert large.mean() > 0.5
    np.testing.assert_allclose(ours[large], peer[large], atol=1e-4)


def test_upsampling_equal_to_open_cv() -> None:
    """pytorch-grad-cam's resizing is bilinear with corners not aligned: the same as ours away from its own scaling."""
    maps = torch.rand(4, 5, 3, generator=torch_generator(0))
    maps -= maps.amin((1, 2), keepdim=True)  # its scaling to [0, 1] then is ours
    peer = pytorch_grad_cam(".utils.image").scale_cam_image(maps.numpy(), (12, 20))
    np.testing.assert_allclose(upsample(normalised(maps), (20, 12)).numpy(), peer, atol=1e-5)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2"])
def test_equal_to_the_paper(layer: str) -> None:
    """Equations 1 and 2 of Selvaraju et al. (2017), image by image, written with loops; gradients by differences."""
    model, data = tiny_network().eval().double(), tiny_data(test=4)
    found = gradcam_maps(model, images(data).double(), layer=layer, target=data.test.labels)
    for image, c, ours in zip(images(data).double(), data.test.labels.tolist(), found, strict=True):
        A, y = split_network(model, layer)
        A_k = A(image[None])[0]
        K, u, v = A_k.shape
        L = torch.zeros(u, v, dtype=torch.float64)
        for k in range(K):
            alpha = 0.0
            for i in range(u):
                for j in range(v):
                    step = torch.zeros_like(A_k)
                    step[k, i, j] = 1e-6
                    alpha += float(y(A_k + step)[c] - y(A_k - step)[c]) / 2e-6
            L += alpha / (u * v) * A_k[k]
        torch.testing.assert_close(ours, L.clamp(min=0), rtol=1e-4, atol=1e-7)


def split_network(model: nn.Module, layer: str):  # type: ignore[no-untyped-def]
    """The part of the tiny network up to a layer, and the one from there to the logits of one image."""
    parts = dict(model.named_children())
    names = list(parts)
    cut = names.index(layer) + 1
    first = nn.Sequential(*(parts[name] for name in names[:cut]))
    rest = nn.Sequential(*(parts[name] for name in names[cut:-1]))

    @torch.no_grad()
    def logits(activation: Tensor) -> Tensor:
        return model.head(rest(activation[None]).flatten(1))[0]  # type: ignore[operator, no-any-return]

    return torch.no_grad()(first), logits


@pytest.mark.parametrize("layer", ["", *LAYERS])
def test_the_probe_stores_the_same_maps(layer: str) -> None:
    model, data = tiny_network(), tiny_data()
    found = records(model, data, layer=layer)
    assert found.info["layer"] == (layer or "conv2")
    assert found.info["image_size"] == [8, 8]
    own = torch.tensor(performance(model, data).arrays["image.predicted"]).long()
    for name, target in (("reference", own), ("true", data.test.labels)):
        maps = normalised(gradcam_maps(model, images(data), layer=layer, target=target))
        assert found.arrays[f"image.{name}"].dtype == np.float16
        np.testing.assert_allclose(found.arrays[f"image.{name}"], maps.numpy(), atol=1e-3)
    assert not np.array_equal(found.arrays["image.reference"], found.arrays["image.true"], equal_nan=True)


# -- properties


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), size=st.integers(1, 5))
def test_invariants(seed: int, scale: float, size: int) -> None:
    activation, gradient = torch.randn(2, 3, 4, size, size, generator=torch_generator(seed))
    maps = gradcam(activation, gradient)
    assert maps.shape == (3, size, size)
    assert bool((maps >= 0).all())
    torch.testing.assert_close(gradcam(activation * scale, gradient), maps * scale, rtol=1e-3, atol=1e-4)
    order = torch.randperm(4, generator=torch_generator(seed))
    torch.testing.assert_close(gradcam(activation[:, order], gradient[:, order]), maps, rtol=1e-4, atol=1e-5)
    turned = gradcam(activation.flip(3), gradient.flip(3))
    torch.testing.assert_close(turned, maps.flip(2), rtol=1e-4, atol=1e-5)
    peaks = normalised(maps).amax((1, 2))
    assert all(p == 1 or (p != p and not m.any()) for p, m in zip(peaks, maps, strict=True))


def test_no_evidence_is_blank() -> None:
    """A network that sees only evidence against: the maps are NaN, counted, and no mean contains them."""
    model, data = tiny_network(), tiny_data()
    with torch.no_grad():
        model.head.weight.abs_().neg_()  # type: ignore[union-attr, operator]
    found = records(model, data, layer="relu2")
    assert found.metrics["blank.reference"] == found.metrics["blank.true"] == 1.0
    for name in ("image.reference", "image.inside.true", "image.pointing.true"):
        assert np.isnan(found.arrays[name]).all()
    assert np.isnan(found.metrics["inside.true"])
    assert np.isnan(found.metrics["pointing.reference"])


def test_some_blank_maps_are_left_out_of_means() -> None:
    model, data = tiny_network(), tiny_data()
    with torch.no_grad():
        model.head.weight[0].abs_().neg_()  # type: ignore[union-attr, index]
    found = records(model, data, layer="relu2")
    blank = np.isnan(found.arrays["image.true"]).all((1, 2))
    assert blank.tolist() == (data.test.labels == 0).tolist()
    assert found.metrics["blank.true"] == pytest.approx(blank.mean())
    inside = found.arrays["image.inside.true"]
    assert np.isnan(inside).tolist() == blank.tolist()
    assert found.metrics["inside.true"] == pytest.approx(inside[~blank].mean())


# -- object masks


def test_energy_and_pointing_by_hand() -> None:
    maps = torch.tensor([[[1.0, 0.0], [2.0, 1.0]]] * 4)
    maps[3] = float("nan")
    masks = torch.tensor([[[0, 0], [1, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]], dtype=torch.bool)
    nan = float("nan")
    np.testing.assert_array_equal(inside_energy(maps, masks), [0.5, 0.25, nan, nan])
    np.testing.assert_array_equal(pointing(maps, masks), [1.0, 0.0, nan, nan])


class Brightness(nn.Module):
    """One channel that copies the image, one logit per class that sums it: the map is the image, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(1, 3, bias=False)
        nn.init.constant_(self.conv.weight, 1.0)
        nn.init.constant_(self.head.weight, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3)."""
        return self.head(self.pool(self.conv(x)).mean((2, 3)))


def test_energy_in_closed_form() -> None:
    """White squares on black, aligned to the pooling: all heat lies inside, but for what interpolation smears out."""
    data = tiny_data(test=6)
    masks = torch.zeros(6, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 4:8] = True
    pixels = (masks[:, None] * 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    norm = replace(data.test.normalisation, mean=(0.0,) * 3, std=(1.0,) * 3)
    data = replace(data, test=replace(data.test, images=pixels, masks=masks, normalisation=norm))
    sharp, pooled = (records(Brightness(), data, layer=layer) for layer in ("conv", "pool"))
    assert sharp.metrics["inside.true"] == sharp.metrics["pointing.true"] == 1.0
    assert sharp.metrics["mask_area"] == 0.25
    # Bilinear 4 -> 8 turns the edge 0 0 1 1 into 0 1/4 3/4 1. Across: 0 1/4 3/4 1 ... the right half keeps
    # 3.75 of 4 columns; down, with an edge on both sides, 3.5 of 4 rows.
    assert pooled.metrics["inside.true"] == pytest.approx(3.75 / 4 * 3.5 / 4, abs=1e-6)
    assert pooled.metrics["pointing.true"] == 1.0


def test_images_without_an_object_are_left_out() -> None:
    data = tiny_data()
    assert data.test.masks is not None
    masks = data.test.masks.clone()
    masks[:10] = False
    found = records(tiny_network(), replace(data, test=replace(data.test, masks=masks)))
    assert np.isnan(found.arrays["image.inside.true"][:10]).all()
    assert not np.isnan(found.arrays["image.inside.true"][10:]).any()
    assert found.metrics["mask_area"] == 0.25


def test_without_masks_there_is_no_energy() -> None:
    data = tiny_data()
    found = records(tiny_network(), replace(data, test=replace(data.test, masks=None)))
    assert set(found.arrays) == {"image.reference", "image.true"}
    assert set(found.metrics) == {"blank.reference", "blank.true"}


def test_facts_tell_of_every_metric() -> None:
    assert set(FACTS) == set(records(tiny_network(), tiny_data()).metrics)


# -- whose prediction is explained


def test_the_reference_is_asked_by_image_id() -> None:
    """Maps are for the class that the *dense* network predicts, found by id, whatever the order of its record."""
    dense, pruned, data = tiny_network(seed=4), tiny_network(), tiny_data()
    full = replace(data, test=data.test.subset(list(range(31, -1, -1))))
    reference = performance(dense, full)
    found = records(pruned, data, reference=reference)
    target = torch.tensor(performance(dense, data).arrays["image.predicted"]).long()
    own = torch.tensor(performance(pruned, data).arrays["image.predicted"]).long()
    assert int((target != own).sum()) > 0
    expected = normalised(gradcam_maps(pruned, images(data), target=target)).numpy()
    np.testing.assert_allclose(found.arrays["image.reference"], expected, atol=1e-3)


def test_a_reference_that_lacks_images_is_refused() -> None:
    model, data = tiny_network(), tiny_data()
    part = performance(model, replace(data, test=data.test.subset([0, 2, 3])))
    with pytest.raises(PrunescopeError, match=r"no prediction for 29 images: \['test-1', 'test-4', 'test-5'\]"):
        records(model, data, reference=part)
    with pytest.raises(PrunescopeError, match="must be a `performance` record"):
        records(model, data, reference=Record("concepts"))


def test_targets_can_be_chosen() -> None:
    model, data = tiny_network(), tiny_data()
    both = records(model, data)
    for name in ("reference", "true"):
        one = records(model, data, targets=[name])
        assert {key.rpartition(".")[2] for key in one.arrays} == {name}
        np.testing.assert_array_equal(one.arrays[f"image.{name}"], both.arrays[f"image.{name}"])
    for wrong in ([], ["own"]):
        with pytest.raises(PrunescopeError, match=r"targets"):
            probe("gradcam", targets=wrong)
    with pytest.raises(PrunescopeError, match="unknown target 'own' in gradcam"):
        GradCam(targets=("own",))  # type: ignore[arg-type]


def test_one_backward_per_distinct_target(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_network(), tiny_data()
    calls: list[int] = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))  # type: ignore[func-returns-value]

    def backwards(reference: Record) -> int:
        calls.clear()
        gatherers = [probe("gradcam").start(Subject(model, data, reference)) for _ in range(3)]
        sweep(model, {"test": data.test}, gatherers, batch_size=16)
        return len(calls)

    own = performance(model, data)
    right = replace(own, arrays={**own.arrays, "image.predicted": data.test.labels.numpy()})
    assert backwards(right) == 2  # two batches; three probes ask for two targets that are the same
    assert backwards(own) == 4


# -- networks


def test_in_place_relus_and_training_mode_do_not_matter() -> None:
    data = tiny_data()
    plain = records(tiny_network().eval(), data)
    assert_same_record(plain, records(tiny_network(inplace=True).train(), data), rtol=1e-5, atol=1e-6)
    x = images(data)
    torch.testing.assert_close(gradcam_maps(tiny_network(), x), gradcam_maps(tiny_network(inplace=True), x))


class Twice(nn.Module):
    """One convolution used twice, and one that is not used at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.spare = nn.Conv2d(3, 3, 3)
        self.head = nn.Linear(3, 3)
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3)."""
        x = self.conv(torch.relu(self.conv(x)))
        return self.head(x.mean((2, 3))) + self.rnn(x.flatten(2).transpose(1, 2))[0][:, -1]


def test_of_a_shared_layer_the_last_use_counts() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Twice().eval()
    data = tiny_data(test=8)
    x, target = images(data), data.test.labels
    second = model.conv(torch.relu(model.conv(x))).detach().requires_grad_()
    logits = model.head(second.mean((2, 3))) + model.rnn(second.flatten(2).transpose(1, 2))[0][:, -1]
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), second)
    expected = gradcam(second.detach(), gradient)
    torch.testing.assert_close(gradcam_maps(model, x, layer="conv", target=target), expected)
    stored = records(model, data, layer="conv", targets=["true"]).arrays["image.true"]
    np.testing.assert_allclose(stored, normalised(expected).numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("head", r"layer 'head' gives \((9|32), 3\), not \(images, channels, height, width\)"),
        ("spare", "layer 'spare' does not run when the network is evaluated"),
        ("convs", "unknown layer 'convs'; did you mean 'conv'?"),
    ],
)
def test_layers_that_have_no_maps_are_refused(layer: str, message: str) -> None:
    data = tiny_data()
    with pytest.raises(PrunescopeError, match=message):
        records(Twice(), data, layer=layer)
    with pytest.raises(PrunescopeError, match=message):
        gradcam_maps(Twice(), images(data), layer=layer)


def test_a_layer_that_gives_several_tensors_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="layer 'rnn' gives tuple"):
        gradcam_maps(Twice(), images(tiny_data()), layer="rnn")
    with pytest.raises(PrunescopeError, match="layer 'rnn' gives a tuple"):
        records(Twice(), tiny_data(), layer="rnn")


def test_a_network_that_is_not_finite_is_refused() -> None:
    model = tiny_network()
    with torch.no_grad():
        model.conv2.bias[0] = float("inf")  # type: ignore[union-attr, index]
    with pytest.raises(PrunescopeError, match="maps of layer 'conv2' are not finite"):
        records(model, tiny_data())
