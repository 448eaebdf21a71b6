"""Which channels hang together, beside Torch-Pruning's dependency graph and by what removal does."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.models.graph import FIXED, channel_graph
from random_nets import lively

Places = set[tuple[str, str, int]]


def ours(model: nn.Module, shape: tuple[int, ...]) -> dict[int, Places]:
    """{unit: (module, in or out, index)}, of convolutions, linear layers and norms."""
    found: dict[int, Places] = defaultdict(set)
    for name, axes in channel_graph(model, shape).axes.items():
        module, _, part = name.rpartition(".")
        for axis, units in axes.items() if part == "weight" else ():
            for index, unit in enumerate(units.tolist()):
                if unit != FIXED:
                    found[unit].add((module, "in" if axis else "out", index))
    return found


def theirs(model: nn.Module, module: nn.Module, index: int, image: Tensor, graph: tp.DependencyGraph) -> Places:
    names = {id(layer): name for name, layer in model.named_modules()}
    cut = tp.prune_linear_out_channels if isinstance(module, nn.Linear) else tp.prune_conv_out_channels
    found: Places = set()
    for dep, indices in graph.get_pruning_group(module, cut, idxs=[index]):
        layer = dep.target.module
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            reads = graph.is_in_channel_pruning_fn(dep.handler) and not isinstance(layer, nn.BatchNorm2d)
            side = "in" if reads else "out"
            found |= {(names[id(layer)], side, int(i)) for i in indices}
    return found


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "vgg11_bn", "alexnet", "squeezenet1_1"])
def test_units_are_torch_pruning_s_groups(name: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = torchvision_module("torchvision.models").get_model(name, weights=None, **options).eval()
    image = torch.zeros(1, 3, 224, 224) if name == "alexnet" else torch.zeros(1, 3, 64, 64)
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=image)
    units = ours(model, tuple(image.shape[1:]))
    unit_at = {place: unit for unit, places in units.items() for place in places}
    head = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]
    layers = [(n, layer) for n, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) > 7
    for where, layer in layers:
        if layer is head:
            assert (where, "out", 0) not in unit_at
            continue
        index = layer.weight.shape[0] // 3
        unit = unit_at[where, "out", index]
        assert units[unit] == theirs(model, layer, index, image, graph), where


def test_a_unit_of_a_flattened_map_is_read_at_all_its_places() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    graph = channel_graph(model, (1, 4, 4))
    assert graph.axes["2.weight"][1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert graph.axes["0.bias"][0].tolist() == [0, 1, 2]
    assert graph.positions == {"0.weight": 4, "2.weight": 1}
    assert graph.reasons == {"2.weight": "it is the network's output"}


def test_heads_and_neurons_of_a_transformer_are_units_and_its_stream_is_not() -> None:
    vit = torchvision_module("torchvision.models").VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=4, hidden_dim=24, mlp_dim=32, num_classes=5
    )
    graph = channel_graph(vit, (3, 16, 16))
    assert graph.units == 2 * (4 + 32)
    name = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
    units = graph.axes[name][0]
    assert units.unflatten(0, (3, 4, 6)).eq(units[:24].unflatten(0, (4, 6)).unsqueeze(0)).all()
    assert len(units.unique()) == 4
    assert "conv_proj.weight" in graph.reasons


class Unfollowed(nn.Module):
    """Softmax over channels: all of them hang together; what lies before and after is free."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(torch.relu(self.one(x))).softmax(1)
        return self.head(self.three(x).mean((2, 3)))


def test_what_cannot_be_followed_stays() -> None:
    graph = channel_graph(Unfollowed(), (3, 4, 4))
    assert graph.makers == ("one.weight", "three.weight")
    assert graph.reasons["two.weight"] == "softmax takes all channels together"
    assert (graph.axes["two.weight"][0] == FIXED).all()


class Branching(nn.Module):
    """Control flow on values, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        bright = bool(x.sum() > 0)
        x = self.one(x)
        return self.head(x.mean((2, 3)) if bright else -x.mean((2, 3)))


def test_control_flow_is_no_obstacle() -> None:
    assert channel_graph(Branching(), (3, 4, 4)).units == 4


def test_a_network_that_does_not_run_says_what_still_works() -> None:
    with pytest.raises(PrunescopeError, match=r"does not run on an image of shape \(3, 9, 9\).*needs no graph"):
        channel_graph(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 9, 9))


def test_the_network_is_left_as_it_was() -> None:
    model = lively(torchvision_module("torchvision.models").googlenet(init_weights=False)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    channel_graph(model, (3, 64, 64))
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
