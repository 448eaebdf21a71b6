"""Greedy pruning by CAR beside a loop that copies the network and hooks channels out, one forward pass each."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Normalisation, Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.untouched import fixed_rng
from prunescope.pruning import race as racing
from prunescope.pruning.greedy import Greedy, Until, greedy
from prunescope.pruning.race import ROUNDING, Race, choose
from prunescope.pruning.removals import car_table
from prunescope.testing.snapshot import Snapshot

#: {layer: where its channels are read}, of the network below.
READS = {"one": ("first",), "two": ("second", "across"), "three": ("third",), "hidden": ("fourth",)}


class Net(nn.Module):
    """Norms, a sum, pooling, and hidden neurons; a module that does nothing wherever channels are read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.two, self.norm2 = nn.Conv2d(5, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.three, self.hidden, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 3), nn.Linear(3, 3)
        for names in READS.values():
            for name in names:
                setattr(self, name, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 6, 6) -> (B, 3)."""
        x = self.first(F.max_pool2d(F.relu(self.norm1(self.one(x))), 2))
        x = F.relu(self.norm2(self.two(x)))
        x = self.third(F.relu(self.three(self.second(x)))) + self.across(x)
        return self.head(self.fourth(F.relu(self.hidden(x.mean((2, 3))))))


def net(seed: int = 0) -> Net:
    with fixed_rng():
        model = Net().eval()
    generator = torch_generator(seed, "greedy")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
                if "running_var" in name:
                    tensor.abs_().add_(0.5)
        model.head.bias -= model(Normalisation()(pixels(200, seed, "balance"))).mean(0)  # no class always wins
    return model


def pixels(count: int, seed: int, name: str) -> Tensor:
    generator = torch_generator(seed, "greedy images", name)
    return torch.randint(0, 256, (count, 3, 6, 6), generator=generator, dtype=torch.uint8)


def images(count: int = 30, seed: int = 0, name: str = "chosen") -> Split:
    """Four of five labels are those that the network gives."""
    drawn = pixels(count, seed, name)
    with torch.no_grad():
        said = net(seed)(Normalisation()(drawn)).argmax(1)
    wrong = torch.arange(count) % 5 == 0
    labels = torch.where(wrong, (said + 1) % 3, said)
    return Split(drawn, labels, np.array([f"{name}{i}" for i in range(count)]), ("a", "b", "c"))


def logits_without(model: Net, split: Split, gone: Mapping[str, Sequence[int]]) -> Tensor:
    """By definition: a copy in which hooks put zeros where the channels are read."""
    other = copy.deepcopy(model)

    def zero(channels: Sequence[int]) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, list(channels)] = 0
            return output

        return hook

    for layer, channels in gone.items():
        for name in READS[layer]:
            getattr(other, name).register_forward_hook(zero(channels))
    with torch.no_grad():
        return other(split.normalisation(split.images[:])).double()


def naive(model: Net, split: Split, layers: Mapping[str, int], steps: int) -> list[tuple[str, int, int, int]]:
    """[(layer, channel, how many are right without it, how many others tie)], one after the other."""
    gone: dict[str, list[int]] = {layer: [] for layer in layers}
    found = []

    def truth(gone: Mapping[str, Sequence[int]]) -> tuple[int, float]:
        logits = logits_without(model, split, gone)
        right = int((logits.argmax(1) == split.labels).sum())
        return right, float(logits.log_softmax(1).gather(1, split.labels[:, None]).mean())

    for _ in range(steps):
        tried = []
        for layer, count in layers.items():
            for channel in range(count) if len(gone[layer]) < count - 1 else ():
                if channel not in gone[layer]:
                    tried.append((*truth({**gone, layer: [*gone[layer], channel]}), layer, channel))
        if not tried:
            break
        most = max(right for right, *_ in tried)
        level = [one for one in tried if one[0] == most]
        highest = max(log for _, log, *_ in level)
        right, _, layer, channel = next(one for one in level if one[1] >= highest - ROUNDING / 2)
        gone[layer].append(channel)
        found.append((layer, channel, right, len(level) - 1))
    return found


SIZES = {"one": 5, "two": 4, "three": 4, "hidden": 3}


def told(found: Greedy, images: int) -> list[tuple[str, int, int, int]]:
    return [(*step.unit, round(step.accuracy * images), step.choice.tied) for step in found.steps]


@pytest.mark.parametrize("seed", range(4))
def test_every_step_is_the_naive_loop_s_over_the_network(seed: int) -> None:
    model, split, other = net(seed), images(seed=seed), images(20, seed, "reported")
    found = greedy(model, split, report=other, per_layer=False)
    wanted = naive(model, split, SIZES, 99)
    assert told(found, 30) == wanted
    assert len(wanted) == sum(SIZES.values()) - len(SIZES)
    gone: dict[str, list[int]] = {}
    for accuracies, unit in zip([(found.accuracy, found.report)] + [(s.accuracy, s.report) for s in found.steps],
                                [None, *found.order], strict=True):  # fmt: skip
        if unit is not None:
            gone.setdefault(unit[0], []).append(unit[1])
        for accuracy, images_ in zip(accuracies, (split, other), strict=True):
            said = logits_without(model, images_, gone).argmax(1)
            assert accuracy == pytest.approx(float((said == images_.labels).double().mean()))


@pytest.mark.parametrize("seed", range(2))
def test_one_layer_by_itself_while_the_others_are_whole(seed: int) -> None:
    model, split = net(seed), images(seed=seed)
    found = greedy(model, split)
    for layer, count in SIZES.items():
        assert [(*step.unit, round(step.accuracy * 30), step.choice.tied) for step in found.of(layer)] == naive(
            model, split, {layer: count}, 99
        )
        assert found.of(layer)[0].choice.before == pytest.approx(found.accuracy)
    assert found.channels == SIZES


def test_car_and_drop_are_differences_of_the_network_as_it_is_by_then() -> None:
    model, split = net(), images()
    found, gone, before = greedy(model, split, layers=["two"]), [], logits_without(model, split, {})
    for step in found.steps:
        gone.append(step.choice.channel)
        after = logits_without(model, split, {"two": gone})
        right = [(logits.argmax(1) == split.labels).double().mean() for logits in (before, after)]
        log = [logits.log_softmax(1).gather(1, split.labels[:, None]).mean() for logits in (before, after)]
        assert step.choice.car == pytest.approx(float(right[0] - right[1]))
        assert step.choice.drop == pytest.approx(float(log[0] - log[1]), abs=1e-5)
        before = after


# Planted cases


def planted() -> tuple[nn.Sequential, Split]:
    """Filters whose worth is known: 0 and 3 say red, both alike; 1 says green; 2 says blue; 4 is dead."""
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    with torch.no_grad():
        for layer in (model[0], model[4]):
            layer.weight.zero_(), layer.bias.zero_()
        for channel, colour in ((0, 0), (1, 1), (2, 2), (3, 0)):
            model[0].weight[channel, colour] = 1.0
            model[4].weight[colour, channel] = 1.0
        model[0].bias[4], model[4].weight[1, 4] = -5.0, 9.0
        model[4].bias.copy_(torch.tensor([-0.5, -0.2, -0.3]))  # what nothing speaks for is green
    labels = torch.arange(24) % 3
    pixels = torch.full((24, 3, 4, 4), 110, dtype=torch.uint8)
    pixels[torch.arange(24), labels] = 255
    return model.eval(), Split(pixels, labels, np.arange(24).astype(str), ("red", "green", "blue"))


def test_the_dead_filter_goes_first_and_the_twin_that_is_left_rises() -> None:
    model, split = planted()
    found = greedy(model, split, layers=["0"])
    first, second = found.steps[:2]
    assert first.unit == ("0", 4)
    assert first.choice.car == 0.0
    assert first.choice.drop == pytest.approx(0, abs=1e-7)
    assert second.unit == ("0", 0)  # of twins the lower one
    assert (second.choice.car, second.choice.undecided) == (0.0, 1)
    twin = choose(Ablator(model, split), {"0": [3]}, {"0": [4, 0]})
    assert twin.car == pytest.approx(1 / 3)
    before = choose(Ablator(model, split), {"0": [3]}, {"0": [4]})
    assert before.car == 0.0
    blue = choose(Ablator(model, split), {"0": [2]})
    assert blue.car == pytest.approx(1 / 3)
    table = car_table(Ablator(model, split), ["0"])
    np.testing.assert_allclose(table.class_car, [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])


# Races


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([None, "dead", "twins", "late"]))
def test_an_exact_race_finds_the_winner_of_none(seed: int, size: int, plant: str | None) -> None:
    model, split = net(seed), images(24, seed)
    with torch.no_grad():
        if plant == "dead":
            model.norm2.bias[1], model.norm2.weight[1] = -1.0, 0.0
        elif plant == "twins":
            for name in ("one.weight", "one.bias", "norm1.weight", "norm1.bias"):
                model.get_parameter(name)[3] = model.get_parameter(name)[1]
            for name in ("running_mean", "running_var"):
                getattr(model.norm1, name)[3] = getattr(model.norm1, name)[1]
            model.two.weight[:, 3] = model.two.weight[:, 1]
        elif plant == "late":
            model.head.weight[:, 2] = 0
    whole, raced = (greedy(model, split, per_layer=False, race=Race(by, images=size), until=Until(steps=4))
                    for by in ("none", "exact"))  # fmt: skip
    assert told(whole, 24) == told(raced, 24)
    for one, other in zip(whole.steps, raced.steps, strict=True):
        assert one.choice.drop == pytest.approx(other.choice.drop, abs=ROUNDING)
        assert other.choice.asked + other.choice.spared == one.choice.asked
        assert one.choice.spared == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sets(st.integers(0, 4), min_size=1, max_size=3), st.sets(st.integers(0, 3), max_size=2)
)
def test_an_exact_race_is_run_in_the_network_as_it_is_by_then(seed: int, one: set[int], two: set[int]) -> None:
    """Without channels of earlier layers, others are zero elsewhere than in the whole network."""
    ablator = Ablator(net(seed), images(24, seed))
    candidates = {"two": sorted({0, 1, 2, 3} - two), "three": range(4), "hidden": range(3)}
    gone = {"one": sorted(one), "two": sorted(two)}
    whole, raced = (choose(ablator, candidates, gone, race=Race(by, images=2)) for by in ("none", "exact"))
    assert (whole.layer, whole.channel, whole.after) == (raced.layer, raced.channel, raced.after)


def test_an_exact_race_spares_what_cannot_win() -> None:
    """A dead filter stays right for sure; all others can only lose."""
    model, split = planted()
    found = choose(Ablator(model, split), {"0": range(5)}, race=Race("exact", images=3))
    assert (found.layer, found.channel) == ("0", 4)
    assert found.spared > 0
    assert found.asked + found.spared == 5 * 24


def test_images_without_a_channel_are_certified_only_when_it_is_zero_at_every_reader() -> None:
    model, split = net(5), images(24, 5)
    ablator = Ablator(model, split)
    units = [("two", channel) for channel in range(4)]
    margin, right, unread = racing._look(ablator, units, {"one": [0, 2]})
    logits = logits_without(model, split, {"one": [0, 2]})
    best = logits.topk(2, dim=1).values
    np.testing.assert_allclose(margin, (best[:, 0] - best[:, 1]).numpy(), atol=1e-5)
    assert right.tolist() == (logits.argmax(1) == split.labels).tolist()
    maps: list[Tensor] = []
    other = copy.deepcopy(model)
    keep = torch.tensor([0.0, 1, 0, 1, 1]).view(5, 1, 1)
    other.first.register_forward_hook(lambda _m, _i, out: out * keep)
    other.second.register_forward_hook(lambda _m, _i, out: maps.append(out))
    with torch.no_grad():
        other(split.normalisation(split.images[:]))
    assert unread.tolist() == (maps[0] == 0).flatten(2).all(2).t().tolist()


def test_a_race_by_sign_misses_the_best_no_more_often_than_it_says() -> None:
    misses = 0
    for seed in range(12):
        model, split = net(seed), images(160, seed)
        best = choose(Ablator(model, split), {"one": range(5), "two": range(4)})
        raced = choose(Ablator(model, split), {"one": range(5), "two": range(4)}, race=Race("sign", 0.2, 16), seed=seed)
        assert raced.after <= best.after
        misses += raced.after < best.after
    assert misses <= 4  # of 12 with a probability of 0.2 at most; more than 4 of them: 7 % were it 0.2


def test_a_race_by_sign_depends_on_its_seed_alone_and_spares() -> None:
    model, split = net(1), images(160, 1)
    run = [greedy(model, split, layers=["one", "two"], race=Race("sign", 0.2, 16), seed=seed, until=Until(steps=2))
           for seed in (0, 0, 1)]  # fmt: skip
    assert run[0] == run[1]
    assert sum(step.choice.spared for step in run[0].steps) > 0
    assert [s.choice.asked for s in run[0].steps] != [s.choice.asked for s in run[2].steps]


@pytest.mark.parametrize("options", [{"by": "exactly"}, {"delta": 0.3}, {"delta": 0.0}, {"images": 0}])
def test_races_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PrunescopeError, match="race"):
        Race(**options)


# Stopping, going on, fine-tuning


@pytest.mark.parametrize(
    ("until", "wanted"),
    [
        (Until(), {"one": 4, "two": 3}), (Until(steps=0), {"one": 0, "two": 0}), (Until(steps=2), {"one": 2, "two": 2}),
        (Until(ratio=1), {"one": 0, "two": 0}), (Until(ratio=1.5), {"one": 2, "two": 2}),
        (Until(ratio=2), {"one": 3, "two": 2}), (Until(steps=1, ratio=4), {"one": 1, "two": 1}),
    ],
)  # fmt: skip
def test_each_layer_stops_where_it_should(until: Until, wanted: dict[str, int]) -> None:
    found = greedy(net(), images(), layers=["one", "two"], until=until)
    assert {layer: len(found.of(layer)) for layer in wanted} == wanted
    all_ = greedy(net(), images(), layers=["one", "two"], until=until, per_layer=False)
    total = {Until(): 7, Until(ratio=1.5): 3, Until(ratio=2): 5, Until(steps=2): 2}.get(until)
    assert total is None or len(all_.steps) == total


def test_no_removal_is_made_that_would_cost_too_much() -> None:
    whole = greedy(net(3), images(seed=3), per_layer=False)
    least = sorted({step.accuracy for step in whole.steps})[1]
    found = greedy(net(3), images(seed=3), per_layer=False, until=Until(accuracy=least))
    first = next(i for i, step in enumerate(whole.steps) if step.accuracy < least)
    assert found.steps == whole.steps[:first]
    assert 0 < first < len(whole.steps)


def test_only_the_channels_that_may_go_do() -> None:
    found = greedy(net(), images(), layers={"one": [4, 1], "three": [2]}, per_layer=False)
    assert sorted(found.order) == [("one", 1), ("one", 4), ("three", 2)]


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("kind", ["none", "sign"])
def test_a_killed_run_goes_on_to_the_same_end(per_layer: bool, kind: Any) -> None:
    options: dict[str, Any] = {"per_layer": per_layer, "race": Race(kind, 0.2, 8), "report": images(9, 1, "reported"),
                               "layers": ["one", "hidden", "two"]}  # fmt: skip
    seen: list[Greedy] = []
    whole = greedy(net(), images(), on_step=seen.append, **options)
    assert [len(one.steps) for one in seen] == list(range(1, len(whole.steps) + 1))
    for so_far in (seen[0], seen[3], seen[4], seen[-1]):
        assert greedy(net(), images(), done=so_far, **options) == whole


def test_fine_tuning_is_seen_by_all_that_follows_and_a_killed_run_goes_on() -> None:
    """A tuner that changes the head: steps are those of the loop in the changed network."""
    calls: list[dict[str, list[int]]] = []

    def tune(model: nn.Module, gone: Mapping[str, Sequence[int]]) -> None:
        calls.append({name: list(channels) for name, channels in gone.items()})
        with torch.no_grad():
            model.head.bias.add_(torch.tensor([0.3, 0.0, -0.2]))  # type: ignore[union-attr, operator]

    model, split, other = net(2), images(seed=2), images(10, 2, "reported")
    options: dict[str, Any] = {"layers": ["one"], "report": other, "fine_tune": tune, "every": 2}
    kept: list[tuple[Greedy, dict[str, Tensor]]] = []
    found = greedy(
        model, split, on_step=lambda so_far: kept.append((so_far, copy.deepcopy(model.state_dict()))), **options
    )
    assert [step.tuned for step in found.steps] == [False, True, False, True]
    assert [call["one"] for call in calls] == [[c for _, c in found.order[:2]], [c for _, c in found.order]]

    again = net(2)
    wanted = naive(again, split, {"one": 5}, 2)
    assert [(*step.unit, round(step.choice.after * 30)) for step in found.steps[:2]] == [one[:3] for one in wanted]
    tune(again, {})
    gone = [channel for _, channel in found.order[:2]]
    for images_, accuracy in ((split, found.steps[1].accuracy), (other, found.steps[1].report)):
        said = logits_without(again, images_, {"one": gone}).argmax(1)
        assert accuracy == pytest.approx(float((said == images_.labels).double().mean()))
    assert found.steps[2].choice.before == found.steps[1].accuracy

    for so_far, weights in kept:
        other_model = net(2)
        other_model.load_state_dict(weights)
        assert greedy(other_model, split, done=so_far, **options) == found


def test_what_makes_no_sense_is_refused() -> None:
    model, split = net(), images()
    with pytest.raises(PrunescopeError, match=r"30 images both choose and report, 'chosen0' first"):
        greedy(model, split, report=split)
    part = split.subset([3])
    with pytest.raises(PrunescopeError, match="1 images both choose and report, 'chosen3'"):
        greedy(model, split, report=part)
    with pytest.raises(PrunescopeError, match="did you mean 'three'"):
        greedy(model, split, layers=["tree"])
    with pytest.raises(PrunescopeError, match="two has channels 0 to 3"):
        greedy(model, split, layers={"two": [4]})
    with pytest.raises(PrunescopeError, match="each once"):
        greedy(model, split, layers={"two": [1, 1]})
    with pytest.raises(PrunescopeError, match="let all compete"):
        greedy(model, split, fine_tune=lambda *_: None)
    with pytest.raises(PrunescopeError, match="every >= 1"):
        greedy(model, split, every=0)
    with pytest.raises(PrunescopeError, match="ratio of 1 or more"):
        Until(ratio=0.5)
    done = greedy(model, split, layers=["one"], until=Until(steps=1))
    allowed = {"one": [c for c in range(5) if c != done.steps[0].choice.channel]}
    with pytest.raises(PrunescopeError, match="another run's"):
        greedy(model, split, layers=allowed, done=done)


def test_the_network_is_left_alone() -> None:
    model = net()
    model.train()
    before = Snapshot(model)
    greedy(model, images(), layers=["two"], effort=Effort("bf16", screen=True))
    assert not before.differences()


@pytest.mark.parametrize("effort", [Effort("bf16"), Effort(screen=True), Effort("bf16", screen=True)], ids=str)
def test_ties_are_settled_as_in_float32_whatever_the_effort(effort: Effort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunescope.engine.ablation.linear_screen.CALIBRATION", 8)
    with fixed_rng():
        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
        ).eval()
    split = images(40)
    expected = greedy(model, split, layers=["0"])
    assert sum(step.choice.tied > 0 for step in expected.steps) > 5
    assert greedy(model, split, layers=["0"], effort=effort).order == expected.order
