"""The last steps of a network in low precision are in float32: rounding logits would cost more than all before."""

from __future__ import annotations

from torch import fx, nn

from prunescope.engine.ablation.channelwise import channelwise
from prunescope.engine.ablation.gates import is_flatten
from prunescope.engine.ablation.nodes import is_plain_call_of, parameter


def widen_tail(traced: fx.GraphModule) -> None:
    """Run what comes last in float32: one linear layer at most, with the pooling and the activations around it.

    Args:
        traced: from `capture`, its parameters in low precision already.
    """
    calls = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    reader = next(node for node in reversed(traced.graph.nodes) if node.op == "output")
    wide = False
    while isinstance(reader.args[0], fx.Node):
        value = reader.args[0]
        layer = not wide and is_plain_call_of(value, (nn.Linear,)) and calls.count(str(value.target)) == 1
        if not layer and not _is_free(value):
            break
        if layer:
            parameter(value).float()
            wide = True
        reader = value
    if reader.op != "output" and isinstance(reader.args[0], fx.Node):
        _cast(traced, reader.args[0], reader)


def _is_free(node: fx.Node) -> bool:
    """Whether a node has one input and no weights."""
    weightless = node.op != "call_module" or not any(True for _ in parameter(node).parameters())
    return len(node.all_input_nodes) == 1 and weightless and (channelwise(node) or is_flatten(node))


def _cast(traced: fx.GraphModule, value: fx.Node, reader: fx.Node) -> None:
    with traced.graph.inserting_after(value):
        node = traced.graph.call_method("float", (value,))
    node.meta.update({key: value.meta[key] for key in ("images", "shape", "where", "leads")}, call=lambda x: x.float())
    reader.replace_input_with(value, node)
