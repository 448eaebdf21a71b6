"""Effective density against a search for paths, one unit and one weight at a time, and against closed forms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.density import effective_density, effective_mask
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model

Node = tuple[object, ...]
Edge = tuple[Node, Node, tuple[str, tuple[int, ...]] | None]  # from, to, the weight on it (None: always kept)


class Paths:
    """The reference: a graph of single units, in which `live` walks from the inputs and back from the outputs."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []

    def conv(self, source: str, target: str, name: str, layer: nn.Conv2d, size: int) -> int:
        (k, _), (s, _), (p, _) = layer.kernel_size, layer.stride, layer.padding
        out = (size + 2 * p - k) // s + 1
        per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        for o in range(layer.out_channels):
            for i in range(per_in):
                for y, x, dy, dx in _positions(out, k):
                    row, column = y * s + dy - p, x * s + dx - p
                    if 0 <= row < size and 0 <= column < size:
                        start = (source, (o // per_out) * per_in + i, row, column)
                        self.edges.append((start, (target, o, y, x), (name, (o, i, dy, dx))))
        return out

    def max_pool(self, source: str, target: str, channels: int, size: int, k: int) -> int:
        for c in range(channels):
            for y, x, dy, dx in _positions(size // k, k):
                self.edges.append(((source, c, y * k + dy, x * k + dx), (target, c, y, x), None))
        return size // k

    def same(self, source: str, target: str, channels: int, size: int, offset: int = 0) -> None:
        for c in range(channels):
            for y in range(size):
                for x in range(size):
                    self.edges.append(((source, c, y, x), (target, c + offset, y, x), None))

    def linear(self, source: Callable[[int], list[Node]], target: str, name: str, layer: nn.Linear) -> None:
        for o in range(layer.out_features):
            for i in range(layer.in_features):
                for start in source(i):
                    self.edges.append((start, (target, o), (name, (o, i))))

    def live(self, mask: Mask, start: str, end: str) -> Mask:
        kept = [(a, b, w) for a, b, w in self.edges if w is None or w[0] not in mask or bool(mask[w[0]][w[1]])]
        ahead = _reach([(a, b) for a, b, _ in kept], start)
        back = _reach([(b, a) for a, b, _ in kept], end)
        result = {name: torch.zeros_like(tensor) for name, tensor in mask.items()}
        for a, b, w in kept:
            if w is not None and w[0] in result and a in ahead and b in back:
                result[w[0]][w[1]] = True
        return Mask(result)


def _positions(out: int, k: int) -> Iterator[tuple[int, int, int, int]]:
    return ((y, x, dy, dx) for y in range(out) for x in range(out) for dy in range(k) for dx in range(k))


def _reach(edges: list[tuple[Node, Node]], start: str) -> set[Node]:
    following = defaultdict(list)
    for a, b in edges:
        following[a].append(b)
    seen = {node for edge in edges for node in edge if node[0] == start}
    todo = list(seen)
    while todo:
        for node in following[todo.pop()]:
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return seen


class Everything(nn.Module):
    """Stride, max pooling, groups, depthwise, a residual sum in place, a concatenation, and a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.side = nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.bn(self.stem(x))), 2)
        y = self.depthwise(F.relu(self.grouped(x)))
        y += x
        y = torch.cat([y, F.hardswish(self.side(x))], 1)
        return self.head(F.dropout(y, 0.5, self.training).view(len(y), -1))

    def paths(self) -> Paths:
        graph = Paths()
        size = graph.conv("image", "stem", "stem.weight", self.stem, 8)
        size = graph.max_pool("stem", "x", 4, size, 2)
        graph.conv("x", "grouped", "grouped.weight", self.grouped, size)
        graph.conv("grouped", "joined", "depthwise.weight", self.depthwise, size)
        graph.same("x", "joined", 4, size)
        graph.conv("x", "side", "side.weight", self.side, size)
        graph.same("side", "joined", 2, size, offset=4)
        units = [("joined", c, y, x) for c in range(6) for y in range(2) for x in range(2)]
        graph.linear(lambda i: [units[i]], "logits", "head.weight", self.head)
        return graph


def random_mask(model: nn.Module, density: float, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    return Mask({n: torch.rand(parameters[n].shape, generator=generator) < density for n in prunable(model)})


@settings(max_examples=40, deadline=None)
@given(density=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_equals_a_search_for_paths(density: float, seed: int) -> None:
    model = Everything()
    mask = random_mask(model, density, seed)
    assert effective_mask(model, mask, (2, 8, 8)) == model.paths().live(mask, "image", "logits")


def test_the_comparison_has_teeth() -> None:
    """At 30 % density the two must differ from the nominal mask, and from 'the unit has any kept weight'."""
    model = Everything()
    mask = random_mask(model, 0.3, seed=3)
    live = effective_mask(model, mask, (2, 8, 8))
    assert live.nested_in(mask)
    assert 0 < live.kept < mask.kept


@settings(max_examples=15, deadline=None)
@given(density=st.floats(0, 0.5), seed=st.integers(0, 10**6))
def test_equals_the_search_on_a_residual_network_of_the_zoo(density: float, seed: int) -> None:
    """ResNet-8's last block and head on a 4x4 map of few channels: shortcut with projection, global average."""
    from prunescope.models.resnet import Block

    model = nn.Sequential(Block(2, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    block = model[0]
    assert isinstance(block, Block)
    assert isinstance(block.shortcut, nn.Sequential)
    graph = Paths()
    size = graph.conv("image", "hidden", "0.conv1.weight", block.conv1, 4)
    graph.conv("hidden", "sum", "0.conv2.weight", block.conv2, size)
    graph.conv("image", "sum", "0.shortcut.0.weight", block.shortcut[0], 4)
    graph.linear(lambda i: [("sum", i, y, x) for y in range(2) for x in range(2)], "out", "3.weight", model[3])
    mask = random_mask(model, density, seed)
    assert effective_mask(model, mask, (2, 4, 4)) == graph.live(mask, "image", "out")


def test_is_where_gradients_of_a_positive_network_are_not_zero() -> None:
    """The definition of SynFlow (Tanaka et al. 2020): positive weights, no bias, gradient of the summed outputs."""
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(),
                          nn.Linear(8, 4, bias=False)).double()  # fmt: skip
    mask = random_mask(model, 0.3, seed=1)
    live = effective_mask(model, mask, (6,))
    for parameter in model.parameters():
        parameter.data = parameter.data.abs()
    mask.apply_(model)
    model(torch.ones(1, 6).double()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(live[name], (parameter.grad != 0) & mask[name])
    assert 0 < live.kept < mask.kept


@pytest.mark.parametrize("name", ["small_cnn", "resnet20", "resnet56", "vgg11", "alexnet_cifar"])
def test_a_dense_network_is_all_alive(name: str) -> None:
    model = build_model(name, classes=10, channels=3, seed=0)
    assert effective_density(model, Mask.dense(model, prunable(model)), (3, 32, 32)) == 1.0


def test_a_cut_layer_kills_a_plain_network_but_not_a_residual_one() -> None:
    plain = build_model("small_cnn", classes=10, channels=3, seed=0)
    tensors = Mask.dense(plain, prunable(plain)).to_tensors()
    tensors["features.conv2.weight"][:] = False
    assert effective_density(plain, Mask(tensors), (3, 16, 16)) == 0.0

    residual = build_model("resnet8", classes=10, channels=3, seed=0)
    tensors = Mask.dense(residual, prunable(residual)).to_tensors()
    tensors["stage2.0.conv2.weight"][:] = False
    mask = Mask(tensors)
    dead = tensors["stage2.0.conv1.weight"].numel()  # leads only into the layer that is cut
    assert effective_mask(residual, mask, (3, 16, 16)).kept == mask.kept - dead


def test_one_dead_channel_takes_its_weights_on_both_sides_along() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5, 2))
    tensors = Mask.dense(model, prunable(model)).to_tensors()
    tensors["0.weight"][1] = False  # a filter whose bias lives on
    live = effective_mask(model, Mask(tensors), (3, 5, 5))
    assert live["2.weight"].sum() == 5 * 3 * 9
    assert not live["2.weight"][:, 1].any()


def test_only_the_middle_of_a_padded_kernel_touches_a_single_pixel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(1, 1))
    live = effective_mask(model, Mask.dense(model, prunable(model)), (1, 1, 1))
    assert live["0.weight"].nonzero().tolist() == [[0, 0, 1, 1]]


def test_pruned_norm_scales_cut_channels_and_biases_count_where_their_unit_leads_on() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
    tensors = Mask.dense(model, prunable(model, bias=True, norm=True)).to_tensors()
    tensors["1.weight"][0] = False
    tensors["0.weight"][1] = False  # unit 1 holds nothing but its bias
    tensors["3.weight"][0, 2] = False  # unit 2 leads nowhere
    live = effective_mask(model, Mask(tensors), (2,))
    assert {name: tensor.flatten().tolist() for name, tensor in live.items()} == {
        "0.weight": [False] * 6,
        "0.bias": [False, True, False],
        "1.weight": [False, False, False],
        "1.bias": [True, True, False],
        "3.weight": [False, False, False],
        "3.bias": [True],
    }


class Gated(nn.Module):
    """Squeeze-and-excitation around one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.head = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head((x * gate).mean((2, 3)))


def test_a_gate_never_closes_but_its_weights_need_a_path_too() -> None:
    model = Gated()
    tensors = Mask.dense(model, prunable(model)).to_tensors()
    tensors["excite.weight"][:] = False
    live = effective_mask(model, Mask(tensors), (1, 3, 3))
    assert {n: int(live[n].sum()) for n in live} == {
        "conv.weight": 2, "squeeze.weight": 0, "excite.weight": 0, "head.weight": 4,
    }  # fmt: skip


def test_attention_mixes_positions_not_heads() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(8, 2))
    names = prunable(model)
    assert effective_density(model, Mask.dense(model, names), (2, 4)) == 1.0
    tensors = Mask.dense(model, names).to_tensors()
    tensors["0.linear1.weight"][:] = False
    live = effective_mask(model, Mask(tensors), (2, 4))
    assert not live["0.linear2.weight"].any()
    assert live["0.self_attn.out_proj.weight"].all()  # past the feed-forward part, through the residual sum


def test_deep_and_wide_does_not_overflow() -> None:
    """200 paths more with every layer: 10^920 in all. A unit that nothing reaches must stay dead beside them."""
    model = nn.Sequential(*[nn.Linear(200, 200) for _ in range(400)])
    tensors = Mask.dense(model, prunable(model)).to_tensors()
    tensors["0.weight"][7] = False
    live = effective_mask(model, Mask(tensors), (200,))
    assert live.total - live.kept == 200 + 200
    assert not live["1.weight"][:, 7].any()


class Token(nn.Module):
    """A learned token beside the image's, a learned position, and a sum in place whose result is not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Parameter(torch.ones(1, 1, 2)), nn.Parameter(torch.ones(1, 3, 2))
        self.embed, self.mlp, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.position
        y = self.mlp(x)
        y.add_(x)
        return self.head(y.mT.mT.flatten(1))


def test_what_is_learned_but_does_not_depend_on_the_image_is_no_signal() -> None:
    model = Token()
    live = effective_mask(model, Mask.dense(model, prunable(model)), (2, 2))
    assert live["head.weight"].tolist() == [[False] * 2 + [True] * 4]


def test_a_sum_in_place_joins_also_when_its_result_is_not_looked_at() -> None:
    model = Token()
    tensors = Mask.dense(model, prunable(model)).to_tensors()
    tensors["mlp.weight"][:] = False
    live = effective_mask(model, Mask(tensors), (2, 2))
    assert live["embed.weight"].all()


def test_leaves_the_network_as_it_was() -> None:
    model = Everything().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    effective_density(model, random_mask(model, 0.5, 0), (2, 8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_refuses_what_it_cannot_follow() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.cumsum(x, 1))

    model = Odd()
    with pytest.raises(PrunescopeError, match="'cumsum'"):
        effective_density(model, Mask.dense(model, prunable(model)), (4,))
    assert model.training

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight - self.weight.mean())

    computed = nn.Sequential(Standardised(1, 1, 1))
    with pytest.raises(PrunescopeError, match="computed"):
        effective_density(computed, Mask.dense(computed, ["0.weight"]), (1, 2, 2))


def test_a_mask_of_another_network_is_an_error() -> None:
    with pytest.raises(PrunescopeError, match="no such parameter"):
        effective_density(nn.Linear(2, 2), Mask({"x": torch.ones(1).bool()}), (2,))
    with pytest.raises(PrunescopeError, match=r"\(2, 2\)"):
        effective_density(nn.Linear(2, 2), Mask({"weight": torch.ones(3, 2).bool()}), (2,))


def test_nothing_prunable_is_dense() -> None:
    assert effective_density(nn.ReLU(), Mask({}), (2,)) == 1.0
