"""TCAV: against the paper's notation in loops, against Captum, on planted concepts; where it means nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painted import CONCEPTS, network, painted, trained
from sklearn.svm import LinearSVC
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.segments import Segments
from prunescope.data.split import Dataset, Split
from prunescope.metrics.paired import holm
from prunescope.probes.base import measure, probe
from prunescope.probes.tcav import Tcav
from prunescope.probes.tcav.cavs import layer_vectors
from prunescope.probes.tcav.examples import deal, example_splits, pool
from prunescope.probes.tcav.gather import as_derivatives
from prunescope.probes.tcav.linear import linear_behind
from prunescope.probes.tcav.sensitivity import Sensitivity
from prunescope.study.drift import drift
from prunescope.testing import ProbeContract

LAYERS = ("1", "3", "4")  # ReLU; the last convolution; its ReLU, in front of the global average


@pytest.fixture(scope="module")
def data() -> Dataset:
    return painted()


@pytest.fixture(scope="module")
def model(data: Dataset) -> nn.Sequential:
    return trained(data, seed=1)


def found(model: nn.Module, data: Dataset, seed: int = 0, **options: Any) -> Record:
    return measure(model, {"it": probe("tcav", **{"layers": LAYERS, **options})}, data, seed=seed)["it"]


@pytest.fixture(scope="module")
def record(model: nn.Sequential, data: Dataset) -> Record:
    return found(model, data)


# -- planted


def test_the_painted_concept_is_found_and_no_other(record: Record) -> None:
    red, blue, nothing = range(3)
    for layer in range(len(LAYERS)):
        assert record.arrays["class.found"][:, layer, red].tolist() == [-1, 1]
        assert record.arrays["class.tcav"][0, layer, red] < 0.1
        assert record.arrays["class.tcav"][1, layer, red] > 0.9
        assert not (np.abs(record.arrays["class.strength"][:, layer, blue]) > 0.3).any()
        assert np.isnan(record.arrays["class.found"][:, layer, nothing]).all()
    strength = np.abs(record.arrays["class.strength"])
    assert (strength[..., red] > 2 * np.nan_to_num(strength[..., blue])).all()
    assert record.arrays["concept.readable"][red].all()
    assert not record.arrays["concept.readable"][nothing].any()


def test_what_cannot_be_read_is_counted(record: Record) -> None:
    assert all("nothing" in unread for unread in record.info["unread"].values())
    assert record.metrics["readable"] == pytest.approx(record.arrays["concept.readable"].mean())
    tested = np.isfinite(record.arrays["class.found"])
    assert record.metrics["found"] == pytest.approx((record.arrays["class.found"][tested] != 0).mean())
    assert np.array_equal(tested, np.broadcast_to(record.arrays["concept.readable"].T, tested.shape))


# -- against slow references


def slow_score(model: nn.Module, layer: str, x: Tensor, label: int, direction: Tensor) -> tuple[float, float]:
    """Kim et al. 2018, eq. 1 and 2, and the mean cosine: image by image."""
    positive, cosines = 0, []
    modules = list(model.children())
    for image in x:
        a = image[None]
        for module in modules[: int(layer) + 1]:
            a = module(a)
        a = a.detach().requires_grad_()
        logits = a.clone()
        for module in modules[int(layer) + 1 :]:
            logits = module(logits)
        (gradient,) = torch.autograd.grad(logits[0, label], a)
        by_channel = gradient[0].flatten(1).sum(1)  # adding v at every position
        derivative = float(by_channel @ direction)
        positive += derivative > 0
        cosines.append(derivative / float(by_channel.norm()))
    return positive / len(x), float(np.mean(cosines))


def slow_cav(x: Tensor, labels: Tensor, c: float) -> Tensor:
    """Normal of the hyperplane of scikit-learn's machine, on activations with one centre and one scale."""
    mean = x.double().mean(0)
    z = (x.double() - mean) / (x.double() - mean).square().mean().sqrt()
    rows = labels >= 0
    machine = LinearSVC(C=c, class_weight="balanced", dual=True, tol=1e-8, max_iter=10**6, random_state=0)
    machine.fit(z[rows].numpy(), labels[rows].numpy())
    normal = torch.from_numpy(machine.coef_[0]).float()
    return normal / normal.norm()


@pytest.mark.parametrize("layer", LAYERS)
def test_scores_equal_the_paper_s_loops(layer: str, model: nn.Sequential, data: Dataset, record: Record) -> None:
    fit, _ = example_splits(data, 2000, 0)
    assert fit.concepts is not None
    dealt = deal(fit.concepts, 10, 30, (3, 50), torch_generator(0, "tcav", "deal"))
    place, x = LAYERS.index(layer), data.test.normalisation(data.test.images)
    with torch.no_grad():
        a = model[: int(layer) + 1](fit.normalisation(fit.images[:])).mean((2, 3))
    for k in (0, 1):
        if not record.arrays["concept.readable"][k, place]:
            continue
        for label in range(2):
            of_class = x[data.test.labels == label]

            def scores(vectors: Tensor, label: int = label, of_class: Tensor = of_class) -> np.ndarray[Any, Any]:
                directions = [slow_cav(a, dealt.labels[:, v], record.info["c"][layer]) for v in vectors.tolist()]
                return np.array([slow_score(model, layer, of_class, label, v) for v in directions])

            mine, chance = scores(dealt.vectors_of(k)), scores(dealt.random_of(k)[:4])
            share, strength = mine.mean(axis=0)
            assert record.arrays["class.tcav"][label, place, k] == pytest.approx(share, abs=0.003)
            assert record.arrays["class.strength"][label, place, k] == pytest.approx(strength, abs=1e-3)
            assert np.isfinite(chance).all()


def test_equals_captum(model: nn.Sequential, data: Dataset, tmp_path: Path) -> None:
    """Same examples, same machine, maps laid out in full: Captum's sign counts and magnitudes."""
    captum = pytest.importorskip("captum.concept")
    fit, held = example_splits(data, 2000, 0)
    assert fit.concepts is not None
    assert held.concepts is not None
    dealt = deal(fit.concepts, 3, 3, (5, 40), torch_generator(0, "here"))
    x, layer = fit.normalisation(fit.images[:]), "4"
    with torch.no_grad():
        a, b = (model[:5](split.normalisation(split.images[:])).flatten(1) for split in (fit, held))
    vectors = layer_vectors(a, b, dealt, held.concepts, (0.01,))

    class Machine(captum._utils.classifier.Classifier):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.normals = torch.empty(0)

        def train_and_eval(self, dataloader: Any, **_: Any) -> dict[str, Any]:
            rows, labels = (torch.cat(parts) for parts in zip(*dataloader, strict=True))
            z = (rows.double() - a.double().mean(0)) / (a.double() - a.double().mean(0)).square().mean().sqrt()
            machine = LinearSVC(C=0.01, class_weight="balanced", dual=True, tol=1e-8, max_iter=10**6, random_state=0)
            machine.fit(z.numpy(), labels.numpy() == 0)
            normal = torch.from_numpy(machine.coef_[0] / np.linalg.norm(machine.coef_[0]))
            self.normals = torch.stack([normal, -normal]).float()
            return {"accs": torch.tensor(0.0)}

        def weights(self) -> Tensor:
            return self.normals

        def classes(self) -> list[int]:
            return [0, 1]

    inputs = data.test.normalisation(data.test.images)
    for v in range(3):
        # Captum tells classes by the concepts' ids.
        pair = [
            captum.Concept(number, f"{v}-{number}", x[dealt.labels[:, v] == value][None])
            for number, value in ((0, 1), (1, 0))
        ]
        peer = captum.TCAV(model, [layer], model_id=f"m{v}", classifier=Machine(), save_path=str(tmp_path))
        for label in range(2):
            mine = data.test.labels == label
            theirs = peer.interpret(inputs[mine], [pair], target=label)["0-1"][layer]
            leaf = model[:5](inputs[mine]).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model[5:](leaf)[:, label].sum(), leaf)
            sums = Sensitivity(vectors.directions, 2)
            sums.add(gradient.flatten(1), torch.full((int(mine.sum()),), label))
            assert float(sums.shares[label, v]) == pytest.approx(float(theirs["sign_count"][0]), abs=1e-6)
            along = gradient.flatten(1) @ vectors.directions[v]
            assert float(along.mean()) == pytest.approx(float(theirs["magnitude"][0]), rel=1e-3, abs=1e-6)


def test_derivatives_are_those_of_adding_the_vector_everywhere(model: nn.Sequential, data: Dataset) -> None:
    """Maps and tokens: a small step along the vector at every position moves the logit as the derivative says."""
    x = data.test.normalisation(data.test.images[:6])
    direction = torch.randn(12, generator=torch_generator(0, "direction"), dtype=torch.float64)
    double = copy.deepcopy(model).double()
    a = double[:4](x.double()).detach()
    tokens = a.flatten(2).transpose(1, 2)

    def logits(maps: Tensor) -> Tensor:
        return double[4:](maps)[:, 1]

    def of_tokens(rows: Tensor) -> Tensor:
        return logits(rows.transpose(1, 2).unflatten(2, (4, 4)))

    for value, function, step in (
        (a, logits, direction[:, None, None]), (tokens, of_tokens, direction), (a.mean((2, 3)), None, direction)
    ):  # fmt: skip
        if function is None:
            assert torch.equal(as_derivatives(value, "mean"), value)
            continue
        leaf = value.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
        found = as_derivatives(gradient, "mean") @ direction
        moved = (function(value + 1e-6 * step) - function(value - 1e-6 * step)) / 2e-6
        torch.testing.assert_close(found, moved, rtol=1e-4, atol=1e-6)
        assert as_derivatives(gradient, "all").shape == (6, 12 * 16)


def test_maps_laid_out_in_full(model: nn.Sequential, data: Dataset) -> None:
    record = found(model, data, layers=("3",), positions="all")
    assert record.info["positions"] == "all"
    assert record.arrays["class.found"][:, 0, 0].tolist() == [-1, 1]


def test_a_network_with_tokens(data: Dataset) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 6, 4, stride=4)
            self.mix = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
            self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            tokens: Tensor = self.mix(self.cut(x).flatten(2).transpose(1, 2))
            return self.head(tokens.mean(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tokens()
    record = found(model, data, layers=("cut", "mix"), min_auroc=0.6)
    assert np.isfinite(record.arrays["class.tcav"][..., 0]).all()


class UnitsLast(nn.Module):
    """Maps (B, h, w, C) between two permutations, as within Swin transformers; `turned` has them as (B, C, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mlp, self.act = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 5), nn.ReLU()
        self.turned, self.head = nn.Identity(), nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.act(self.mlp(self.conv(x).permute(0, 2, 3, 1)))
        logits: Tensor = self.head(self.turned(maps.permute(0, 3, 1, 2)).mean((2, 3)))
        return logits


def test_maps_whose_units_come_last(data: Dataset) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UnitsLast()
    layers = ("act", "turned")
    vectors = found(model, data, layers=layers, min_auroc=0.5)
    options = {"layers": layers, "min_auroc": 0.5, "shuffles": 0}
    regions = measure(model, {"it": probe("concept_regions", **options)}, data)["it"]
    for arrays, axis in ((vectors.arrays, 1), (regions.arrays, 1)):
        for name in (name for name in arrays if name.startswith("class.") and arrays[name].ndim == 3):
            last, second = np.moveaxis(arrays[name], axis, 0)
            np.testing.assert_allclose(last, second, rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.isfinite(vectors.arrays["class.tcav"]).any()
    assert np.isfinite(regions.arrays["class.regions"]).any()


def test_weights_that_are_not_finite(data: Dataset) -> None:
    broken = network()
    with torch.no_grad():
        broken[9].weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(PrunescopeError, match="gradients at layer '1' are not finite"):
        found(broken, data, layers=("1",))
    with torch.no_grad():
        broken[0].weight.fill_(float("inf"))  # type: ignore[union-attr, operator]
    with pytest.raises(PrunescopeError, match="gives values that are not finite"):
        found(broken, data, layers=("1",))


def test_p_is_that_of_the_scores(model: nn.Sequential, data: Dataset) -> None:
    for statistic in ("strength", "share"):
        record = found(model, data, statistic=statistic, layers=("3",))
        p = record.arrays["class.p"][:, 0]
        np.testing.assert_allclose(holm(p.reshape(-1, 1)).reshape(p.shape), record.arrays["class.p_holm"][:, 0])
        sure = record.arrays["class.p_holm"] < 0.05
        assert np.array_equal(sure, np.nan_to_num(record.arrays["class.found"]) != 0)


# -- the rate of errors


def test_random_concepts_are_rejected_at_the_stated_rate(model: nn.Sequential, data: Dataset) -> None:
    """Labels dealt at random, without the gate that would stop most of them: of tests at 5 %, about 5 % or fewer."""
    rejected: list[float] = []
    families = 0
    for seed in range(12):
        drawn = torch.rand(len(data.train), 20, generator=torch_generator(seed, "random concepts")) < 0.5
        names = tuple(f"random {k}" for k in range(20))
        noise = replace(data.train, concepts=drawn.to(torch.int8), concept_names=names)
        other = replace(data, train=noise, val=replace(data.val, concepts=None, concept_names=()))
        record = found(model, other, seed, layers=("3",), min_auroc=0.0, repeats=5, random=15, c=(0.01,))
        rejected += (record.arrays["class.p"][1, 0] < 0.05).tolist()
        families += int((record.arrays["class.found"] != 0).any())
    assert len(rejected) == 240
    assert families <= 3  # Holm: any false one among the 40 pairs of a layer is rare (12 x 0.05 are expected at most)
    assert np.mean(rejected) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 240)


# -- layers where a score means nothing


def test_a_layer_in_front_of_average_and_linear_is_refused(data: Dataset) -> None:
    model = trained(data, head="linear")
    with pytest.raises(PrunescopeError, match="at layer '4' the gradient of a class's logit is the same at every"):
        found(model, data)
    chosen = found(model, data, layers=())
    assert list(chosen.info["refused"]) == ["4"]
    assert chosen.metrics["refused"] == 1 / len(chosen.info["layers"])
    place = chosen.info["layers"].index("4")
    assert np.isnan(chosen.arrays["class.tcav"][:, place]).all()
    assert np.isfinite(chosen.arrays["class.tcav"][:, 1 - place, 0]).all()
    assert chosen.arrays["class.found"][:, 1 - place, 0].tolist() == [-1, 1]


def test_with_an_mlp_head_the_same_layer_is_fine(record: Record) -> None:
    assert record.info["refused"] == {}
    assert record.metrics["refused"] == 0
    assert np.isfinite(record.arrays["class.tcav"][:, LAYERS.index("4"), 0]).all()


def nearly_linear() -> nn.Sequential:
    """An MLP head whose ReLUs are all on at every image, as in what pruning may leave of a network."""
    model = network()
    with torch.no_grad():
        model[7].bias.fill_(1e3)  # type: ignore[union-attr, operator]
    return model


def test_a_ticket_that_is_linear_only_at_these_images_does_not_end_a_study(data: Dataset) -> None:
    record = found(nearly_linear(), data, layers=("4",))
    assert list(record.info["refused"]) == ["4"]
    assert "at every test image" in record.info["refused"]["4"]
    assert np.isnan(record.arrays["class.tcav"]).all()
    assert record.metrics["refused"] == 1


@pytest.mark.parametrize(
    ("head", "layer", "linear"),
    [("linear", "4", True), ("linear", "5:input", True), ("linear", "7:input", True), ("linear", "3", False),
     ("mlp", "4", False), ("mlp", "7:input", False), ("mlp", "9:input", True), ("mlp", "8", True), ("mlp", "7", False)],
)  # fmt: skip
def test_what_is_linear_by_structure(head: str, layer: str, linear: bool, data: Dataset) -> None:
    x = data.test.normalisation(data.test.images[:8])
    assert linear_behind(network(head=head), layer, x) is linear
    if head == "mlp" and not linear:
        assert not linear_behind(nearly_linear(), layer, x)


def test_a_network_without_any_layer_that_can_be_asked(data: Dataset) -> None:
    shallow = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(PrunescopeError, match="name an earlier layer"):
        found(shallow, data, layers=())


def test_constant_gradients_are_told_from_others() -> None:
    generator = torch_generator(0, "gradients")
    fixed, moving = torch.randn(2, 6, generator=generator)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    gradients = torch.cat([fixed.expand(3, 6) * (1 + 1e-7), moving * torch.tensor([[1.0], [1.01], [1.0]])])
    sums = Sensitivity(torch.eye(6), 3)
    for rows in (slice(0, 4), slice(4, 6)):
        sums.add(gradients[rows], labels[rows])
    assert sums.constant.tolist() == [True, False, False]
    assert not sums.degenerate
    assert sums.images.tolist() == [3, 3, 0]
    assert sums.shares[2].isnan().all()


def test_images_without_a_gradient_are_counted_and_left_out(data: Dataset) -> None:
    sums = Sensitivity(torch.eye(2), 1)
    sums.add(torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, 4.0]]), torch.zeros(3, dtype=torch.long))
    assert sums.silent.tolist() == [1]
    assert sums.shares.tolist() == [[1.0, 0.5]]
    np.testing.assert_allclose(sums.strengths[0], [(0.5**0.5 + 0.6) / 2, (0.8 - 0.5**0.5) / 2], rtol=1e-6)
    dead = network()
    with torch.no_grad():
        dead[3].weight.zero_()
        dead[3].bias.fill_(-1)
    record = found(dead, data, layers=("1",))
    assert record.metrics["silent"] == 1
    assert np.isnan(record.arrays["class.tcav"]).all()
    assert record.info["refused"] == {}


# -- how examples are dealt


def test_repeats_share_no_image_and_random_vectors_are_as_large() -> None:
    labels = torch.randint(-1, 2, (300, 4), generator=torch_generator(1, "labels"), dtype=torch.int8)
    labels[:, 3] = 0
    dealt = deal(labels, 4, 7, (5, 20), torch_generator(0, "deal"))
    assert dealt.sizes.tolist() == [20, 20, 20, 0]
    for k in range(3):
        mine = dealt.labels[:, dealt.vectors_of(k)]
        assert mine.shape[1] == 4
        assert int((mine >= 0).sum(1).max()) == 1
        assert bool(((mine < 0) | (mine == labels[:, k : k + 1])).all())
        assert ((mine == 1).sum(0) == 20).all()
        assert ((mine == 0).sum(0) == 20).all()
        chance = dealt.labels[:, dealt.random_of(k)]
        assert chance.shape[1] == 7
        assert ((chance == 1).sum(0) == 20).all()
        assert ((chance == 0).sum(0) == 20).all()
    assert len(dealt.vectors_of(3)) == 0


def test_the_pool_has_some_of_every_concept() -> None:
    labels = torch.zeros(1000, 3, dtype=torch.int8)
    labels[:500, 0], labels[500:530, 1] = 1, 1
    labels[:, 2] = -1
    rows = pool(labels, 120, torch_generator(0, "pool"))
    assert len(rows) == 120
    assert torch.equal(rows, rows.unique())
    kept = labels[rows]
    assert int((kept[:, 1] == 1).sum()) >= 28
    assert int((kept[:, 0] == 1).sum()) > 30


def test_images_of_the_pool_keep_their_labels_of_pixels(data: Dataset) -> None:
    masks = torch.rand(len(data.train), 1, 8, 8, generator=torch_generator(0, "masks")) < 0.5
    labelled = replace(data.train, segments=Segments.of(masks, ["it"]))
    fit, _ = example_splits(replace(data, train=labelled), 50, 0)
    assert fit.segments is not None
    places = np.flatnonzero(np.isin(data.train.ids, fit.ids))
    assert len(fit) == len(fit.segments) == len(places) == 50
    assert torch.equal(fit.segments[torch.arange(50)], masks[places])


def test_test_images_never_teach(model: nn.Sequential, data: Dataset, record: Record) -> None:
    order = torch.randperm(len(data.test), generator=torch_generator(0, "order"))
    assert data.test.concepts is not None
    other = found(model, replace(data, test=replace(data.test, concepts=data.test.concepts[order])))
    for name, array in record.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_a_bank_of_examples(model: nn.Sequential, data: Dataset) -> None:
    bare = {name: replace(data[name], concepts=None, concept_names=()) for name in ("train", "val", "test")}
    banked = found(model, replace(data, **bare, concept_bank=data.train))
    assert banked.arrays["class.found"][:, 1, 0].tolist() == [-1, 1]


# -- bad input


def without(data: Dataset, concept: int) -> Dataset:
    def blank(part: Split) -> Split:
        assert part.concepts is not None
        concepts = part.concepts.clone()
        concepts[:, concept] = 0
        return replace(part, concepts=concepts)

    return replace(data, train=blank(data.train), val=blank(data.val))


def test_a_concept_without_positives(model: nn.Sequential, data: Dataset) -> None:
    lacking = without(data, 1)
    with pytest.raises(PrunescopeError, match="concept 'blue patch' has no positives: 0 positives and 600 negatives"):
        ps.tcav(model, lacking, layers=("3",), concepts=("blue patch",))
    record = found(model, lacking)
    assert list(record.info["few_examples"]) == ["blue patch"]
    assert np.isnan(record.arrays["class.tcav"][..., 1]).all()
    assert np.isnan(record.arrays["concept.auroc"][1]).all()
    assert np.isfinite(record.arrays["class.tcav"][..., 0]).all()


def test_too_few_examples(model: nn.Sequential, data: Dataset) -> None:
    small = replace(data, train=data.train.subset(range(60)))  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="it takes 50 of both"):
        found(model, small, min_examples=5)
    assert np.isfinite(found(model, small, repeats=4, random=12).arrays["class.tcav"][..., 0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 2}, "repeats must be at least 3"),
        ({"random": 5}, "random must be at least 10"),
        ({"min_examples": 1}, "min_examples must be at least 2"),
        ({"examples": 4, "min_examples": 5}, "examples must be at least 5"),
        ({"min_auroc": 1.1}, r"min_auroc must be in \[0, 1\]"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\]"),
        ({"c": ()}, "one or more numbers above 0"),
        ({"statistic": "size"}, "statistic"),
        ({"positions": "some"}, "positions"),
        ({"layer": "3"}, "did you mean 'layers'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        probe("tcav", **options)


def test_unknown_names_are_refused(model: nn.Sequential, data: Dataset) -> None:
    with pytest.raises(PrunescopeError, match="did you mean 'red patch'"):
        ps.tcav(model, data, concepts=("red pach",))
    with pytest.raises(PrunescopeError, match="unknown layer '33'"):
        ps.tcav(model, data, layers=("33",))
    with pytest.raises(PrunescopeError, match="needs concept labels"):
        found(model, replace(data, train=replace(data.train, concepts=None, concept_names=())))
    with pytest.raises(PrunescopeError, match="not maps, tokens or a vector"):
        found(nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Flatten(), nn.Linear(192, 2)), data, layers=("0",))


def test_a_test_that_cannot_find_anything_says_so(model: nn.Sequential, data: Dataset) -> None:
    assert "none can stand out" in found(model, data, repeats=3, random=3).info["warning"]


# -- alone, in a study, held to the contract


def test_alone(model: nn.Sequential, data: Dataset, record: Record) -> None:
    table = ps.tcav(model, data, layers=LAYERS)
    assert table.layers == list(LAYERS)
    assert len(table.rows) == 2 * 3 * 3
    row = next(r for r in table.rows if r[:3] == ("3", "with", "red patch"))
    assert row.score == record.arrays["class.tcav"][1, 1, 0]
    assert row.found == "for"
    assert table.found[0].concept == "red patch"
    only = ps.tcav(model, data, layers=("3",), concepts=("red patch",))
    assert [r.concept for r in only.rows] == ["red patch"] * 2
    assert CONCEPTS[0] == only.record.info["concept_names"][0]


def test_drift(record: Record, model: nn.Sequential, data: Dataset) -> None:
    same = drift({"it": record}, {"it": record}, {"it": Tcav.distances}, draws=20)
    assert {row.distance: row.estimate.value for row in same} == {"difference": 0, "same_side": 1, "same_found": 1}
    far = drift({"it": record}, {"it": found(trained(data, seed=5), data)}, {"it": Tcav.distances}, draws=20)
    assert all(np.isfinite(row.estimate.value) for row in far)


class TestContract(ProbeContract):
    """With vectors: the tiny data has too few images for the default repeats."""

    probe = Tcav(layers=("conv1", "relu1"), repeats=3, random=6, min_auroc=0.0)

    def test_there_is_something_to_hold(self) -> None:
        record = self._record()
        assert np.isfinite(record.arrays["class.tcav"]).all()
        assert set(np.unique(record.arrays["class.images"])) != {0}


def test_data_with_labels_of_pixels_beside_concepts() -> None:
    data = ps.load_data({"name": "shapes", "size": 16, "train": 256, "val": 64, "test": 64})
    fit, _ = example_splits(data, 100, seed=0)
    assert fit.segments is not None
    assert data.train.segments is not None
    rows = [data.train.ids.tolist().index(name) for name in fit.ids.tolist()]
    assert torch.equal(fit.segments[:5], data.train.segments[torch.tensor(rows[:5])])
