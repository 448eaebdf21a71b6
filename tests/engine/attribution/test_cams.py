"""The CAM family beside pytorch-grad-cam and loops in the papers' notation; transformers beside its reshaping."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.attribution.base import Cam, Method, method_of, methods
from prunescope.engine.attribution.places import as_maps, both_of
from prunescope.engine.attribution.scorecam import ScoreCam
from prunescope.engine.untouched import untouched
from prunescope.models.layers import map_layer
from prunescope.testing import tiny_data, tiny_network

PEERS = {
    "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM",
    "scorecam": "ScoreCAM",
}  # fmt: skip


def pytorch_grad_cam(module: str = "") -> Any:
    torchvision_module()
    return importlib.import_module(f"pytorch_grad_cam{module}")


def maps_of(model: nn.Module, x: Tensor, target: Tensor, method: Method) -> Tensor:
    with untouched(model):
        return method.explainer(model)(x, target)


def images() -> tuple[Tensor, Tensor]:
    _, x, y = next(tiny_data().test.batches(100))
    return x.contiguous(), y


def peer_maps(name: str, model: nn.Module, layer: str, given: tuple[Tensor, Tensor], **options: Any) -> np.ndarray:
    """Its maps before scaling, which adds 1e-7 and resizes."""
    wanted, (x, target) = pytorch_grad_cam(".utils.model_targets").ClassifierOutputTarget, given
    with getattr(pytorch_grad_cam(), PEERS[name])(model, [model.get_submodule(layer)], **options) as tool:
        targets = [wanted(k) for k in target.tolist()]
        tool(x, targets)
        both = tool.activations_and_grads
        activation = both.activations[0].detach().numpy()
        gradient = both.gradients[0].numpy() if both.gradients else None
        return np.maximum(tool.get_cam_image(x, None, targets, activation, gradient, False), 0)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2", "relu2"])
@pytest.mark.parametrize("name", list(PEERS))
def test_equal_to_pytorch_grad_cam(name: str, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its interpolation for Score-CAM aligns corners, which the authors' own code does not.
    enlarged = lambda size: nn.Upsample(size=size, mode="bilinear", align_corners=False)  # noqa: E731
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", enlarged)
    model, given = tiny_network().eval().double(), images()
    x, target = given[0].double(), given[1]
    with torch.no_grad():
        model.head.weight.mul_(1e5)  # type: ignore[union-attr, operator]  # its 1e-6 in Grad-CAM++ then is small
    ours = maps_of(model, x, target, method_of({"name": name, "layer": layer})).numpy()
    peer = peer_maps(name, model, layer, (x, target))
    assert ours.max() > 0
    np.testing.assert_allclose(ours, peer, rtol=1e-4, atol=1e-6 * float(peer.max()))


def test_gradcam_plusplus_in_the_paper_s_notation() -> None:
    """Equations 19 and 20 of Chattopadhay et al. (2018), image by image; derivatives of exp(S) are powers of dS."""
    activation, gradient = torch.randn(2, 3, 4, 5, 6, generator=torch_generator(1), dtype=torch.float64)
    found = method_of("gradcam++").weigh(activation, gradient)  # type: ignore[attr-defined]
    for A, g, ours in zip(activation, gradient, found, strict=True):
        L = torch.zeros(5, 6, dtype=torch.float64)
        for k in range(4):
            w = 0.0
            for i in range(5):
                for j in range(6):
                    alpha = g[k, i, j] ** 2 / (2 * g[k, i, j] ** 2 + A[k].sum() * g[k, i, j] ** 3)
                    w += float(alpha * max(g[k, i, j], 0))
            L += w * A[k]
        torch.testing.assert_close(ours, L.clamp(min=0))


def test_score_cam_by_the_algorithm() -> None:
    """Algorithm 1 of Wang et al. (2020), channel by channel; chunks do not matter."""
    model, (x, target) = tiny_network().eval().double(), images()
    x, target = x[:5].double(), target[:5]
    activation = model.relu1(model.norm(model.conv1(x))).detach()  # type: ignore[operator]
    for image, c, A, *ours in zip(
        x, target.tolist(), activation,
        *(maps_of(model, x, target, ScoreCam("relu1", chunk=chunk)) for chunk in (1000, 7, 1)), strict=True,
    ):  # fmt: skip
        scores = []
        for A_k in A:
            H = nn.functional.interpolate(A_k[None, None], size=(8, 8), mode="bilinear", align_corners=False)[0, 0]
            H = (H - H.min()) / (H.max() - H.min()) if H.max() > H.min() else torch.zeros_like(H)
            scores.append(model((image * H)[None])[0, c])
        alpha = torch.stack(scores).softmax(0)
        L = sum((a * A_k for a, A_k in zip(alpha, A, strict=True)), torch.zeros(())).relu()
        for found in ours:
            torch.testing.assert_close(found, L.detach())


def test_hirescam_sums_to_the_logit_and_equals_gradcam_before_pooling() -> None:
    model, (x, target) = tiny_network().eval(), images()
    hires, grad = (maps_of(model, x, target, method_of({"name": n, "layer": "relu2"})) for n in ("hirescam", "gradcam"))
    torch.testing.assert_close(hires, grad)
    activation, gradient = both_of(model, "relu2", x, target)
    logits = model(x).gather(1, target[:, None])[:, 0].detach()
    torch.testing.assert_close((activation * gradient).sum((1, 2, 3)), logits, rtol=1e-4, atol=1e-5)  # no bias there


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 500), name=st.sampled_from(["gradcam", "gradcam++", "hirescam", "layercam"]))
def test_invariants(seed: int, name: str) -> None:
    method = method_of(name)
    assert isinstance(method, Cam)
    activation, gradient = torch.randn(2, 3, 4, 5, 5, generator=torch_generator(seed)).double()
    maps = method.weigh(activation, gradient)
    assert maps.shape == (3, 5, 5)
    assert bool((maps >= 0).all())
    order = torch.randperm(4, generator=torch_generator(seed))
    torch.testing.assert_close(method.weigh(activation[:, order], gradient[:, order]), maps)
    torch.testing.assert_close(method.weigh(activation.flip(3), gradient.flip(3)), maps.flip(2))
    assert not method.weigh(activation, torch.zeros_like(gradient)).any()


# -- where values lie


def test_layouts_are_told_by_their_shape() -> None:
    value = torch.randn(2, 5, 4, 4)
    assert as_maps(value, (32, 32), "it") is value
    torch.testing.assert_close(as_maps(value.permute(0, 2, 3, 1), (32, 32), "it"), value)
    wide = torch.randn(2, 6, 3, 6)
    torch.testing.assert_close(as_maps(wide, (16, 32), "it"), wide)
    torch.testing.assert_close(as_maps(wide.permute(0, 2, 3, 1), (16, 32), "it"), wide)
    cube = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(as_maps(cube, (8, 8), "it"), cube)  # as good either way: the usual one
    for prefix in (0, 1, 2, 5):
        tokens = torch.cat([torch.randn(2, prefix, 6), wide.flatten(2).transpose(1, 2)], 1)
        torch.testing.assert_close(as_maps(tokens, (16, 32), "it"), wide)
    tokens = torch.cat([torch.randn(2, 7, 6), wide.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(as_maps(tokens, (16, 32), "it", (3, 6)), wide)


@pytest.mark.parametrize(
    ("value", "grid", "message"),
    [
        (torch.zeros(2, 23, 6), (), r"layer 'it' gives 23 tokens, which fill no grid .*say how they lie: grid:"),
        (torch.zeros(2, 9, 6), (4, 4), "gives 9 tokens, fewer than a grid of 4 x 4"),
        (torch.zeros(2, 9), (), r"layer 'it' gives \(2, 9\), not \(images, channels, height, width\)"),
        ((torch.zeros(2),), (), "layer 'it' gives tuple, not"),
    ],
)
def test_what_is_no_map_is_refused(value: object, grid: tuple[int, ...], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        as_maps(value, (32, 32), "it", grid)


def transformer(kind: str) -> nn.Module:
    models = torchvision_module("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vit":
            model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
        else:
            model = models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=3)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()  # type: ignore[no-any-return]


def laid_out(value: Tensor) -> Tensor:
    """The reshape_transform of pytorch-grad-cam's documentation."""
    if value.ndim == 3:
        side = int((value.shape[1] - 1) ** 0.5)
        return value[:, 1:].reshape(len(value), side, side, -1).transpose(2, 3).transpose(1, 2)
    return value.transpose(2, 3).transpose(1, 2)


@pytest.mark.parametrize("name", list(PEERS))
@pytest.mark.parametrize(
    ("kind", "layer"), [("vit", "encoder.layers.encoder_layer_1.ln_1"), ("swin", "features.3.1.norm1")]
)
def test_transformers_as_pytorch_grad_cam_reshapes_them(
    kind: str, layer: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarged = lambda size: nn.Upsample(size=size, mode="bilinear", align_corners=False)  # noqa: E731
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", enlarged)
    model = transformer(kind).double()
    assert map_layer(model) == layer
    x = torch.randn(3, 3, 32, 32, generator=torch_generator(0)).double()
    target = torch.tensor([0, 2, 1])
    ours = maps_of(model, x, target, method_of(name)).numpy()
    peer = peer_maps(name, model, layer, (x, target), reshape_transform=laid_out)
    assert ours.shape == peer.shape
    if name == "gradcam++":  # its 1e-6 in the denominator is not small here
        assert np.corrcoef(ours.ravel(), peer.ravel())[0, 1] > 0.5
    else:
        np.testing.assert_allclose(ours, peer, rtol=1e-4, atol=1e-6 * float(peer.max()))


def test_the_default_layer_of_convolutional_networks_is_the_last_convolution() -> None:
    assert map_layer(tiny_network()) == "conv2"
    with pytest.raises(PrunescopeError, match="no 2-d convolution"):
        map_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


# -- bad options


def test_bad_options_are_refused() -> None:
    assert sorted(methods) == sorted([
        *PEERS, "saliency", "input_x_gradient", "integrated_gradients", "smoothgrad", "deeplift", "lrp", "edges",
    ])  # fmt: skip
    for spec, message in (
        ("gradcm", "unknown attribution method 'gradcm'; did you mean 'gradcam'"),
        ({"name": "gradcam", "grid": [4]}, r"grid is a height and a width, got \[4\]"),
        ({"name": "gradcam", "lyer": "x"}, "unknown key; did you mean 'layer'"),
        ({"name": "scorecam", "chunk": -1}, "chunk must be 0"),
    ):
        with pytest.raises(PrunescopeError, match=message):
            method_of(spec)
    with pytest.raises(PrunescopeError, match="unknown layer 'conv3'"):
        maps_of(tiny_network(), *images(), method_of({"name": "layercam", "layer": "conv3"}))


def test_maps_that_are_not_finite_are_refused() -> None:
    model = tiny_network()
    with torch.no_grad():
        model.conv2.bias[0] = float("inf")  # type: ignore[union-attr, index]
    with pytest.raises(PrunescopeError, match="maps of layer 'conv2' are not finite"):
        maps_of(model, *images(), method_of("layercam"))
