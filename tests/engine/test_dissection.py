"""Network Dissection beside loops over units, images and concepts; planted, scrambled and dead units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.data.segments import Coded, Segments
from prunescope.data.split import Split
from prunescope.engine import overlaps
from prunescope.engine.detectors import Dissection, Question
from prunescope.engine.dissection import dissect
from prunescope.engine.overlaps import Labels, upsampled
from prunescope.engine.quantiles import UpperQuantiles
from prunescope.testing.samples import tiny_data, tiny_network

DATA = tiny_data()
FEW = Question(quantile=0.02, draws=3, seed=5)


def outputs(model: nn.Module, layer: str, split: Split) -> Tensor:
    """What a module gives for every image, one at a time."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    with torch.no_grad():
        for _, x, _ in split.batches(1):
            model.eval()(x)
    handle.remove()
    return torch.cat(kept)


def naive(maps: Tensor, masks: Tensor, orders: Tensor, quantile: float) -> tuple[Array, Array]:
    """(IoU (orders, U, K), cut-offs (U,)) by loops: everything sorted, one unit, image and concept at a time."""
    n, units = maps.shape[:2]
    cutoffs = np.zeros(units)
    iou = np.full((len(orders), units, masks.shape[1]), np.nan)
    for unit in range(units):
        values = np.sort(maps[:, unit].flatten().double().numpy())[::-1]
        above = int(quantile * len(values))
        cutoffs[unit] = (values[above - 1] + values[above]) / 2
        for turn, order in enumerate(orders.tolist()):
            for concept in range(masks.shape[1]):
                shared = either = 0
                for image in range(n):
                    large = interpolate(maps[image : image + 1, unit : unit + 1], masks.shape[2:], mode="bilinear")
                    active = large[0, 0] > cutoffs[unit]
                    shown = masks[order[image], concept]
                    shared += int((active & shown).sum())
                    either += int((active | shown).sum())
                if masks[:, concept].any():
                    iou[turn, unit, concept] = shared / either
    return iou, cutoffs


@pytest.mark.parametrize("memory", [1 << 29, 0], ids=["kept", "twice"])
@pytest.mark.parametrize("counters", [1 << 22, 1], ids=["sets", "concepts"])
def test_equal_to_loops(memory: int, counters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether maps are kept or made again, and sets of concepts are counted or every concept by itself."""
    monkeypatch.setattr(overlaps, "_MOST", max(counters, 1 << 10) if counters > 1 else 200)
    model, split = tiny_network(), DATA.test.subset(range(12))
    assert split.segments is not None
    found = dissect(model, split, question=replace(FEW, memory=memory), batch_size=5)
    assert found.layers == {"conv1": 6, "conv2": 8}
    assert found.passes == (1 if memory else 2)
    orders = Labels(split.segments, 3, 5).orders
    row = 0
    for layer, place in (("conv1", "norm"), ("conv2", "conv2")):
        iou, cutoffs = naive(outputs(model, place, split), split.segments[:], orders, 0.02)
        rows = slice(row, row := row + found.layers[layer])
        np.testing.assert_allclose(found.cutoffs[rows], cutoffs, rtol=1e-5)
        np.testing.assert_allclose(found.iou[rows], iou[0], rtol=1e-6)
        np.testing.assert_allclose(found.chance[rows], np.nanmax(iou[1:], axis=2).T, rtol=1e-6)
        np.testing.assert_allclose(found.best[rows], np.nanmax(iou[0], axis=1), rtol=1e-6)
    assert found.scored.all()


def test_equal_to_loops_for_a_trained_network() -> None:
    data = ps.load_data({"name": "shapes", "train": 128, "val": 16, "test": 16, "size": 16})
    model = ps.build_model("tests.study.nets:little", classes=4, channels=3, seed=0)
    ps.fit(model, data.train, ps.Training(epochs=1, lr=0.05, batch_size=32, precision="32"), seed=0)
    split = data.test.subset(range(10))
    assert split.segments is not None
    found = dissect(model, split, layers=["conv2"], question=Question(0.02, draws=1))
    masks, orders = split.segments[:], Labels(split.segments, 1, 0).orders
    iou, cutoffs = naive(outputs(model, "conv2", split), masks, orders, 0.02)
    np.testing.assert_allclose(found.cutoffs, cutoffs, rtol=1e-5)
    np.testing.assert_allclose(found.iou, iou[0], rtol=1e-6)
    assert found.chance[:, 0] == pytest.approx(np.nanmax(iou[1], axis=1))


def test_what_does_not_matter() -> None:
    """The scale of a unit, and the order of images; the sign of a unit does."""
    before = dissect(tiny_network(), DATA.test, question=FEW)
    model = tiny_network()
    with torch.no_grad():
        model.conv2.weight[:4] *= 4  # type: ignore[index, operator, union-attr]
        model.conv2.bias[:4] *= 4  # type: ignore[index, operator, union-attr]
        model.conv2.weight[4:] *= -1  # type: ignore[index, operator, union-attr]
        model.conv2.bias[4:] *= -1  # type: ignore[index, operator, union-attr]
    after = dissect(model, DATA.test, question=FEW)
    np.testing.assert_array_equal(after.iou[:10], before.iou[:10])
    assert (after.iou[10:] != before.iou[10:]).any()
    turned = dissect(tiny_network(), DATA.test.subset(range(31, -1, -1)), question=FEW)
    np.testing.assert_allclose(turned.iou, before.iou, rtol=1e-6)


def test_one_pass_and_two_say_the_same() -> None:
    model = tiny_network()
    once, twice = (dissect(model, DATA.test, question=replace(FEW, memory=memory)) for memory in (1 << 29, 0))
    assert (once.passes, twice.passes) == (1, 2)
    np.testing.assert_array_equal(once.iou, twice.iou)
    np.testing.assert_array_equal(once.chance, twice.chance)
    np.testing.assert_array_equal(once.cutoffs, twice.cutoffs)


def test_few_maps_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dissect(tiny_network(), DATA.test, question=FEW)
    monkeypatch.setattr(overlaps, "_MOST", 3000)
    np.testing.assert_array_equal(dissect(tiny_network(), DATA.test, question=FEW).iou, whole.iou)


# -- planted


def coloured(n: int = 96, size: int = 16) -> Split:
    """Grey images with a red and a blue square of 2 x 2 pixels at random places; a third concept never occurs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, 120, (n, 3, size, size), generator=generator)
    masks = torch.zeros(n, 3, size, size, dtype=torch.bool)
    for concept, channel in enumerate((0, 2)):
        rows, columns = torch.randint(0, size - 1, (2, n), generator=generator)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            masks[torch.arange(n), concept, rows + down, columns + right] = True
        bright = torch.randint(200, 256, (n, size, size), generator=generator)
        images[:, channel] = torch.where(masks[:, concept], bright, images[:, channel])
    segments = Segments.of(masks, ("red", "blue", "unicorn"), ("colour", "colour", "animal"))
    ids, labels = np.arange(n).astype(str), torch.arange(n) % 2
    return Split(images.to(torch.uint8), labels, ids, ("a", "b"), segments=segments)


def planted() -> nn.Sequential:
    """Units: red, blue, pruned away, the corner that is padded (alike in every image), red of which a ReLU
    leaves only the squares, noise."""
    with torch.random.fork_rng(devices=[]):
        first, second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:, :, 0, 0] = torch.tensor([0.011, 0.0071, 0.0043])  # or many pixels were exactly alike
        first.weight[3] = 0
        first.weight[0, 0], first.weight[1, 2] = 1, 1
        first.weight[4, 0] = 1
        first.weight[5, 1] = 1
        first.bias.fill_(2)
        first.bias[4] = -0.5
        second.weight.zero_()
        second.bias.zero_()
        second.weight[:, 0, 1, 1] = 1
        second.weight[3] = -1
        second.weight[2] = 0
    layers = (first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    return nn.Sequential(*layers).eval()


QUESTION = Question(quantile=0.014, draws=19)


def test_a_painted_concept_is_found_by_the_unit_that_sees_it() -> None:
    found = ps.dissect(planted(), coloured(), layers=["0"], question=QUESTION)
    assert [found.names[i] for i in found.concept[[0, 1]]] == ["red", "blue"]
    assert found.best[:2].min() > 0.8
    assert found.beyond[[0, 1]].all()
    assert found.p[:2].tolist() == [0.05, 0.05]
    assert found.best[5] < 0.04  # the green channel, in which nothing is painted
    assert not found.detector[5]
    assert set(found.detected(found.detector)) == {"red", "blue"}
    reds = int((found.concept[found.detector] == 0).sum())
    assert found.by_category(found.detector) == {"colour": (reds + 1, 2), "animal": (0, 0)}
    above = (found.chance[found.scored] > 0.04).any(axis=1).sum()
    assert found.beyond_by_chance == above / 19


def test_of_units_that_know_nothing_no_more_are_beyond_chance_than_is_said() -> None:
    units, draws = 40_000, 3
    overlaps = np.random.default_rng(0).random((units, 1 + draws))
    nothing, cutoffs = np.zeros(units, dtype=bool), np.zeros(units)
    found = Dissection(
        {"it": units}, ("red",), ("colour",), overlaps[:, :1], overlaps[:, 1:], nothing, nothing, cutoffs,
        np.array([0.1]), Question(threshold=0.99, draws=draws), 10, 1,
    )  # fmt: skip
    assert abs(found.beyond.sum() - found.beyond_by_chance) < 4 * found.beyond_by_chance**0.5


def test_a_unit_whose_labels_are_scrambled_detects_nothing_beyond_chance() -> None:
    split = coloured()
    assert split.segments is not None
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(3))
    found = dissect(planted(), replace(split, segments=split.segments.subset(order)), layers=["0"], question=QUESTION)
    assert found.best[:2].max() < 0.1
    assert not found.beyond.any()


def test_dead_and_tied_units_are_counted_apart() -> None:
    found = dissect(planted(), coloured(), layers=["2"], question=QUESTION)
    assert found.dead.tolist() == [False, False, True, True, False, False]
    assert np.isnan(found.iou[found.dead]).all()
    assert np.isnan(found.chance[found.dead]).all()
    assert found.concept[found.dead].tolist() == [-1, -1]
    rare = dissect(planted(), coloured(), layers=["2"], question=replace(QUESTION, quantile=0.1))
    maps = outputs(planted(), "3", coloured())
    assert 0 < float((maps[:, 4] > 0).float().mean()) < 0.02
    rare = dissect(planted(), coloured(), layers=["3"], at="stages", question=replace(QUESTION, quantile=0.1))
    assert rare.tied[4]  # 0 at all places but those of red squares
    assert not rare.dead[4]
    assert rare.dead.tolist() == [False, False, True, True, False, False]
    assert np.isnan(rare.best[4])
    assert not rare.detector[4]


def test_a_unit_that_reaches_both_bounds_in_every_image_is_not_dead() -> None:
    maps = torch.zeros(6, 2, 4, 4)
    maps[:, :, 0, 0] = 6
    maps[torch.arange(6), 0, 2, torch.arange(6) % 4] = torch.linspace(1, 2, 6)  # the other is the same everywhere
    quantiles = UpperQuantiles("relu6", 0.1, 6)
    for part in maps.split(4):
        quantiles.add(part)
    assert quantiles.constant().tolist() == [False, True]


def test_a_concept_without_positives_is_left_out_and_named() -> None:
    found = dissect(planted(), coloured(), layers=["0"], question=QUESTION)
    assert found.absent == ("unicorn",)
    assert np.isnan(found.iou[:, 2]).all()
    assert not (found.concept == 2).any()


def test_what_is_out_of_reach_cannot_be_detected() -> None:
    """A unit active at a share q of the places overlaps a concept of share s by q / s at most."""
    split = coloured()
    assert split.segments is not None
    masks = torch.cat([split.segments[:][:, :2], torch.ones(len(split), 1, 16, 16, dtype=torch.bool)], 1)
    split = replace(split, segments=Segments.of(masks, ("red", "blue", "picture")))
    found = dissect(planted(), split, layers=["0"], question=QUESTION)
    assert found.out_of_reach == ("picture",)
    assert np.nanmax(found.iou[:, 2]) <= 0.014 + 1e-9


def test_pixels_without_a_label_are_left_out() -> None:
    split = coloured()
    assert split.segments is not None
    masks = split.segments[:][:, :2]
    codes = masks[:, 0] + 2 * masks[:, 1]
    hidden = torch.zeros_like(codes, dtype=torch.bool)
    hidden[:, :8] = True
    codes = torch.where(hidden, 4, codes).to(torch.uint8)
    table = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]], dtype=torch.bool)
    known = torch.tensor([True] * 4 + [False])
    segments = Segments(("red", "blue"), ("colour",) * 2, (len(split), 16, 16), lambda: Coded(codes, table, known))
    found = dissect(planted(), replace(split, segments=segments), layers=["0"], question=QUESTION)
    model = planted()
    maps = outputs(model, "0", split)
    for unit in (0, 1):
        active = (maps[:, unit] > found.cutoffs[unit]) & ~hidden
        shown = masks[:, unit] & ~hidden
        assert found.iou[unit, unit] == pytest.approx(float((active & shown).sum() / (active | shown).sum()))
    assert found.area[0] == pytest.approx(float((masks[:, 0] & ~hidden).sum() / (~hidden).sum()))


def test_chance_is_what_other_images_labels_give() -> None:
    """A unit that answers to a place, and a concept that always lies there: no image has to be looked at."""
    split = coloured()
    masks = torch.zeros(len(split), 1, 16, 16, dtype=torch.bool)
    masks[:, :, 0, 0] = True
    images = split.images[:].clone()
    images[:, 0] = 100
    images[:, 0, 0, 0] = torch.arange(150, 150 + len(split))
    split = replace(split, images=images, segments=Segments.of(masks, ("corner",)))
    found = dissect(planted(), split, layers=["0"], question=replace(QUESTION, quantile=0.0039))
    assert found.best[0] > 0.9
    assert found.detector[0]
    assert found.p[0] == 1
    assert not found.beyond[0]
    assert found.chance_level > 0.9


# -- parts


@pytest.mark.parametrize("quantile", [0.005, 0.07, 0.5])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_streamed_quantiles_are_those_of_a_sort(quantile: float, batch: int) -> None:
    maps = torch.randn(40, 5, 3, 4, generator=torch.Generator().manual_seed(batch))
    maps[:, 1] = maps[:, 1].round()  # ties
    item = UpperQuantiles("x", quantile, 40)
    for part in maps.split(batch):
        item.add(part)
    values = maps.transpose(0, 1).flatten(1).sort(1, descending=True).values
    above = int(quantile * values.shape[1])
    expected = (values[:, above - 1].double() + values[:, above].double()) / 2
    torch.testing.assert_close(item.thresholds().double(), expected)
    tied = values[:, above - 1] == values[:, above]
    assert torch.equal(item.tied(), tied)
    share = (maps > item.thresholds()[:, None, None]).double().mean((0, 2, 3))
    assert torch.allclose(share[~tied], torch.tensor(above / 480).double())
    for unit in (0, 2):  # numpy's definition: the smallest value whose share from below reaches 1 - quantile
        least = np.quantile(maps[:, unit].numpy(), 1 - above / 480, method="inverted_cdf")
        assert least <= float(item.thresholds()[unit]) <= float(values[unit, above - 1])


def test_memory_is_the_quantile_of_the_maps() -> None:
    item = UpperQuantiles("x", 0.01, 1000)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        item.add(torch.randn(10, 4, 5, 5, generator=generator))
        assert item.kept is not None
        assert item.kept.shape[1] <= 251
        assert item.kept.untyped_storage().nbytes() <= 4 * 4 * 260


def test_up_sampling_never_exceeds_the_largest_value() -> None:
    maps = torch.randn(9, 3, 5, generator=torch.Generator().manual_seed(0))
    large = upsampled(maps, (17, 16))
    assert (large.amax((1, 2)) <= maps.amax((1, 2)) + 1e-6).all()
    assert upsampled(maps, (3, 5)) is maps


def test_orders_are_permutations_that_the_seed_draws() -> None:
    segments = DATA.test.segments
    assert segments is not None
    first, again, other = (Labels(segments, 4, seed).orders for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.sort(1).values, torch.arange(32).expand(5, -1))
    assert torch.equal(first[0], torch.arange(32))


def test_by_chance_about_as_many_units_beat_all_draws_as_they_should() -> None:
    """Labels that have nothing to do with the images: one unit in draws + 1."""
    generator = torch.Generator().manual_seed(1)
    split = DATA.train
    masks = torch.rand(len(split), 5, 8, 8, generator=generator) < 0.05
    split = replace(split, segments=Segments.of(masks, tuple("abcde")))
    beyond = []
    for seed in range(12):
        found = dissect(tiny_network(seed=seed), split, question=Question(0.05, 0.0, 9, seed))
        beyond += (found.p <= 0.1)[found.scored].tolist()
    assert np.mean(beyond) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / len(beyond)))


def test_stages_are_read_as_the_network_passes_them_on() -> None:
    model, split = tiny_network(), DATA.test
    found = dissect(model, split, at="stages", question=replace(FEW, quantile=0.05))
    assert list(found.layers) == ["relu1", "relu2"]
    kept = outputs(model, "relu2", split)
    assert found.tied[6:].tolist() == [
        bool((kept[:, u] > 0).double().mean() < 0.05 and kept[:, u].amax() > 0) for u in range(8)
    ]
    one = dissect(model, split, layers=["relu1"], at="stages", question=FEW)
    assert one.layers == {"relu1": 6}


# -- what is refused


def test_bad_input_is_refused() -> None:
    model, split = tiny_network(), DATA.test
    with pytest.raises(PrunescopeError, match="split 'images' has none"):
        dissect(model, replace(split, segments=None))
    empty = Segments.of(torch.zeros(32, 2, 8, 8, dtype=torch.bool), ("a", "b"))
    with pytest.raises(PrunescopeError, match="no pixel of split 'images' shows any of the 2 concepts"):
        dissect(model, replace(split, segments=empty))
    with pytest.raises(PrunescopeError, match=r"of 16 positions .* of layer 'conv2' none lies above"):
        dissect(model, split.subset([0]), layers=["conv2"])
    with pytest.raises(PrunescopeError, match="'conv3' matches no"):
        dissect(model, split, layers=["conv3"])
    with pytest.raises(PrunescopeError, match="unknown layer 'relu3'"):
        dissect(model, split, layers=["relu3"], at="stages")
    with pytest.raises(PrunescopeError, match="unknown place 'heads'"):
        dissect(model, split, at="heads")  # type: ignore[arg-type]
    for options, told in (
        ({"quantile": 0}, "between 0 and 1"), ({"threshold": 1.0}, "from 0 to below 1"), ({"draws": 0}, "at least 1"),
        ({"memory": -1}, "at least 0 bytes"),
    ):  # fmt: skip
        with pytest.raises(PrunescopeError, match=told):
            Question(**options)
    with torch.no_grad():
        model.conv2.weight.fill_(float("nan"))
    with pytest.raises(PrunescopeError, match=r"layer 'conv2' are not finite"):
        dissect(model, split, layers=["conv2"], question=FEW)


def test_means_give_every_layer_the_same_weight() -> None:
    found: Dissection = dissect(tiny_network(), DATA.test, question=FEW)
    first, second = found.best[:6].mean(), found.best[6:].mean()
    assert found.mean(found.best) == pytest.approx((first + second) / 2)
