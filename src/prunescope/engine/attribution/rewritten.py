"""A copy of a network in which every step is a module of its own, as Captum's DeepLIFT and LRP need it.

They speak to modules through hooks. What is not a module they do not see; a module that runs twice they refuse; a
module that overwrites its input, or whose input another one reads too, they treat wrongly.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunescope.engine.sweep import logits_of

#: What functions and methods are, as modules.
_RELUS = (F.relu, torch.relu, "relu", "relu_", torch.relu_, F.relu_)
_POOLS: dict[Callable[..., Any], type[nn.Module]] = {F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d}
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")


def rewritten(model: nn.Module, *, addition: Callable[[], nn.Module] | None = None, folded: bool = False) -> nn.Module:
    """A copy in eval mode, without in-place modules, in which functional ReLUs and poolings are modules, every call has
    a module and an input of its own, and what does nothing (identity, dropout, flatten as a module) is none. Of several
    outputs it gives the first.

    A network that torch.fx cannot follow is copied as it is, but for in-place modules: whether it is understood
    is then to be seen from the result.

    Args:
        addition: makes the module that stands for a sum of two tensors; None: sums stay.
        folded: batch norms right behind a convolution become part of it.
    """
    made = copy.deepcopy(model).eval()
    for module in made.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 (its type is not known)
    try:
        graph = fx.Tracer().trace(made)
    except Exception:  # whatever the network's own code raises when its inputs are symbols
        return made
    rewriter = _Rewriter(fx.GraphModule(made, graph))
    rewriter.first_output()
    rewriter.apart()
    if folded:
        rewriter.fold()
    rewriter.functions(addition)
    return rewriter.done()


@torch.no_grad()
def folded_for(model: nn.Module, x: Tensor) -> nn.Module:
    """The network with its batch norms inside the convolutions before them, in eval mode, for many passes.

    The network itself where torch.fx cannot follow it, or where logits of these images x differ by more than rounding.
    """
    made = copy.deepcopy(model).eval()
    try:
        rewriter = _Rewriter(fx.GraphModule(made, fx.Tracer().trace(made)))
        rewriter.apart()
        rewriter.fold()
        found = rewriter.compiled()
        own, other = logits_of(model(x)), logits_of(found(x))
    except Exception:  # whatever the network's own code raises when its inputs are symbols
        return model
    near = 1e-4 * float(own.abs().max()) + 1e-6
    return found.requires_grad_(False) if bool((own - other).abs().max() <= near) else model


class _Rewriter:
    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced, self.count = traced, 0

    def first_output(self) -> None:
        """Of several outputs only the first is left: the logits, as for `engine.sweep.logits_of`."""
        last = next(iter(reversed(self.traced.graph.nodes)))
        while isinstance(last.args[0], (tuple, list)):
            last.args = last.args[0][:1]

    def apart(self) -> None:
        """Modules that run twice become two; those that do nothing go."""
        seen: set[str] = set()
        for node in list(self.traced.graph.nodes):
            if node.op != "call_module":
                continue
            module = self.traced.get_submodule(str(node.target))
            if isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)):
                node.replace_all_uses_with(node.args[0])
                self.traced.graph.erase_node(node)
            elif isinstance(module, nn.Flatten):
                self._become(node, "call_method", "flatten", (node.args[0], module.start_dim, module.end_dim))
            elif node.target in seen:
                node.target = self._add(copy.deepcopy(module))
            else:
                seen.add(str(node.target))

    def fold(self) -> None:
        for node in list(self.traced.graph.nodes):
            if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
                continue
            before, norm = node.args[0], self.traced.get_submodule(str(node.target))
            if before.op != "call_module" or len(before.users) > 1 or type(norm) is not nn.BatchNorm2d:
                continue
            convolution = self.traced.get_submodule(str(before.target))
            if type(convolution) is nn.Conv2d and norm.running_mean is not None:
                before.target = self._add(fuse_conv_bn_eval(convolution, norm))
                node.replace_all_uses_with(before)
                self.traced.graph.erase_node(node)

    def functions(self, addition: Callable[[], nn.Module] | None) -> None:
        for node in list(self.traced.graph.nodes):
            if node.op not in ("call_function", "call_method"):
                continue
            if node.target in _RELUS:
                self._become(node, "call_module", self._add(nn.ReLU()), node.args[:1])
            elif node.target in _POOLS and not node.kwargs.get("return_indices"):
                options = {name: value for name, value in node.kwargs.items() if name != "return_indices"}
                module = _POOLS[node.target](*node.args[1:], **options)
                self._become(node, "call_module", self._add(module), node.args[:1])
            elif addition and node.target in _SUMS and len([a for a in node.args if isinstance(a, fx.Node)]) == 2:
                self._become(node, "call_module", self._add(addition()), node.args)

    def done(self) -> nn.Module:
        """Every module reads a tensor that nobody else reads or makes: a hook there meets its gradient only."""
        graph = self.traced.graph
        for node in [node for node in graph.nodes if node.op == "call_module"]:
            with graph.inserting_before(node):
                node.args = tuple(
                    graph.call_method("clone", (arg,)) if isinstance(arg, fx.Node) else arg for arg in node.args
                )
        return self.compiled()

    def compiled(self) -> nn.Module:
        """The network as it now is."""
        self.traced.delete_all_unused_submodules()
        self.traced.graph.lint()
        self.traced.recompile()
        return self.traced

    def _become(self, node: fx.Node, op: str, target: str, args: tuple[Any, ...]) -> None:
        with self.traced.graph.inserting_before(node):
            new = self.traced.graph.create_node(op, target, args)
        node.replace_all_uses_with(new)
        self.traced.graph.erase_node(node)

    def _add(self, module: nn.Module) -> str:
        self.count += 1
        name = f"rewritten_{self.count}"
        self.traced.add_module(name, module.eval())
        return name
