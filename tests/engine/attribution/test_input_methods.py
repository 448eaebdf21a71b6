"""Input methods beside Captum called directly and closed forms; networks that Captum would treat wrongly."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.attribution.base import InputMethod, collapsed, method_of
from prunescope.engine.attribution.rewritten import folded_for, rewritten
from prunescope.engine.untouched import untouched
from prunescope.models.zoo import build_model
from prunescope.testing import Snapshot, tiny_data, tiny_network
from prunescope.testing.snapshot import prepare

METHODS = ["saliency", "input_x_gradient", "integrated_gradients", "smoothgrad", "deeplift", "lrp"]


def signed(model: nn.Module, x: Tensor, target: Tensor, spec: object) -> Tensor:
    method = method_of(spec)
    assert isinstance(method, InputMethod)
    with untouched(model):
        return method.attributor(model)(x, target)


def images(count: int = 9) -> tuple[Tensor, Tensor]:
    _, x, y = next(tiny_data().test.batches(count))
    return x.contiguous(), y


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(3, 192, generator=torch_generator(0)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 3)."""
        return self.head(x.flatten(1))


@pytest.mark.parametrize("name", METHODS)
def test_of_a_linear_network_all_is_known(name: str) -> None:
    model, (x, target) = Linear(), images()
    weight = model.head.weight[target].view(x.shape).detach()
    expected = weight if name in ("saliency", "smoothgrad") else weight * x
    torch.testing.assert_close(signed(model, x, target, name), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "peer", "options"),
    [
        ("saliency", Saliency, {"abs": False}),
        ("input_x_gradient", InputXGradient, {}),
        ("integrated_gradients", IntegratedGradients, {"baselines": 0.0, "n_steps": 32}),
        ("deeplift", DeepLift, {"baselines": 0.0}),
    ],
)
@pytest.mark.parametrize("network", ["tiny", "small_cnn"])
def test_equal_to_captum(name: str, peer: Callable[..., Any], options: dict[str, Any], network: str) -> None:
    model = tiny_network().eval() if network == "tiny" else build_model(network, classes=3, channels=3, seed=0).eval()
    x, target = images(1 if (name, network) == ("deeplift", "small_cnn") else 9)  # its max pooling takes one image
    direct = peer(model).attribute(x.clone().requires_grad_(), target=target, **options)
    torch.testing.assert_close(signed(model, x, target, name), direct.detach().float(), rtol=1e-3, atol=1e-6)


def test_smoothgrad_without_noise_is_saliency_and_with_noise_a_mean() -> None:
    model, (x, target) = tiny_network().eval(), images()
    still = signed(model, x, target, {"name": "smoothgrad", "noise": 0.0, "samples": 3})
    torch.testing.assert_close(still, signed(model, x, target, "saliency"))
    found = signed(model, x, target, {"name": "smoothgrad", "noise": 0.2, "samples": 5, "seed": 3})
    noise = torch.randn(5, 3, 8, 8, generator=torch_generator(3, "smoothgrad", 3, 8, 8))
    for image, c, ours in zip(x, target.tolist(), found, strict=True):
        total = torch.zeros_like(image)
        for one in noise:
            noisy = (image + 0.2 * (image.max() - image.min()) * one).requires_grad_()
            model(noisy[None])[0, c].backward()
            total += noisy.grad  # type: ignore[arg-type]
        torch.testing.assert_close(ours, total / 5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["integrated_gradients", "deeplift"])
@pytest.mark.parametrize("network", ["tiny", "small_cnn", "resnet8", "overlapping"])
def test_attributions_sum_to_the_difference(name: str, network: str) -> None:
    """Completeness (Sundararajan et al. 2017, axiom) and summation to delta (Shrikumar et al. 2017)."""
    model, (x, target) = NETWORKS[network](), images()
    spec = {"name": name, "steps": 200} if name == "integrated_gradients" else name
    with torch.no_grad():
        both = [model(v).gather(1, target[:, None])[:, 0] for v in (x, torch.zeros_like(x))]
    found = signed(model, x, target, spec).flatten(1).sum(1)
    tolerance = 0.05 if name == "integrated_gradients" else 1e-4
    torch.testing.assert_close(
        found, both[0] - both[1], rtol=0, atol=tolerance * float((both[0] - both[1]).abs().max())
    )


class Overlapping(nn.Module):
    """Max pooling with overlapping windows, one ReLU used twice, one as a function, a sum, an in-place ReLU, a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.three = nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.pool, self.norm = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 3)."""
        x = self.pool(self.relu(self.norm(self.one(x))))
        x = self.relu(self.two(x) + x)
        x = F.relu(self.three(x) + x)
        return self.head(F.max_pool2d(x, 2).flatten(1))


def overlapping() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Overlapping()
        model.norm.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
    return model.eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tiny": lambda: tiny_network().eval(),
    "small_cnn": lambda: build_model("small_cnn", classes=3, channels=3, seed=0).eval(),
    "resnet8": lambda: build_model("resnet8", classes=3, channels=3, seed=0).eval(),
    "overlapping": overlapping,
}


@pytest.mark.parametrize("network", list(NETWORKS))
def test_lrp_s_epsilon_rule_is_input_times_gradient(network: str) -> None:
    """Proposition 1 of Ancona et al. (2018)."""
    model, (x, target) = NETWORKS[network](), images()
    plain = signed(model, x, target, "input_x_gradient")
    found = signed(model, x, target, {"name": "lrp", "rule": "epsilon"})
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-3 * float(plain.abs().max()))


def test_lrp_s_gamma_rule_by_hand() -> None:
    """Conv - ReLU - conv - ReLU - linear, layer by layer as in Montavon et al. (2019), equation for LRP-gamma."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        head = nn.Linear(5 * 64, 3)
    model, (x, target) = nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), nn.Flatten(), head).eval(), images(4)

    def share(layer: Callable[[Tensor], Tensor], a: Tensor, relevance: Tensor) -> Tensor:
        a = a.detach().requires_grad_()
        z = layer(a)
        z = z + 1e-9 * torch.where(z >= 0, 1.0, -1.0)
        (c,) = torch.autograd.grad(z, a, relevance / z.detach())
        return (a * c).detach()

    def favoured(a: Tensor) -> Tensor:
        return F.conv2d(a, two.weight + 0.25 * two.weight.clamp(min=0), two.bias, padding=1)

    first, second = model[:2](x), model[:4](x)
    wanted = F.one_hot(target, 3) * model(x)
    relevance = share(head, second.flatten(1), wanted.detach()).view(second.shape)
    expected = share(one, x, share(favoured, first, relevance))
    torch.testing.assert_close(signed(model, x, target, "lrp"), expected, rtol=1e-3, atol=1e-5)


# -- networks that Captum does not understand


class Odd(nn.Module):
    """One convolution, and then whatever is asked for."""

    def __init__(self, rest: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.rest = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3), rest
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(0, parameter.shape)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3)."""
        return self.head(self.rest(self.conv(x)))


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "a product of maps": lambda v: (v * v.sigmoid()).mean((2, 3)),
    "GELU": lambda v: F.gelu(v).mean((2, 3)),
    "control flow": lambda v: F.elu(v).mean((2, 3)) if float(v.sum()) < 1e9 else v.mean((2, 3)),
}


@pytest.mark.parametrize("name", ["deeplift", "lrp"])
@pytest.mark.parametrize("what", list(ODD))
def test_what_captum_does_not_see_is_refused_rather_than_wrong(what: str, name: str) -> None:
    with pytest.raises(PrunescopeError, match=f"{name} does not apply to Odd: .*take integrated_gradients"):
        signed(Odd(ODD[what]).eval(), *images(), name)


@pytest.mark.parametrize("name", ["deeplift", "lrp", "integrated_gradients"])
def test_of_several_outputs_the_first_is_explained(name: str) -> None:
    class Two(Odd):
        def forward(self, x: Tensor) -> Any:
            maps = self.rest(self.conv(x))
            return self.head(maps), maps, maps.mean()

    def rest(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps.relu(), 8).flatten(1)

    one, two = (signed(kind(rest).eval(), *images(), name) for kind in (Odd, Two))
    assert one.abs().max() > 0
    torch.testing.assert_close(one, two)


def test_lrp_refuses_a_mean_that_it_does_not_see() -> None:
    with pytest.raises(PrunescopeError, match="off input times gradient, so it holds a step"):
        signed(Odd(lambda v: v.relu().mean((2, 3))).eval(), *images(), "lrp")


def test_transformers_are_refused() -> None:
    models = torchvision_module("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.VisionTransformer(8, 4, 1, 2, 8, 16, num_classes=3).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    for name, message in (("deeplift", "layer norm"), ("lrp", "no rule for one of its modules .*LayerNorm")):
        with pytest.raises(PrunescopeError, match=message):
            signed(model, *images(), name)


def test_a_rewritten_network_computes_the_same() -> None:
    sums = importlib.import_module("captum.attr._utils.custom_modules").Addition_Module
    x, _ = images()
    for make in NETWORKS.values():
        model = make()
        for copy in (rewritten(model), rewritten(model, addition=sums, folded=True)):
            torch.testing.assert_close(copy(x), model(x), rtol=1e-4, atol=1e-5)
            assert not any(getattr(module, "inplace", False) for module in copy.modules())


class Fickle(nn.Module):
    """Says something else every time, whichever copy it is."""

    times = 0

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3)."""
        Fickle.times += 1
        return self.norm(self.conv(x)).mean((2, 3)) * Fickle.times


def test_folded_networks_say_the_same_or_are_not_used() -> None:
    x, _ = images()
    for name in ("small_cnn", "resnet8", "overlapping"):
        model = NETWORKS[name]()
        folded = folded_for(model, x)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    unsure = Fickle().eval()
    assert folded_for(unsure, x) is unsure
    untraced = Odd(ODD["control flow"]).eval()
    assert folded_for(untraced, x) is untraced


# -- properties


@pytest.mark.parametrize("name", [*METHODS, "edges"])
def test_batches_do_not_matter_and_the_network_is_left_alone(name: str) -> None:
    model = prepare(tiny_network(inplace=True))
    before, (x, target) = Snapshot(model), images()
    whole = signed(model, x, target, name)
    parts = [signed(model, a, b, name) for a, b in zip(x.split(2), target.split(2), strict=True)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-3, atol=1e-6)
    assert not before.differences()
    assert not x.requires_grad


def test_deeplift_of_many_images_is_that_of_each() -> None:
    """Captum's own rule for max pooling takes the first image's gradient for all."""
    model, (x, target) = overlapping(), images()
    whole = signed(model, x, target, "deeplift")
    each = torch.cat([signed(model, a, b, "deeplift") for a, b in zip(x.split(1), target.split(1), strict=True)])
    torch.testing.assert_close(whole, each, rtol=1e-3, atol=1e-5)


def test_heat() -> None:
    values = torch.tensor([[[[1.0, -4.0]], [[2.0, 1.0]]]])
    assert collapsed(values, "positive").tolist() == [[[3.0, 0.0]]]
    assert collapsed(values, "absolute").tolist() == [[[3.0, 3.0]]]
    assert collapsed(values, "largest").tolist() == [[[2.0, 4.0]]]


def test_bad_options_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec, message in (
        ({"name": "saliency", "heat": "hot"}, "heat"),
        ({"name": "integrated_gradients", "steps": 0}, "steps must be at least 1"),
        ({"name": "smoothgrad", "samples": 0}, "samples >= 1"),
        ({"name": "lrp", "rule": "delta"}, "rule"),
        ({"name": "lrp", "gamma": -1}, "gamma must be 0 or more"),
    ):
        with pytest.raises(PrunescopeError, match=message):
            method_of(spec)
    imported = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("captum"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    assert builtins.__import__ is not without
    with pytest.raises(PrunescopeError, match=r"needs the package 'captum': .*prunescope\[attribution\]"):
        signed(tiny_network(), *images(), "saliency")


def test_attributions_that_are_not_finite_are_refused() -> None:
    model = tiny_network()
    with torch.no_grad():
        model.head.weight[:] = float("nan")  # type: ignore[union-attr, index, operator]
    with untouched(model), pytest.raises(PrunescopeError, match="attributions are not finite"):
        method_of("saliency").explainer(model)(*images())
