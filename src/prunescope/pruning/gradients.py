"""Gradients of the training loss with respect to the weights that may be pruned, for the criteria that ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.sweep import logits_of
from prunescope.pruning.scoring import Batches

#: {parameter name: tensor of its shape}.
Tensors = Mapping[str, Tensor]
#: Images and labels, batch by batch.
Data = Iterator[tuple[Tensor, Tensor]]

#: Numbers that per-image gradients may take at once (1 GiB of float32).
_BUDGET = 2**28


def some(batches: Batches | None, limit: int) -> Data:
    """The first `limit` batches, all when it is 0.

    Raises:
        PrunescopeError: there are none.
    """
    found = iter(()) if batches is None else islice(batches(), limit or None)
    first = next(found, None)
    if first is None:
        raise PrunescopeError("the criterion needs training data, and was given none")
    yield first
    yield from found


def live_weights(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """The named parameters, asking for gradients from now on. Only inside `untouched`, which undoes it."""
    parameters = dict(model.named_parameters())
    live = {name: parameters[name] for name in names}
    for parameter in live.values():
        parameter.requires_grad_(True)
    return live


def loss_of(model: nn.Module, x: Tensor, y: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy of the batch, logits divided by `temperature`."""
    with torch.enable_grad():
        return F.cross_entropy(logits_of(model(x)) / temperature, y)


def gradients(loss: Tensor, weights: Tensors, *, graph: bool = False, again: bool = False) -> dict[str, Tensor]:
    """{name: d loss / d weight}; zeros for weights that the loss does not see.

    Args:
        graph: these gradients will be differentiated.
        again: `loss` will be differentiated again.
    """
    with torch.enable_grad():
        found = torch.autograd.grad(
            loss, list(weights.values()), create_graph=graph, retain_graph=graph or again, materialize_grads=True
        )
    return dict(zip(weights, found, strict=True))


def hessian_times(
    gradient: Mapping[str, Tensor], vector: Mapping[str, Tensor], weights: Tensors, *, again: bool = False
) -> dict[str, Tensor]:
    """{name: Hessian times vector}: the gradient of the product of gradient (made with `graph`) and vector."""
    with torch.enable_grad():
        along = torch.stack([(gradient[name] * vector[name]).sum() for name in weights]).sum()
    return gradients(along, weights, again=again)


def summed(
    weights: Tensors, data: Data, of: Callable[[Tensor, Tensor], Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], int]:
    """Sum over all images of what `of(x, y)` gives as a batch's mean, {name: of a weight's shape}; and their number."""
    total, seen = {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0
    for x, y in data:
        for name, value in of(x, y).items():
            total[name] += value * len(y)
        seen += len(y)
    return total, seen


def mean_gradients(model: nn.Module, weights: Tensors, data: Data, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """{name: gradient of the mean loss over all images of `data`}."""
    total, seen = summed(weights, data, lambda x, y: gradients(loss_of(model, x, y, temperature=temperature), weights))
    return {name: gradient / seen for name, gradient in total.items()}


def image_gradients(model: nn.Module, weights: Tensors, data: Data) -> Iterator[dict[str, Tensor]]:
    """Chunks of {name: gradient of every image's own loss, (images, *weight's shape)}.

    One vectorised backward pass a chunk. Chunks are as large as fits into 1 GiB.
    """
    frozen = {name: p.detach() for name, p in model.named_parameters() if name not in weights}
    chunk = max(1, _BUDGET // max(1, sum(weight.numel() for weight in weights.values())))

    def loss(own: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, {**frozen, **own}, (x[None],))
        return F.cross_entropy(logits_of(logits), y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    values = {name: weight.detach() for name, weight in weights.items()}
    for x, y in data:
        for xs, ys in zip(x.split(chunk), y.split(chunk), strict=True):
            with torch.enable_grad():
                found = each(values, xs, ys)
            yield {name: gradient.detach() for name, gradient in found.items()}
