"""Agreement of explanations the slow way: a full forward and backward pass for every unit, nothing shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunescope.data.split import Split
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.attribute import gradcam


def full_maps(model: nn.Module, split: Split, layers: Mapping[str, Sequence[int]], at: str) -> tuple[Tensor, Tensor]:
    """Grad-CAM (I, h, w) of the whole network and (U, I, h, w) without every unit, for the whole network's classes.

    `Stage.without` itself is tested against hooks.
    """
    stage = Stage(capture(model, split.shape, fold=False))
    (place,) = (node for node in stage.traced.graph.nodes if node.op == "call_module" and node.target == at)
    images = split.normalisation(split.images[:]).to(next(model.parameters()))
    with torch.no_grad():
        said = stage.logits(stage.run(images)).argmax(1)
    found = []
    for layer, channels in layers.items():
        for channel in channels:
            worlds = Worlds.grid(torch.tensor([channel]), len(images))
            found.append(_maps(stage, place, images, said, stage.without(layer, worlds)))
    return _maps(stage, place, images, said, {}), torch.stack(found)


def _maps(stage: Stage, place: fx.Node, images: Tensor, said: Tensor, change: Mapping[fx.Node, Any]) -> Tensor:
    kept: list[Tensor] = []

    def keep(_node: fx.Node, value: Tensor) -> Tensor:
        kept.append(value.detach().requires_grad_())
        return kept[0]

    values = stage.run(images, {**change, place: keep})
    target = stage.logits(values).gather(1, said[:, None]).sum()
    (gradient,) = torch.autograd.grad(target, kept[0])
    return gradcam(kept[0].detach(), gradient)
