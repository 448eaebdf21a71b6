"""Criteria of whole filters, beside their definitions written out for networks whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.untouched import fixed_rng, untouched
from prunescope.models.layers import prunable
from prunescope.pruning.criteria.response import independence
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import Batches, criterion, cut
from prunescope.testing import tiny_batches, tiny_network


def scores(model: nn.Module, name: str, batches: Batches, **options: Any) -> dict[str, Tensor]:
    mask = Mask.dense(model, prunable(model))
    with untouched(model):
        return dict(criterion(name, **options).score(model, mask, batches=batches, seed=0))


def per_filter(model: nn.Module, name: str, batches: Batches, **options: Any) -> dict[str, Tensor]:
    """One score per filter, after a look at whether its weights share it."""
    found = {}
    for weight, score in scores(model, name, batches, **options).items():
        first = score.flatten(1)[:, :1]
        assert bool((score.flatten(1) == first).all())
        found[weight] = first[:, 0].double()
    return found


def close(found: dict[str, Tensor], wanted: dict[str, Tensor], **tolerance: float) -> None:
    assert set(found) == set(wanted)
    for name, score in found.items():
        torch.testing.assert_close(
            score,
            wanted[name].double(),
            msg=lambda text, n=name: f"{n}: {text}",
            **({"rtol": 1e-5, "atol": 1e-6} | tolerance),
        )


# Networks, with what their filters answer


class Block(nn.Module):
    """A residual block with everything in place, one that pools before its ReLU, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.GroupNorm(2, 6)
        self.skip = nn.Conv2d(4, 6, 1)
        self.last = nn.Conv2d(6, 5, 1)
        self.twice = nn.Linear(5, 5)
        self.norm3 = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 3)."""
        x = self.act(F.max_pool2d(self.stem(x), 2))
        out = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        out += self.skip(x)
        x = torch.relu_(out)
        x = self.last(x).mean((2, 3))  # no activation function
        x = F.relu(self.norm3(self.twice(x)))
        return self.head(F.gelu(self.norm3(self.twice(x))))

    def answers(self, x: Tensor) -> dict[str, list[Tensor]]:
        """By hand, with nothing in place: {weight: answers (B, filters, places) of each call}."""
        a = F.relu(F.max_pool2d(self.stem(x), 2))
        b = F.relu(self.norm1(self.conv1(a)))
        c = F.relu(self.norm2(self.conv2(b)) + self.skip(a))
        d = self.last(c)
        e = F.relu(self.norm3(self.twice(d.mean((2, 3)))))
        f = F.gelu(self.norm3(self.twice(e)))
        maps = {
            "stem": [a],
            "conv1": [b],
            "conv2": [c],
            "skip": [c],
            "last": [d],
            "twice": [e, f],
            "head": [self.head(f)],
        }
        return {
            f"{name}.weight": [v.flatten(2) if v.ndim > 2 else v[..., None] for v in found]
            for name, found in maps.items()
        }


def block() -> Block:
    with fixed_rng():
        torch.manual_seed(3)
        model = Block()
        for norm in (model.norm1, model.norm2, model.norm3):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return model.eval()


def images() -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of different sizes, so that a mean of means would be another."""
    generator = torch.Generator().manual_seed(1)
    for count in (5, 2, 4):
        yield torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 3


def over_images(model: Block, number: Callable[[Tensor], float]) -> dict[str, Tensor]:
    """Mean over images and calls of a number of one filter's answers (places,), in loops."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        answers = [model.answers(x) for x, _ in images()]
    for name in answers[0]:
        rows = [image for batch in answers for call in batch[name] for image in call]
        found[name] = torch.tensor([[number(row) for row in image] for image in rows]).mean(0)
    return found


def test_apoz_counts_zeros_behind_the_relu() -> None:
    wanted = over_images(block(), lambda places: 1 - float((places == 0).float().mean()))
    assert 0 < float(wanted["conv2.weight"].min()) < 1
    close(per_filter(block(), "apoz", images, n_batches=0), wanted)


def test_the_mean_activation_is_that_behind_the_relu() -> None:
    close(per_filter(block(), "activation", images, n_batches=0), over_images(block(), lambda v: float(v.abs().mean())))


def test_chip_is_a_singular_value_decomposition_per_filter() -> None:
    model, wanted = block(), {}
    with torch.no_grad():
        answers = [model.answers(x) for x, _ in images()]
    for name in answers[0]:
        rows = [without_each(image) for batch in answers for call in batch[name] for image in call]
        wanted[name] = torch.stack(rows).mean(0)
    close(per_filter(model, "chip", images, n_batches=0), wanted)


def without_each(maps: Tensor) -> Tensor:
    """The definition: nuclear norm of (filters, places), minus that with a row set to zero."""
    found = []
    for i in range(len(maps)):
        rest = maps.double().clone()
        rest[i] = 0
        found.append(torch.linalg.svdvals(maps.double()).sum() - torch.linalg.svdvals(rest).sum())
    return torch.stack(found)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]))
@settings(max_examples=80, deadline=None)
def test_independence_of_any_matrix(rows: int, columns: int, seed: int, size: float) -> None:
    """Also of those with zero rows, equal rows and rows that others make up."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(rows, columns, generator=generator).double()
    for i in range(rows):
        kind = int(torch.randint(0, 5, (), generator=generator))
        if kind == 0:
            maps[i] = 0
        elif kind == 1:
            maps[i] = maps[0]
        elif kind == 2:
            maps[i] = maps[:i].sum(0)
    maps *= size
    found = independence(maps[None])[0]
    torch.testing.assert_close(found, without_each(maps), rtol=0, atol=2e-7 * max(float(maps.norm()), 1e-30))


def test_a_channel_that_another_repeats_is_less_independent() -> None:
    maps = torch.eye(3, 8)
    maps[2] = maps[1]
    found = independence(maps[None])[0].tolist()
    assert found == pytest.approx([1, 2**0.5 - 1, 2**0.5 - 1])


def test_a_layer_that_does_not_run_is_refused() -> None:
    model = tiny_network()
    model.spare = nn.Conv2d(3, 3, 1)
    for name in ("apoz", "chip"):
        with pytest.raises(PrunescopeError, match=r"spare\.weight does not run as one; add it to `ignore`"):
            scores(model, name, tiny_batches())


def test_attention_runs_its_projection_out_of_sight() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(True)
    with pytest.raises(PrunescopeError, match=r"self_attn\.out_proj\.weight"):
        scores(model, "activation", lambda: iter([(torch.randn(2, 3, 8), torch.zeros(2))]))


# Scales of norms


def test_the_norm_that_reads_the_layer_alone_is_its_scale() -> None:
    model = block()
    found = per_filter(model, "bn-scale", images)
    for layer, norm in (("conv1", model.norm1), ("conv2", model.norm2), ("twice", model.norm3)):
        torch.testing.assert_close(found[f"{layer}.weight"], norm.weight.detach().abs().double())


def test_a_norm_behind_a_sum_is_nobody_s() -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.second(self.norm1(self.first(x)).relu())
            return self.third(self.norm2(x).relu()).mean((2, 3))

    model = PreActivation().eval()
    with torch.no_grad():
        model.norm2.weight.fill_(7.0)
    found = per_filter(model, "bn-scale", images)
    assert found["first.weight"].tolist() == [1.0] * 3
    assert float(found["second.weight"].max()) <= 2.0


def test_filters_without_a_norm_go_last_and_by_their_size() -> None:
    model, units = block(), granularity("filter")
    found = per_filter(model, "bn-scale", images)
    largest = max(float(found[name].max()) for name in ("conv1.weight", "conv2.weight", "twice.weight"))
    for name in ("stem.weight", "skip.weight", "last.weight", "head.weight"):
        assert float(found[name].min()) >= largest
        sizes = dict(model.named_parameters())[name].detach().abs().flatten(1).sum(1)
        assert found[name].argsort().tolist() == sizes.argsort().tolist()
    whole = Mask.dense(model, units.names(model))
    left = cut(model, whole, criterion("bn-scale"), keep=15 / 32, granularity=units, batches=images)
    alive = {name: int(kept.flatten(1).any(1).sum()) for name, kept in left.items()}
    assert alive == {
        "stem.weight": 4, "conv1.weight": 0, "conv2.weight": 0, "skip.weight": 6, "last.weight": 5, "twice.weight": 0,
    }  # fmt: skip


def test_scales_need_norms() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(PrunescopeError, match="none reads the output of a layer that may be cut"):
        scores(model, "bn-scale", images)


# Gates


def test_a_gate_s_taylor_term_is_its_squared_gradient() -> None:
    model = tiny_network().double().eval()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    names, wanted, seen = prunable(model), dict[str, Tensor](), 0
    for x, y in tiny_batches()():
        gates = {n: torch.ones(len(weights[n]), *[1] * (weights[n].ndim - 1)).double().requires_grad_() for n in names}
        gated = {name: w * gates[name] if name in gates else w for name, w in weights.items()}
        loss = F.cross_entropy(torch.func.functional_call(model, gated, (x.double(),)), y)
        for name, slope in zip(names, torch.autograd.grad(loss, list(gates.values())), strict=True):
            wanted[name] = wanted.get(name, torch.zeros(())) + len(y) * slope.flatten() ** 2
        seen += len(y)
    found = per_filter(model, "taylor-gate", lambda: ((x.double(), y) for x, y in tiny_batches()()), n_batches=0)
    close(found, {name: total / seen for name, total in wanted.items()}, rtol=1e-9, atol=1e-15)


# Outgoing magnitude: what reads a channel


class Coupled(nn.Module):
    """`stem` and `conv1` make the same channels; `conv1` and `conv2` read them; `head` reads conv2's at four places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.conv2, self.head = nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 4, 4) -> (B, 3)."""
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv1(x))
        return self.head(F.relu(self.conv2(x)).flatten(1))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_outgoing_magnitude_is_a_loop_over_the_weights_that_read_a_channel(p: int, reduce: str) -> None:
    with fixed_rng():
        torch.manual_seed(0)
        model = Coupled().eval()
    units = granularity("channel", members="outgoing", reduce=reduce).fitted(model, (3, 4, 4))
    whole = Mask.dense(model, units.names(model))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    read = {
        "stem": [[float(v) for name in ("conv1", "conv2") for v in weights[f"{name}.weight"][:, c].flatten()]
                 for c in range(6)],
        "conv2": [[float(v) for place in range(4) for v in weights["head.weight"][:, 4 * c + place]] for c in range(5)],
    }  # fmt: skip
    for name, channels in read.items():
        values = [sum(abs(v) ** p for v in found) / (len(found) if reduce == "mean" else 1) for found in channels]
        ranked = sorted(range(len(values)), key=lambda c: -values[c])
        for count in range(2, len(values)):
            by = criterion("magnitude", p=p)
            after = cut(model, whole, by, keep=count / len(values), scope="layer", granularity=units)
            alive = after[f"{name}.weight"].flatten(1).any(1).nonzero().flatten().tolist()
            assert alive == sorted(ranked[:count]), (name, count)
            assert torch.equal(after["stem.weight"].flatten(1).any(1), after["conv1.weight"].flatten(1).any(1))
