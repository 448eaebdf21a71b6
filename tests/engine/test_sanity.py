"""Random weights stage by stage: a planted method that ignores them, loops, and what is left alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.attribution.base import Explainer, Method, method_of
from prunescope.engine.sanity import parameter_stages, randomise, sanity_check
from prunescope.engine.untouched import untouched
from prunescope.metrics.maps import spearman, ssim
from prunescope.models.zoo import build_model
from prunescope.testing import tiny_data, tiny_network


def batches(size: int = 7) -> list[tuple[Tensor, Tensor]]:
    return [(x, y) for _, x, y in tiny_data(test=16).test.batches(size)]


def test_stages_hold_every_parameter_once_from_the_head_down() -> None:
    model = build_model("resnet8", classes=3, channels=3, seed=0)
    names = [name for name, _ in model.named_parameters()]
    for stages in (1, 3, 8, 100):
        groups = parameter_stages(model, stages)
        assert sorted(name for group in groups for name in group) == sorted(names)
        assert len(groups) <= stages
        assert "classifier.weight" in groups[0]
        assert "conv1.weight" in groups[-1]
        owners = [{name.rpartition(".")[0] for name in group} for group in groups]
        assert all(not a & b for i, a in enumerate(owners) for b in owners[i + 1 :])
    assert parameter_stages(tiny_network(), 4) == [
        ["head.weight", "head.bias"], ["conv2.weight", "conv2.bias"], ["norm.weight", "norm.bias"], ["conv1.weight"],
    ]  # fmt: skip
    with pytest.raises(PrunescopeError, match="no parameters"):
        parameter_stages(nn.ReLU(), 3)


def test_random_weights_keep_mean_and_spread_and_depend_on_seed_and_name() -> None:
    first, again, other = (build_model("small_cnn", classes=3, channels=3, seed=0) for _ in range(3))
    before = {name: value.clone() for name, value in first.named_parameters()}
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        randomise(model, list(before), seed)
    for (name, value), same, different in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(value, same)
        value, old = value.detach(), before[name].detach()
        if old.std(correction=0) == 0:
            assert torch.equal(value, old)
        if old.std(correction=0) == 0 or len(old.flatten()) < 100:
            continue
        assert not torch.equal(value, different)
        assert abs(float(torch.corrcoef(torch.stack([value.flatten(), old.flatten()]).detach())[0, 1])) < 0.5
        assert float(value.std() / old.std()) == pytest.approx(1, abs=0.25)


def test_equal_to_a_loop_over_copies() -> None:
    model, method = tiny_network().eval(), method_of({"name": "gradcam", "layer": "relu1"})
    with untouched(model):
        found = sanity_check(model, method, batches(), stages=3, seed=5)

    def maps(network: nn.Module) -> np.ndarray:
        with untouched(network):
            explain = method.explainer(network)
            return torch.cat([explain(x, y) for x, y in batches(5)]).double().numpy()

    own = maps(model)
    for stage in range(3):
        groups = parameter_stages(model, 3)
        cascade, alone = tiny_network(), tiny_network()
        randomise(cascade, [name for group in groups[: stage + 1] for name in group], 5)
        randomise(alone, groups[stage], 5)
        for values, network in ((found.cascading, cascade), (found.independent, alone)):
            np.testing.assert_allclose(values[0, stage], spearman(own, maps(network.eval())), atol=1e-3)
            np.testing.assert_allclose(values[1, stage], ssim(own, maps(network)), atol=1e-3)
    np.testing.assert_allclose(found.means("cascading")[:, 0], [np.nanmean(row) for row in found.cascading[0]])


def test_a_method_that_ignores_the_network_is_found_out_and_gradients_are_not() -> None:
    model = build_model("small_cnn", classes=3, channels=3, seed=0).eval()
    with untouched(model):
        edges = sanity_check(model, method_of("edges"), batches(), stages=4)
        saliency = sanity_check(model, method_of("saliency"), batches(), stages=4)
    np.testing.assert_allclose(edges.cascading, 1)
    np.testing.assert_allclose(edges.independent, 1)
    assert saliency.means("cascading")[-1, 0] < 0.5


@dataclass(frozen=True)
class Blank(Method):
    """Says something only as long as the network is itself."""

    def explainer(self, model: nn.Module) -> Explainer:
        same = torch.equal(model.head.weight, tiny_network().head.weight)  # type: ignore[union-attr, arg-type]
        return lambda x, _: x.abs().sum(1) * same * (torch.arange(len(x)) > 0)[:, None, None]


def test_blank_maps_are_counted() -> None:
    model = tiny_network().eval()
    with untouched(model):
        found = sanity_check(model, Blank(), batches(8), stages=2)
    assert found.blank.tolist() == [i % 8 == 0 for i in range(16)]
    assert found.lost.all()
    assert np.isnan(found.cascading).all()
    assert np.isnan(found.means("cascading")).all()
    assert np.isfinite(found.independent[0, 1, 1])  # the head, and so the maps, are whole when other layers are random


def test_seeds_and_generators() -> None:
    model = tiny_network().eval()
    with untouched(model):
        runs = [sanity_check(model, method_of("saliency"), batches(), stages=2, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0].cascading, runs[1].cascading)
    assert not np.array_equal(runs[0].cascading, runs[2].cascading)
    assert torch_generator(0).initial_seed() != torch_generator(1).initial_seed()
