"""One guarded pass over the data that feeds every probe at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Record
from prunescope.data.split import Split
from prunescope.engine.units import Pool, pooled_units
from prunescope.engine.untouched import untouched

#: {side of a layer: how positions become one number}.
_POOLS: dict[str, Pool] = {"pooled": "mean", "mean": "mean", "max": "max", "centre": "centre"}


@dataclass(frozen=True)
class Needs:
    """What a probe wants from the pass.

    Attributes:
        layers: modules (names as in `model.named_modules()`) whose outputs are kept; `NAME:input` keeps what goes in,
            `NAME:mean`, `NAME:max` and `NAME:centre` only one number per image and unit (`engine.units.pooled_units`),
            (B, units): many layers fit into memory. `NAME:pooled` is `NAME:mean`.
        gradients: the subset of `layers` towards which `Pass.grads` will be asked.
        splits: names of the splits to walk, in the order given: `train`, `val`, `test`, `concepts`.
    """

    layers: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)


@dataclass(eq=False)
class Pass:
    """One batch on its way through the network. Lives for that batch only.

    Attributes:
        split: name of the split the batch comes from.
        index: positions (B,) in that split, CPU int64.
        x: normalised images (B, C, H, W).  y: labels (B,).  logits: (B, classes), float32, detached.
        activations: {layer: output (or input) of that module}, detached unless asked for with gradients.
    """

    split: str
    index: Tensor
    x: Tensor
    y: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    _graph_logits: Tensor
    _towards: tuple[str, ...]
    _cache: dict[tuple[int, ...], dict[str, Tensor]] = field(default_factory=dict)

    def grads(self, target: Tensor) -> dict[str, Tensor]:
        """d logit[target] / d activation for every layer in `Needs.gradients` of any probe, each of its layer's shape.

        Args:
            target: class index per image, (B,).

        One backward pass per distinct target, whoever asks and however often; towards activations only, not weights.
        """
        if not self._towards:
            raise PrunescopeError("gradients need a layer: no probe of this sweep names one in Needs.gradients")
        key = tuple(target.tolist())
        if key not in self._cache:
            chosen = self._graph_logits.gather(1, target.view(-1, 1).to(self._graph_logits.device)).sum()
            found = torch.autograd.grad(
                chosen,
                [self.activations[name] for name in self._towards],
                retain_graph=True,
                allow_unused=True,
            )
            self._cache[key] = {
                name: torch.zeros_like(self.activations[name]) if grad is None else grad
                for name, grad in zip(self._towards, found, strict=True)
            }
        return self._cache[key]


class Gatherer(Protocol):
    """The state of one probe during one sweep."""

    @property
    def needs(self) -> Needs: ...

    def update(self, batch: Pass) -> None:
        """Take from the batch what is needed; keep no reference to its tensors' graph."""
        ...

    def finish(self) -> Record:
        """The record, after all splits were walked."""
        ...


def logits_of(output: object) -> Tensor:
    """The main logits of a model's output: torchvision's GoogLeNet and Inception return a tuple while training."""
    if isinstance(output, Tensor):
        return output
    main = getattr(output, "logits", None)
    return main if isinstance(main, Tensor) else output[0]  # type: ignore[index]


def require_finite(logits: Tensor, index: Tensor, split: Split) -> None:
    """Refuse logits (B, classes) of the images at `index` that are not finite; the message names the first image."""
    broken = ~logits.isfinite().all(1).cpu()
    if bool(broken.any()):
        name = str(split.ids[index[broken].numpy()][0])
        raise PrunescopeError(f"the network's logits are not finite, first for image {name!r}; are its weights?")


def sweep(
    model: nn.Module,
    splits: Mapping[str, Split],
    gatherers: Sequence[Gatherer],
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> list[Record]:
    """Walk every split that some gatherer needs, once, and return the gatherers' records in their order.

    Memory does not grow with the number of images beyond what the gatherers keep. The model is moved to `device`
    and is otherwise the same afterwards.

    Args:
        on_batch: called with the number of images after each batch, for progress bars.
    """
    model.to(device)
    order: dict[str, None] = {}
    for gatherer in gatherers:
        order.update(dict.fromkeys(gatherer.needs.splits))
    with untouched(model):
        for name in order:
            users = [g for g in gatherers if name in g.needs.splits]
            if name not in splits:
                raise choices("split", name, splits)
            _walk(model, name, splits[name], users, batch_size, device, on_batch)
        return [gatherer.finish() for gatherer in gatherers]


def _walk(
    model: nn.Module,
    name: str,
    split: Split,
    users: Sequence[Gatherer],
    batch_size: int,
    device: torch.device | str,
    on_batch: Callable[[int], None] | None,
) -> None:
    layers = _union(g.needs.layers for g in users)
    towards = _union(g.needs.gradients for g in users)
    kept: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(_watch(model, layer, kept, layer in towards).remove)
        # Without a wish for gradients no graph is built; with one, it starts at the first layer asked for.
        stack.enter_context(torch.enable_grad() if towards else torch.inference_mode())
        for index, x, y in split.batches(batch_size, device):
            graph_logits = logits_of(model(x)).float()
            _require_all(layers, kept)
            batch = Pass(name, index, x, y, graph_logits.detach(), dict(kept), graph_logits, towards)
            for gatherer in users:
                gatherer.update(batch)
            kept.clear()
            del batch, graph_logits  # or they would live through the next forward pass, beside its own
            if on_batch is not None:
                on_batch(len(index))


def _require_all(layers: Iterable[str], kept: Mapping[str, Tensor]) -> None:
    silent = [layer for layer in layers if layer not in kept]
    if silent:
        raise PrunescopeError(f"layer {silent[0]!r} does not run when the network is evaluated")


def _watch(model: nn.Module, layer: str, kept: dict[str, Tensor], with_gradient: bool) -> RemovableHandle:
    name, _, side = layer.partition(":")
    module, keep = find_module(model, name), _keeper(kept, layer, with_gradient)
    if side not in ("", "input", *_POOLS):
        raise choices("side of a layer", side, ["input", *_POOLS], layer)
    if side in _POOLS:
        if with_gradient:
            raise PrunescopeError(f"there are no gradients towards {layer!r}: name the layer itself")
        return module.register_forward_hook(_pooler(kept, layer, _POOLS[side]))
    if side == "input":
        return module.register_forward_pre_hook(lambda _module, inputs: (keep(inputs[0]), *inputs[1:]))
    return module.register_forward_hook(lambda _module, _inputs, output: keep(output))


def _pooler(kept: dict[str, Tensor], layer: str, how: Pool) -> Callable[[nn.Module, object, object], None]:
    def pool(module: nn.Module, _inputs: object, output: object) -> None:
        kept[layer] = pooled_units(module, output, layer, how)  # at once: what comes next may overwrite the output

    return pool


def _keeper(kept: dict[str, Tensor], layer: str, with_gradient: bool) -> Callable[[Tensor], Tensor]:
    def keep(value: Tensor) -> Tensor:
        if not isinstance(value, Tensor):
            raise PrunescopeError(f"layer {layer!r} gives a {type(value).__name__}, not a tensor; name one inside it")
        if with_gradient and not value.requires_grad:
            value = value.detach().requires_grad_()
        kept[layer] = value if with_gradient else value.detach()
        # A clone goes onwards: an in-place ReLU behind this place would overwrite what was kept, and its gradient.
        return value.clone()

    return keep


def find_module(model: nn.Module, layer: str) -> nn.Module:
    """The submodule named `layer`; an unknown name is an error that suggests the nearest."""
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        raise choices("layer", layer, [name for name in modules if name])
    return modules[layer]


def _union(names: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in names for name in group))
