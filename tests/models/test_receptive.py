"""What each place of a layer sees, beside the pixels that have a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.models.receptive import receptive_fields
from prunescope.models.zoo import build_model
from random_nets import SHAPE, networks


def open_to_gradients(model: nn.Module) -> nn.Module:
    """Every path has a positive gradient: weights average roughly, norms pass on, poolings average."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                assert child.dilation == 1
                soft = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, soft)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.uniform_(0.5 / tensor[0].numel(), 1.5 / tensor[0].numel(), generator=generator)
            elif tensor.is_floating_point():
                tensor.fill_(float(name.endswith(("running_var", "weight"))) or 0.01)
    return model.double().eval()


def maps_and_image(
    model: nn.Module, layers: list[str], shape: tuple[int, int, int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Every layer's output (C, h, w) on an image, with the graph that leads to it."""
    kept: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda *call, layer=layer: kept.update({layer: call[2][0].clone()})
        )
        for layer in layers
    ]
    x = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model(x + 0.1)
    for handle in handles:
        handle.remove()
    return kept, x


def support(values: Tensor, x: Tensor) -> list[int]:
    """First row, last row, first column, last column of the pixels on which some values depend."""
    (grad,) = torch.autograd.grad(values.sum(), x, allow_unused=True, retain_graph=True)
    seen = (grad[0] != 0).any(0)
    if not seen.any():
        return []
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return [int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())]


def agree(model: nn.Module, shape: tuple[int, int, int], layers: list[str], places: int = 4) -> None:
    fields = receptive_fields(model, shape)
    generator = torch.Generator().manual_seed(1)
    kept, x = maps_and_image(open_to_gradients(model), layers, shape)
    for layer in layers:
        height, width = fields[layer].shape[:2]
        corners = [(0, 0), (height - 1, width - 1), (height // 2, width // 2)]
        others = [(int(torch.rand((), generator=generator) * n) for n in (height, width)) for _ in range(places - 3)]
        for row, column in [*corners, *map(tuple, others)]:
            box = fields[layer][row, column].tolist()
            expected = support(kept[layer][:, row, column], x)
            assert box == expected if expected else box[1] < box[0] or box[3] < box[2], (layer, row, column)


LAYERS = {
    "alexnet": ["features.0", "features.6", "features.10"],
    "vgg11_bn": ["features.0", "features.11", "features.25"],
    "resnet18": ["conv1", "layer1.1.conv2", "layer2.0.downsample.0", "layer3.1.conv1"],
    "googlenet": ["conv1.conv", "inception3b.branch2.1.conv", "inception4a.branch4.1.conv", "inception4e.branch1.conv"],
    "squeezenet1_0": ["features.0", "features.4.expand3x3", "features.12.squeeze", "classifier.1"],
    "mobilenet_v2": ["features.0.0", "features.3.conv.1.0", "features.8.conv.2"],
    "mobilenet_v3_small": ["features.0.0", "features.1.block.0.0", "features.1.block.2.0", "features.4.block.1.0"],
    "shufflenet_v2_x1_0": ["conv1.0", "stage2.1.branch2.3", "stage3.0.branch1.0", "stage3.1.branch2.0"],
    "densenet121": ["features.conv0", "features.denseblock2.denselayer3.conv1", "features.transition1.conv"],
    "inception_v3": ["Conv2d_2b_3x3.conv", "Mixed_5b.branch5x5_2.conv", "Mixed_6b.branch7x7_2.conv"],
    "convnext_tiny": ["features.0.0", "features.1.1.block.0", "features.3.0.block.0"],
}


@pytest.mark.parametrize("name", LAYERS)
def test_torchvision_s_networks_see_where_their_gradients_are(name: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision_module("torchvision.models").get_model(name, weights=None, **options)
    agree(model.eval(), (3, 151, 131), LAYERS[name])


@pytest.mark.parametrize("name", ["small_cnn", "vgg11", "alexnet_cifar", "resnet20"])
def test_our_networks_see_where_their_gradients_are(name: str) -> None:
    model = build_model(name, classes=3, channels=1, seed=0)
    agree(model, (1, 37, 32), [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][::3])


@given(networks())
@settings(max_examples=15, deadline=None)
def test_random_blocks(model: nn.Module) -> None:
    agree(model, SHAPE, [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)])


class Branch(nn.Module):
    """A random layer in parallel with another of the same size, summed or concatenated."""

    def __init__(self, one: nn.Module, two: nn.Module, join: str) -> None:
        super().__init__()
        self.one, self.two, self.join = one, two, join

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        h, w = (min(p, q) for p, q in zip(a.shape[2:], b.shape[2:], strict=True))
        a, b = a[:, :, :h, :w], b[:, :, -h:, -w:]
        if self.join == "cat":
            return torch.cat([a, b], 1)
        if self.join == "+=":
            a = a.clone()
            a += b
            return a
        return a.mul(b) if self.join == "*" else a + b


@st.composite
def layer(draw: Any, width: int, out: int) -> nn.Module:
    """A convolution of any geometry, or a pooling with a 1x1 convolution behind it; out of step in both axes."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    kernel, stride = pair(1, 4), pair(1, 3)
    if draw(st.booleans()):
        groups = draw(st.sampled_from([1, 2]))
        padding = draw(st.sampled_from(["same", "valid"])) if draw(st.booleans()) and stride == (1, 1) else pair(0, 4)
        return nn.Conv2d(width, out, kernel, stride, padding, pair(1, 3), groups)
    padding = tuple(min(p, k // 2) for p, k in zip(pair(0, 2), kernel, strict=True))
    kind = draw(st.sampled_from([nn.AvgPool2d, nn.MaxPool2d]))
    return nn.Sequential(kind(kernel, stride, padding, ceil_mode=draw(st.booleans())), nn.Conv2d(width, out, 1))


@st.composite
def irregular(draw: Any) -> nn.Module:
    made: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        join = draw(st.sampled_from(["cat", "+=", "+", "*"]))
        made += [Branch(draw(layer(4, 4)), draw(layer(4, 4)), join)]
        made += [nn.Conv2d(8 if join == "cat" else 4, 4, draw(st.integers(1, 2)), groups=draw(st.sampled_from([1, 4])))]
    return nn.Sequential(*made)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@given(irregular())
@settings(max_examples=60, deadline=None)
def test_irregular_geometry(model: nn.Module) -> None:
    """Branches of other strides, dilations and even kernels, padding beyond the kernel, poolings with ceil_mode."""
    shape = (4, 33, 29)
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except RuntimeError:
        with pytest.raises(PrunescopeError, match="does not run on an image"):
            receptive_fields(model, shape)
        return
    agree(model, shape, [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)], places=6)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (4, 3), (3, 2)])
def test_same_padding_of_even_kernels_is_uneven(kernel: int, dilation: int) -> None:
    agree(nn.Sequential(nn.Conv2d(1, 1, kernel, padding="same", dilation=dilation)), (1, 12, 13), ["0"])


def test_known_fields() -> None:
    """Araujo et al. 2019 (Computing receptive fields of convolutional neural networks): at the last pooling AlexNet
    sees 195 pixels and VGG-16 212, where the field lies within the image."""
    alexnet = receptive_fields(torchvision_module("torchvision.models").alexnet(), (3, 400, 400), ["features.12"])
    first, last, *_ = alexnet["features.12"][6, 6].tolist()
    assert last - first + 1 == 195
    vgg = receptive_fields(torchvision_module("torchvision.models").vgg16(), (3, 320, 320), ["features.30"])
    first, last, *_ = vgg["features.30"][5, 5].tolist()
    assert last - first + 1 == 212


class Odd(nn.Module):
    """What is not often seen: reflection, a shift in place, a layer that runs twice, one that rests, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror = nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")
        self.twice, self.rests, self.last = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.up, self.behind = nn.ConvTranspose2d(2, 2, 2), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mirror(x)
        kept = x
        x = self.twice(self.twice(x))
        x[:, :1] = F.pad(x[:, :1], (0, 0, 1, 0))[:, :, :-1]
        kept.add_(F.pad(kept, (0, 0, 2, 0))[:, :, :-2])
        self.last(kept)
        return self.behind(self.up(x)).mean((2, 3))


def test_odd_ones() -> None:
    model = Odd().train()
    fields = receptive_fields(model, (1, 6, 6), ["mirror", "last", "behind", "up"])
    assert fields["mirror"][0, 3].tolist() == [0, 1, 2, 4]
    assert fields["last"][3, 5].tolist() == [0, 4, 4, 5]  # rows 2..4 and, from two rows above, 0..2
    assert (fields["behind"] == torch.tensor([0, 5, 0, 5])).all()  # no rule: the whole image
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_what_has_no_field_is_refused() -> None:
    for wanted, message in {
        "twice": "layer 'twice' runs 2 times", "rests": "layer 'rests' does not run", "lost": "unknown layer 'lost'",
    }.items():  # fmt: skip
        with pytest.raises(PrunescopeError, match=message):
            receptive_fields(Odd(), (1, 6, 6), [wanted])
    with pytest.raises(PrunescopeError, match="runs 2 times"):
        receptive_fields(Odd(), (1, 6, 6))
    with pytest.raises(PrunescopeError, match=r"gives \(2, 36\) for an image"):
        receptive_fields(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(2)), (1, 6, 6), ["1"])
    with pytest.raises(PrunescopeError, match=r"does not run on an image of shape \(2, 6, 6\)"):
        receptive_fields(Odd(), (2, 6, 6), ["mirror"])


def test_a_place_in_the_padding_sees_nothing_and_a_vector_sees_all() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, padding=1), nn.Flatten(), nn.Linear(16, 2))
    fields = receptive_fields(model, (1, 2, 2), ["0", "2"])
    assert fields["0"][0, 1].tolist() == [2, -1, 2, -1]
    assert fields["0"][1, 1].tolist() == [0, 0, 0, 0]
    assert fields["2"].tolist() == [[[0, 1, 0, 1]]]
