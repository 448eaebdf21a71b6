from __future__ import annotations

import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import fx, nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.zoo import build_model, models

OURS = ("alexnet_cifar", "resnet20", "resnet56", "resnet8", "small_cnn", "vgg11")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(config: Any, *, classes: int = 4, channels: int = 3, seed: int = 0) -> nn.Module:
    return build_model(config, classes=classes, channels=channels, seed=seed)


def test_ours_are_registered() -> None:
    assert set(OURS) <= set(models)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("channels", [1, 3])
def test_ours_run_train_and_trace(name: str, channels: int) -> None:
    model = build(name, classes=7, channels=channels)
    assert model.training
    images = torch.zeros(2, channels, 32, 32)
    assert model(images).shape == (2, 7)
    traced = fx.symbolic_trace(model.eval())
    assert torch.equal(traced(images), model(images))


@pytest.mark.parametrize("name", OURS)
def test_ours_have_named_relus_that_are_not_in_place(name: str) -> None:
    relus = {path: module for path, module in build(name).named_modules() if isinstance(module, nn.ReLU)}
    assert relus
    assert not any(relu.inplace for relu in relus.values())
    assert all(path.rsplit(".", 1)[-1].startswith("relu") for path in relus)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # A residual network of n blocks a stage, by hand: stem 3*9*16, per stage 2n convolutions of w*w*9 (the first
        # of stages 2 and 3 has half the inputs), two projections, two numbers per norm channel, and the head.
        *[
            (f"resnet{6 * n + 2}", 432 + 32 + sum(
                (2 * n - (w > 16)) * w * w * 9 + (w > 16) * (w // 2 * w * 9 + w // 2 * w + 2 * w) + 2 * n * 2 * w
                for w in (16, 32, 64)
            ) + 650)
            for n in (1, 3, 9)
        ],
        # He et al. 2016, table 6 (0.27 and 0.85 million, option A) plus the two projections of option B.
        ("resnet20", 269_722 + 16 * 32 + 64 + 32 * 64 + 128),
        ("resnet56", 853_018 + 16 * 32 + 64 + 32 * 64 + 128),
        # torchvision's vgg11_bn without its three linear layers and with its convolutions' biases taken off.
        ("vgg11", 132_868_840 - 123_642_856 - 2752 + 5130),
        # Filters of 7, 5 and 3 pixels, each with a bias, and the head, which reads 2x2 places of 128 channels.
        ("alexnet_cifar", 64 * 148 + 192 * 1601 + 192 * 1729 + 128 * 1729 + 128 * 1153 + 5130),
    ],
)  # fmt: skip
def test_parameter_counts(name: str, count: int) -> None:
    assert parameters(build(name, classes=10)) == count


def test_alexnet_of_small_images_is_the_one_of_the_paper_scaled_down() -> None:
    """Written out: pooling 3x3 by 2 after the first, second and last of five convolutions; dropout in training only."""
    model, x = build("alexnet_cifar").eval(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = model.state_dict()
    expected, sides = x, []
    for number in range(1, 6):
        w, b = (weights[f"features.conv{number}.{kind}"] for kind in ("weight", "bias"))
        expected = F.conv2d(expected, w, b, stride=2 if number == 1 else 1, padding=w.shape[-1] // 2).clamp(min=0)
        if number in (1, 2, 5):
            expected = F.max_pool2d(expected, 3, 2, 1)
        sides.append((w.shape[0], w.shape[-1], expected.shape[-1]))
    assert sides == [(64, 7, 8), (192, 5, 4), (192, 3, 4), (128, 3, 4), (128, 3, 2)]
    expected = expected.flatten(1) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(model(x), expected)
    assert not torch.equal(model.train()(x), expected)
    assert model(torch.zeros(1, 3, 48, 40)).shape == (1, 4)


def test_kaiming_normal_over_the_fan_in() -> None:
    conv = build("resnet20").get_submodule("stage3.1.conv1")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", ["resnet8", "torchvision:squeezenet1_0"])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    first = build(name, seed=3).state_dict()
    torch.manual_seed(123)
    again, other = build(name, seed=3).state_dict(), build(name, seed=4).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    kernels = [key for key, tensor in first.items() if tensor.dim() == 4]
    assert kernels
    assert not any(torch.equal(first[key], other[key]) for key in kernels)


def test_global_random_state_is_left_alone() -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    build("small_cnn")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # noqa: NPY002


def test_unknown_names_and_options_are_told_the_nearest() -> None:
    with pytest.raises(PrunescopeError, match="did you mean 'resnet20'"):
        build("resnet21")
    with pytest.raises(PrunescopeError, match="did you mean 'googlenet'"):
        build("torchvision:google_net")
    with pytest.raises(PrunescopeError, match="did you mean 'pretrained'"):
        build({"name": "torchvision:resnet18", "pretraind": True})
    with pytest.raises(PrunescopeError, match="unknown option 'widht'"):
        build({"name": "small_cnn", "widht": 3})
    with pytest.raises(PrunescopeError, match="expected a name"):
        build({"nam": "small_cnn"})


# -- torchvision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"), [("squeezenet1_0", 32), ("resnet18", 32), ("mobilenet_v3_small", 32), ("googlenet", 48)]
)
def test_torchvision_fits_classes_and_channels(name: str, size: int) -> None:
    for channels in (1, 3):
        model = build(f"torchvision:{name}", classes=5, channels=channels).eval()
        assert model(torch.zeros(1, channels, size, size)).shape == (1, 5)


def test_first_layer_for_other_channels_keeps_the_scale_of_its_output() -> None:
    outputs = []
    for channels in (3, 12):
        conv = build("torchvision:resnet18", channels=channels).get_submodule("conv1")
        outputs.append(conv(torch.randn(4, channels, 32, 32, generator=torch.Generator().manual_seed(0))).std().item())
    assert outputs[0] == pytest.approx(outputs[1], rel=0.1)


def test_googlenet_trains_with_two_auxiliary_heads_for_our_classes() -> None:
    model = build("torchvision:googlenet", classes=5)
    main, aux2, aux1 = model(torch.zeros(2, 3, 64, 64))
    assert main.shape == aux1.shape == aux2.shape == (2, 5)
    assert model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "maxpool"), ("googlenet", "conv2")])
def test_small_stem_keeps_the_resolution(name: str, layer: str) -> None:
    model = build({"name": f"torchvision:{name}", "small_stem": True}).eval()
    seen: list[torch.Size] = []
    model.get_submodule(layer).register_forward_hook(lambda module, args, out: seen.append(out.shape[-2:]))
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    assert seen == [(16, 16)]
    with pytest.raises(PrunescopeError, match="small_stem"):
        build({"name": "torchvision:squeezenet1_0", "small_stem": True})
    with pytest.raises(PrunescopeError, match="did you mean 'pool'"):
        build({"name": f"torchvision:{name}", "small_stem": "pol"})


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer1"), ("googlenet", "conv2")])
def test_a_small_stem_with_its_pool_halves_the_resolution(name: str, layer: str) -> None:
    model = build({"name": f"torchvision:{name}", "small_stem": "pool"}).eval()
    seen: list[torch.Size] = []
    model.get_submodule(layer).register_forward_hook(lambda module, args, out: seen.append(out.shape[-2:]))
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    assert seen == [(8, 8)]


@pytest.mark.parametrize("name", ["squeezenet1_0", "googlenet"])
def test_pretrained_from_a_file_gets_new_heads_and_keeps_the_rest(name: str, tmp_path: Path) -> None:
    source = build(f"torchvision:{name}", classes=1000, seed=1)
    path = tmp_path / "imagenet.safetensors"
    save_file(source.state_dict(), path)
    model = build({"name": f"torchvision:{name}", "pretrained": str(path)}, classes=5, seed=2)
    own, old = model.state_dict(), source.state_dict()
    changed = {key.rpartition(".")[0] for key in own if not own[key].equal(old[key])}
    assert changed == ({"classifier.1"} if name == "squeezenet1_0" else {"fc", "aux1.fc2", "aux2.fc2"})
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    if name == "googlenet":
        assert model.transform_input is True  # what torchvision's own weights were trained with


def test_pretrained_on_grey_images_answers_as_to_their_copy_in_three_channels(tmp_path: Path) -> None:
    source = build("torchvision:squeezenet1_0", classes=1000).eval()
    path = tmp_path / "imagenet.safetensors"
    save_file(source.state_dict(), path)
    grey = build({"name": "torchvision:squeezenet1_0", "pretrained": str(path)}, classes=1000, channels=1).eval()
    images = torch.rand(2, 1, 40, 40)
    expected = source.get_submodule("features")(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey.get_submodule("features")(images), expected)


def test_a_download_that_fails_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(PrunescopeError, match=r"could not be downloaded \(no route to host\).*`pretrained`"):
        build({"name": "torchvision:squeezenet1_1", "pretrained": True})


# -- timm and the user's own --------------------------------------------------------------------------------------


def test_timm_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PrunescopeError, match=r"prunescope\[timm\]"):
        build("timm:resnet18")


def test_timm_is_called_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.SimpleNamespace(
        is_model=lambda name: name == "net",
        list_models=lambda: ["net"],
        create_model=lambda name, pretrained, num_classes, in_chans: nn.Linear(in_chans, num_classes),
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    model = build("timm:net", classes=6, channels=2)
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features) == (2, 6)
    with pytest.raises(PrunescopeError, match="did you mean 'net'"):
        build("timm:nett")


USERS = """
import numpy, random, torch
from torch import nn
def net(classes, width=3):
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.Flatten(), nn.LazyLinear(classes))
def anything(**options):
    return nn.Linear(options["channels"], options["classes"])
def random_width(classes, channels):
    return nn.Linear(random.randrange(10**6) % 50 + numpy.random.randint(1, 50), classes)
def needy(classes, depth):
    return nn.Linear(depth, classes)
def wrong():
    return 3
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"users_nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/nowhere")  # restores sys.path afterwards
    return name


def test_users_factory_gets_what_it_takes(user: str) -> None:
    model = build({"name": f"{user}:net", "width": 5})
    assert model.get_submodule("0").out_channels == 5
    linear = build(f"{user}:anything", classes=6, channels=2)
    assert (linear.in_features, linear.out_features) == (2, 6)


def test_users_factory_is_seeded_whatever_it_draws_from(user: str) -> None:
    widths = [build(f"{user}:random_width", seed=seed).in_features for seed in (0, 0, 1, 2, 3)]
    assert widths[0] == widths[1]
    assert len(set(widths)) > 1


def test_users_mistakes(user: str) -> None:
    for config, message in [
        ({"name": f"{user}:net", "widht": 5}, "did you mean 'width'"),
        (f"{user}:nett", "did you mean 'net'"),
        (f"{user}:needy", "needs the option.s. depth"),
        (f"{user}:wrong", "must return an nn.Module, got int"),
        ("no_such_package:net", "cannot import 'no_such_package'"),
    ]:
        with pytest.raises(PrunescopeError, match=message):
            build(config)


def test_weights_are_loaded_into_any_network(tmp_path: Path) -> None:
    source = build("resnet8", seed=5)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build({"name": "resnet8", "weights": str(tmp_path / "w.safetensors")}, seed=0)
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(PrunescopeError, match=r"w.safetensors do not fit.*of another shape"):
        build({"name": "resnet8", "weights": str(tmp_path / "w.safetensors")}, classes=9)
