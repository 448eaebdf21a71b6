"""`ps.prune`: the rounds of a recipe on one network, without a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.testing import tiny_data, tiny_network
from prunescope.ticket.prune import as_recipe

DATA = tiny_data()
TRAINING = ps.Training(epochs=1, batch_size=16, lr=0.05, precision="32")
SPEC: dict[str, Any] = {"schedule": {"density": 0.2, "rounds": 2}, "rewind": {"to": "none"}}
ONCE: dict[str, Any] = {"schedule": {"density": 0.5, "kind": "one-shot"}}


def test_it_is_the_rounds_of_the_recipe_to_the_bit() -> None:
    model, other = tiny_network(), tiny_network()
    seen: list[ps.Checkpoint] = []
    epochs: list[dict[str, Any]] = []
    ticket = ps.prune(
        model, SPEC, DATA, training=TRAINING, seed=3, on_round=seen.append, on_epoch=epochs.append, device="cpu"
    )
    recipe = as_recipe(SPEC)
    expected = list(ps.rounds(other, recipe, DATA.train, TRAINING, seed=3, validate=DATA.val, device="cpu"))
    assert len(seen) == len(expected) == 2
    assert ticket is seen[-1]
    assert len(epochs) == 2
    assert all("val_accuracy" in entry for entry in epochs)
    for found, wanted in zip(seen, expected, strict=True):
        assert found.mask == wanted.mask
        assert all(torch.equal(found.weights[name], wanted.weights[name]) for name in wanted.weights)
    assert all(torch.equal(tensor, ticket.weights[name]) for name, tensor in model.state_dict().items())


def test_recipes_are_objects_mappings_text_or_files(tmp_path: Path) -> None:
    text = "criterion: snip\nschedule: {density: 0.3, kind: one-shot}\nrewind: {to: none}\ntraining: {epochs: 1}\n"
    (tmp_path / "r.yaml").write_text(text)
    found = [as_recipe(spec) for spec in (text, tmp_path / "r.yaml")]
    assert found[0] == found[1] == as_recipe(as_recipe(text))
    assert found[0].name == "recipe"
    assert found[0].training == ps.Training(epochs=1)
    (tmp_path / "odd.yaml").write_text("- 1")
    for wrong, words in (
        ("magnitude", "expected a mapping"),
        (tmp_path / "odd.yaml", "odd.yaml: expected a mapping"),
        ({"criterium": "snip"}, "did you mean 'criterion'"),
        ({"schedule": {"density": 1.5}}, "above 0 and at most 1, got 1.5"),
    ):
        with pytest.raises(PrunescopeError, match=words):
            as_recipe(wrong)  # type: ignore[arg-type]


def test_a_split_will_do_and_the_recipe_may_bring_its_training() -> None:
    spec = {**SPEC, "training": {"epochs": 1, "batch_size": 16}}
    ticket = ps.prune(tiny_network(), spec, DATA.train, device="cpu")
    assert ticket.density == pytest.approx(0.2, abs=1e-3)
    assert "val_accuracy" not in ticket.history[-1]
    with pytest.raises(PrunescopeError, match="does not say how to retrain"):
        ps.prune(tiny_network(), SPEC, DATA.train)


def test_without_data_it_only_cuts() -> None:
    model = tiny_network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ticket = ps.prune(model, ONCE, retrain=False)
    assert ticket.density == pytest.approx(0.5, abs=1e-3)
    assert ticket.mask is not None
    kept = ticket.mask["conv2.weight"]
    assert torch.equal(ticket.weights["conv2.weight"][kept], before["conv2.weight"][kept])
    channels = {**ONCE, "granularity": "channel"}
    assert ps.prune(tiny_network(), channels, retrain=False, shape=(3, 8, 8)).density < 0.7


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        (SPEC, {}, "retraining needs images and their labels: pass data; or only cut"),
        ({**ONCE, "criterion": "snip"}, {"retrain": False}, "criterion 'snip' needs images and their labels"),
        ({**ONCE, "scope": "sensitivity"}, {"retrain": False}, "scope sensitivity needs images"),
        ({**ONCE, "granularity": "channel"}, {"retrain": False}, "granularity 'channel' must know how large images"),
        ({**ONCE, "target": "flops"}, {"retrain": False}, "target flops must know how large images"),
        ({"schedule": {"kind": "cubic"}}, {"retrain": False}, "prunes while the network trains"),
        ({**ONCE, "ignore": ["conv7"]}, {"retrain": False}, "matches no parameter.*did you mean 'conv2' or 'conv1'"),
    ],
)
def test_what_is_missing_is_said(spec: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        ps.prune(tiny_network(), spec, **options)


class Branching(nn.Module):
    """Looks at values to decide what to do, so that no trace of it can be made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head((x if float(x.sum()) > 0 else -x).mean((2, 3)))


def test_a_network_that_cannot_be_traced_still_loses_single_weights() -> None:
    assert ps.prune(Branching(), ONCE, retrain=False).density == 0.5
    with pytest.raises(PrunescopeError, match=r"Branching.*Pruning single weights, filters or kernels needs no graph"):
        ps.prune(Branching(), {**ONCE, "granularity": "channel"}, retrain=False, shape=(3, 8, 8))


def test_a_network_that_comes_pruned_keeps_its_zeros_and_says_so() -> None:
    model = tiny_network()
    zeros = torch.rand(model.conv2.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5  # type: ignore[union-attr,arg-type]
    with torch.no_grad():
        model.conv2.weight[zeros] = 0  # type: ignore[union-attr,index,operator]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(PrunescopeWarning, match=rf"{int(zeros.sum())} of 432 weights in 1 tensors; they are taken as"):
        ticket = ps.prune(model, SPEC, DATA, training=TRAINING, device="cpu")
    assert not ticket.weights["conv2.weight"][zeros].any()
    model.load_state_dict(state)
    ticket = ps.prune(model, {**SPEC, "schedule": {"density": 1}}, DATA, training=TRAINING, zeros="free", device="cpu")
    assert ticket.weights["conv2.weight"][zeros].any()
