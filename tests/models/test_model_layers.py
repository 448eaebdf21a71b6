from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.layers import execution_order, last_conv, penultimate, prunable
from prunescope.models.zoo import build_model


def build(name: str) -> nn.Module:
    return build_model(name, classes=4, channels=3, seed=0)


@pytest.mark.parametrize(
    ("name", "conv", "head"),
    [
        ("small_cnn", "features.conv3", "classifier"),
        ("resnet8", "stage3.0.conv2", "classifier"),  # not the projection of the same block
        ("resnet20", "stage3.2.conv2", "classifier"),
        ("vgg11", "features.conv8", "classifier"),
        ("torchvision:resnet18", "layer4.1.conv2", "fc"),
        ("torchvision:squeezenet1_0", "features.12.expand3x3", "classifier.1"),
        ("torchvision:googlenet", "inception5b.branch4.1.conv", "fc"),
        ("torchvision:mobilenet_v3_small", "features.12.0", "classifier.3"),
    ],
)
def test_last_convolution_and_head(name: str, conv: str, head: str) -> None:
    model = build(name)
    assert (last_conv(model), penultimate(model)) == (conv, head)


@pytest.mark.parametrize("name", ["resnet20", "torchvision:googlenet", "torchvision:squeezenet1_0"])
def test_order_is_that_of_a_real_pass(name: str) -> None:
    model = build(name).eval()
    seen: list[str] = []
    for path, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, args, out, path=path: seen.append(path))
    model(torch.zeros(1, 3, 48, 48))
    assert execution_order(model) == seen


class Backwards(nn.Module):
    """Registered in another order than it runs; `twice` runs twice, `unused` never."""

    def __init__(self, traceable: bool) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.once, self.twice, self.unused = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.aux = nn.Linear(4, 2)
        self.traceable = traceable

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.twice(self.once(F.relu(self.twice(x))))
        if not self.traceable and x.sum() > 0:
            x = x * 2
        x = x.mean((2, 3))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


def test_execution_order_is_not_module_order() -> None:
    model = Backwards(traceable=True)
    assert execution_order(model) == ["once", "twice", "head"]
    assert (last_conv(model), penultimate(model)) == ("twice", "head")
    assert model.training


def test_networks_that_cannot_be_traced_fall_back_on_module_order() -> None:
    model = Backwards(traceable=False)
    assert execution_order(model) == ["head", "once", "twice", "unused"]
    assert (last_conv(model), penultimate(model)) == ("unused", "head")
    assert model.training


def test_networks_without_what_is_asked_for() -> None:
    with pytest.raises(PrunescopeError, match="no 2-d convolution before its head"):
        last_conv(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(PrunescopeError, match="no linear layer and no convolution"):
        penultimate(nn.Sequential(nn.ReLU()))


def test_prunable_is_weights_of_convolutions_and_linear_layers_in_model_order() -> None:
    model = build("resnet8")
    names = prunable(model)
    order = [name for name, _ in model.named_parameters()]
    assert names == [name for name in order if name in names]
    assert len(names) == 1 + 3 * 2 + 2 + 1
    assert {dict(model.named_parameters())[name].dim() for name in names} == {2, 4}


def test_biases_and_norms_when_asked() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Conv3d(1, 1, 1, bias=False), nn.LayerNorm(3))
    assert prunable(model) == ["0.weight", "2.weight"]
    assert prunable(model, bias=True) == ["0.weight", "0.bias", "2.weight"]
    assert prunable(model, norm=True) == ["0.weight", "1.weight", "2.weight", "3.weight"]
    everything = prunable(model, bias=True, norm=True)
    assert everything == [name for name, _ in model.named_parameters()]
    assert prunable(nn.BatchNorm2d(3, affine=False), norm=True) == []
    assert prunable(nn.Linear(2, 2)) == ["weight"]


def test_auxiliary_heads_only_when_asked() -> None:
    model = build("torchvision:googlenet")
    extra = set(prunable(model, aux=True)) - set(prunable(model))
    assert len(prunable(model)) == 57 + 1
    assert extra == {f"aux{i}.{layer}.weight" for i in (1, 2) for layer in ("conv.conv", "fc1", "fc2")}


def test_ignore_takes_parameters_modules_and_patterns() -> None:
    model = build("resnet8")
    everything = prunable(model)
    assert prunable(model, ignore=["conv1"]) == everything[1:]  # the stem, not every conv1
    assert prunable(model, ignore=["conv1.weight", "classifier"]) == everything[1:-1]
    assert prunable(model, ignore=["stage2"]) == [name for name in everything if not name.startswith("stage2")]
    assert prunable(model, ignore=["*.shortcut.*"]) == [name for name in everything if "shortcut" not in name]
    assert prunable(model, ignore=["bn1"]) == everything  # there, though not prunable


def test_ignore_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(PrunescopeError, match=r"'clasifier' matches no.*did you mean 'classifier'"):
        prunable(build("resnet8"), ignore=["conv1", "clasifier"])
    with pytest.raises(PrunescopeError, match=r"'layer4\.\*' matches no"):
        prunable(build("resnet8"), ignore=["layer4.*"])


def test_tied_weights_are_listed_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert prunable(model) == ["0.weight"]
    assert Mask.dense(model, prunable(model)).total == 9
