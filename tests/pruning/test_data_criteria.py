"""Criteria that look at data, beside naive loops, closed forms and finite differences."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.untouched import untouched
from prunescope.models.layers import prunable
from prunescope.pruning.criteria.curvature import BlockObs, Fisher, OptimalBrainDamage
from prunescope.pruning.criteria.flow import SynFlow
from prunescope.pruning.scoring import Batches, criterion, cut
from prunescope.testing import tiny_batches, tiny_network


@pytest.fixture
def network() -> nn.Module:
    """In float64, so that references agree to many digits."""
    return tiny_network().double().eval()


@pytest.fixture
def batches() -> Batches:
    def doubled() -> Iterator[tuple[Tensor, Tensor]]:
        return ((x.double(), y) for x, y in tiny_batches()())

    return doubled


def scores(model: nn.Module, by: Any, batches: Batches, *, seed: int = 0) -> dict[str, Tensor]:
    with untouched(model):
        return dict(by.score(model, dense(model), batches=batches, seed=seed))


def dense(model: nn.Module) -> Mask:
    return Mask.dense(model, prunable(model))


def everything(batches: Batches) -> tuple[Tensor, Tensor]:
    xs, ys = zip(*batches(), strict=True)
    return torch.cat(xs), torch.cat(ys)


def gradient(model: nn.Module, x: Tensor, y: Tensor, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """By `.backward()`, of the mean loss."""
    model.zero_grad()
    F.cross_entropy(model(x) / temperature, y).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], **tolerance: float) -> None:
    assert set(ours) <= set(theirs)
    for name, score in ours.items():
        torch.testing.assert_close(score.double(), theirs[name].double(), msg=lambda text, n=name: f"{n}: {text}",
                                   rtol=tolerance.get("rtol", 1e-7), atol=tolerance.get("atol", 1e-12))  # fmt: skip


def test_snip_is_the_gradient_of_a_gate_at_one(network: nn.Module, batches: Batches) -> None:
    x, y = everything(batches)
    weights = {name: p.detach() for name, p in network.named_parameters()}
    gates = {name: torch.ones_like(weights[name], requires_grad=True) for name in dense(network)}
    gated = {name: w * gates[name] if name in gates else w for name, w in weights.items()}
    loss = F.cross_entropy(torch.func.functional_call(network, gated, (x,)), y)
    slopes = torch.autograd.grad(loss, list(gates.values()))
    close(
        scores(network, criterion("snip", n_batches=0), batches), dict(zip(gates, map(Tensor.abs, slopes), strict=True))
    )


def test_taylor_is_a_loop_over_batches(network: nn.Module, batches: Batches) -> None:
    wanted = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for x, y in batches():
        for name, slope in gradient(network, x, y).items():
            wanted[name] += len(y) * (slope * dict(network.named_parameters())[name].detach()) ** 2
    close(scores(network, criterion("taylor", n_batches=0), batches), wanted)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_a_finite_difference_of_gradients(network: nn.Module, batches: Batches, temperature: float) -> None:
    """Hg is how the gradient changes along the gradient."""
    x, y = everything(batches)
    names, step = list(dense(network)), 1e-5
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    along = gradient(network, x, y, temperature=temperature)

    def there(sign: int) -> dict[str, Tensor]:
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(start[name] + sign * step * along[name] * (name in names))
        return gradient(network, x, y, temperature=temperature)

    ahead, behind = there(1), there(-1)
    there(0)
    wanted = {name: start[name] * (ahead[name] - behind[name]) / (2 * step) for name in names}
    largest = max(float(score.abs().max()) for score in wanted.values())
    found = scores(network, criterion("grasp", n_batches=0, temperature=temperature), batches)
    close(found, wanted, rtol=1e-4, atol=1e-6 * largest)


def test_fisher_is_a_loop_over_images(network: nn.Module, batches: Batches) -> None:
    x, y = everything(batches)
    wanted = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, label in zip(x, y, strict=True):
        for name, slope in gradient(network, image[None], label[None]).items():
            wanted[name] += slope**2 / len(y)
    values = {name: wanted[name] * p.detach() ** 2 / 2 for name, p in network.named_parameters()}
    close(scores(network, Fisher(n_batches=0), batches), values)


def test_fisher_goes_through_networks_that_overwrite(batches: Batches) -> None:
    plain, inplace = tiny_network().double().eval(), tiny_network(inplace=True).double().eval()
    close(scores(inplace, Fisher(n_batches=0), batches), scores(plain, Fisher(n_batches=0), batches))


class Saddle(nn.Module):
    """Two logits, +-sum(a w^2) / 4: at w = 0 with equal classes the Hessian of the loss is diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        half = (x * self.fc.weight**2).sum(1) / 4
        return torch.stack([half, -half], 1)


def test_obd_is_exact_where_the_hessian_is_diagonal() -> None:
    """One class only, w near 0: d2L/dw_i2 = -a_i sigma(-sum(a w^2)/2) + a term of second order in w."""
    model, a = Saddle().double().eval(), torch.tensor([[1.0, -2.0, 3.0, 0.5]], dtype=torch.float64)
    with torch.no_grad():
        model.fc.weight.fill_(1e-6)
    found = scores(model, OptimalBrainDamage(probes=1), lambda: iter([(a, torch.tensor([0]))]))["fc.weight"]
    torch.testing.assert_close(found, 1e-12 * (-a / 2) / 2, rtol=1e-6, atol=0)


def test_obd_tends_to_the_hessian(network: nn.Module, batches: Batches) -> None:
    x, y = everything(batches)
    head = "head.weight"
    others = {name: p.detach() for name, p in network.named_parameters() if name != head}

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(network, {**others, head: weight}, (x,)), y)

    weight = network.head.weight.detach()
    exact = torch.func.hessian(loss)(weight).reshape(weight.numel(), -1).diagonal().view_as(weight) * weight**2 / 2
    found = scores(network, OptimalBrainDamage(n_batches=0, probes=400), batches)[head]
    error = (found - exact).norm() / exact.norm()
    rough = scores(network, OptimalBrainDamage(n_batches=0, probes=4), batches)[head]
    assert float(error) < 0.2
    assert float(error) < 0.5 * float((rough - exact).norm() / exact.norm())


@pytest.mark.parametrize("block", [5, 7, 1000])
def test_obs_inverts_the_fisher_matrix_of_each_block(network: nn.Module, batches: Batches, block: int) -> None:
    x, y = everything(batches)
    name, damping = "head.weight", 1e-3
    rows = torch.stack([gradient(network, a[None], b[None])[name].flatten() for a, b in zip(x, y, strict=True)])
    fisher, weight = rows.T @ rows / len(y), network.head.weight.detach().flatten()
    wanted = torch.empty_like(weight)
    for start in range(0, len(weight), block):
        part = slice(start, start + block)
        damped = fisher[part, part] + damping * torch.eye(len(weight[part]), dtype=torch.float64)
        wanted[part] = weight[part] ** 2 / (2 * torch.linalg.inv(damped).diagonal())
    found = scores(network, BlockObs(n_batches=0, block=block, damping=damping), batches)[name].flatten()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)  # sums are kept in float32


def test_obs_of_gradients_so_large_that_their_rounding_passes_the_damping(batches: Batches) -> None:
    """Four images, so that blocks of 24 are singular but for the damping."""
    model = tiny_network().eval()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
        model.conv2.weight.mul_(1e4)

    def few() -> Iterator[tuple[Tensor, Tensor]]:
        x, y = next(iter(tiny_batches()()))
        return iter([(x[:4], y[:4])])

    by = BlockObs(n_batches=0, block=24, damping=1e-12)
    rounded = cut(model, dense(model), by, keep=0.5, batches=few)
    wide = cut(model.double(), dense(model), by, keep=0.5, batches=lambda: ((x.double(), y) for x, y in few()))
    agree = sum(int((rounded[name] == wide[name]).sum()) for name in wide)
    assert agree > 0.8 * wide.total


def test_synflow_of_two_linear_layers_is_a_product_of_sums() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    first, second = model[1].weight.detach().abs().double(), model[3].weight.detach().abs().double()
    found = scores(model, SynFlow(), lambda: iter([(torch.rand(5, 3), torch.zeros(5).long())]))
    torch.testing.assert_close(found["1.weight"], first * second.sum(0)[:, None])
    torch.testing.assert_close(found["3.weight"], second * first.sum(1)[None])


def test_synflow_is_conserved_through_a_chain(network: nn.Module, batches: Batches) -> None:
    """Every layer's scores sum to the same flow; norms and strides and pooling do not leak."""
    sums = [float(score.sum()) for score in scores(network, SynFlow(), batches).values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-9)
    assert sums[0] > 0


def test_iterated_synflow_spares_layers_that_one_cut_would_empty() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    model, data = (
        nn.Sequential(nn.Flatten(), *layers).eval(),
        lambda: iter([(torch.rand(2, 16), torch.zeros(2).long())]),
    )
    once = cut(model, dense(model), SynFlow(iterations=1), keep=0.01, batches=data)
    slowly = cut(model, dense(model), SynFlow(iterations=100), keep=0.01, batches=data)
    assert min(int(kept.sum()) for kept in slowly.values()) > min(int(kept.sum()) for kept in once.values())
    assert slowly.kept == once.kept == round(0.01 * slowly.total)


def test_iterations_end_at_the_exact_count_and_nest(network: nn.Module, batches: Batches) -> None:
    before = cut(network, dense(network), criterion("magnitude"), keep=0.7)
    before.apply_(network)
    after = cut(network, before, criterion("snip", iterations=5), keep=0.1, batches=batches, scope="layer")
    assert after.nested_in(before)
    assert [int(kept.sum()) for kept in after.values()] == [round(0.1 * kept.numel()) for kept in after.values()]


def test_wanda_of_a_linear_layer_is_the_paper_s_formula() -> None:
    model = nn.Sequential(nn.Linear(5, 3)).eval()
    x = torch.randn(40, 5)
    found = scores(model, criterion("wanda"), lambda: iter([(x[:15], torch.zeros(15)), (x[15:], torch.zeros(25))]))
    torch.testing.assert_close(found["0.weight"], model[0].weight.detach().abs() * x.norm(dim=0))


@pytest.mark.parametrize("options", [
    {}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}, {"groups": 2, "padding": 1},
    {"padding": 1, "padding_mode": "reflect"},
])  # fmt: skip
def test_wanda_of_a_convolution_is_that_of_its_patches(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, 6, 3, **options)
    x = torch.randn(7, 4, 9, 8)
    found = scores(nn.Sequential(layer).eval(), criterion("wanda"), lambda: iter([(x, torch.zeros(7))]))["0.weight"]
    wanted = torch.zeros_like(layer.weight)
    for place in torch.cartesian_prod(*map(torch.arange, layer.weight.shape)).tolist():
        single = nn.Conv2d(4, 6, 3, bias=False, **options).requires_grad_(False)
        single.weight.zero_()
        single.weight[tuple(place)] = 1  # its output is what this weight multiplies
        wanted[tuple(place)] = single(x)[:, place[0]].norm()
    torch.testing.assert_close(found, wanted * layer.weight.detach().abs(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), [
    ("grasp", {"temperature": 0.0}), ("obd", {"probes": 0}), ("obs", {"block": 0}), ("obs", {"damping": 0.0}),
    ("movement", {"steps": 0}), ("movement", {"lr": 0.0}),
])  # fmt: skip
def test_impossible_options_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(PrunescopeError, match=next(iter(options))):
        criterion(name, **options)


def test_no_data_is_refused(network: nn.Module) -> None:
    for empty in (None, lambda: iter(())):
        with pytest.raises(PrunescopeError, match="needs training data"):
            cut(network, dense(network), criterion("snip"), keep=0.5, batches=empty)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_movement_is_a_loop_over_steps_of_sgd(steps: int) -> None:
    """Of the whole network, under the mask, in eval mode; six batches, so nine steps begin anew."""
    theirs, lr = tiny_network().eval(), 0.05
    before = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    mask = Mask({name: torch.arange(kept.numel()).view_as(kept) % 3 > 0 for name, kept in dense(theirs).items()})
    mask.apply_(theirs)
    ours = copy.deepcopy(theirs)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=lr)
    moved = {name: torch.zeros_like(p) for name, p in theirs.named_parameters()}
    for x, y in [*tiny_batches()(), *tiny_batches()()][:steps]:
        optimizer.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        for name, p in theirs.named_parameters():
            assert p.grad is not None
            moved[name] -= lr * p.grad * p.detach()
        optimizer.step()
        mask.apply_(theirs)
    with untouched(ours):
        found = criterion("movement", steps=steps, lr=lr).score(ours, mask, batches=tiny_batches(), seed=0)
    close(dict(found), moved, rtol=1e-4, atol=1e-7)
    assert all(bool((p == before[name] * mask.get(name, 1)).all()) for name, p in ours.named_parameters())


def test_movement_keeps_what_grows_and_cuts_what_shrinks() -> None:
    """Images of ones of class 0: the first output's weights grow, the second's fall."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.1, -0.1], [0.5, -0.5]]))
    found = scores(
        model, criterion("movement", steps=3, lr=0.1), lambda: iter([(torch.ones(4, 2), torch.zeros(4).long())])
    )
    assert (found["1.weight"].sign() == torch.tensor([[1, -1], [-1, 1]])).all()
