"""Which layers a network has, found without running it on data: the last convolution, the head, the prunable ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import fx, nn

from prunescope.core.errors import PrunescopeError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def last_conv(model: nn.Module) -> str:
    """Name of the last 2-d convolution that runs, where Grad-CAM looks by default.

    A convolution that is itself the classifier (SqueezeNet) is not meant, nor are auxiliary heads. In a network that
    ends in a concatenation (GoogLeNet, Inception, SqueezeNet) it is one branch only: name the module around it
    (`inception5b`) to see all of them.

    >>> last_conv(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))
    '0'

    Raises:
        PrunescopeError: the network has no convolution before its head.
    """
    head = penultimate(model)
    modules = dict(model.named_modules())
    found = [name for name in execution_order(model) if isinstance(modules[name], nn.Conv2d) and name != head]
    if not found:
        raise PrunescopeError(f"{type(model).__name__} has no 2-d convolution before its head; name a layer instead")
    return found[-1]


def map_layer(model: nn.Module) -> str:
    """Name of the module whose output heat maps weigh by default: the last convolution (`last_conv`).

    In a transformer, whose only convolutions cut patches (kernel and stride are one), it is the last norm before an
    attention: behind the last attention a network that reads its class token has no gradient towards the others.

    Raises:
        PrunescopeError: the network has neither.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if all(module.kernel_size == module.stride for module in convolutions):
        names = [name for name, _ in model.named_modules()]
        kinds = [type(module) for module in model.modules()]
        attend = [i for i, kind in enumerate(kinds) if "attention" in kind.__name__.lower()]
        norms = [i for i, kind in enumerate(kinds) if issubclass(kind, nn.LayerNorm) and attend and i < attend[-1]]
        if norms:
            return names[norms[-1]]
    return last_conv(model)


def penultimate(model: nn.Module) -> str:
    """Name of the head, the module whose *input* is the feature vector: the last linear layer that runs.

    In a network without linear layers it is the last convolution (SqueezeNet's `classifier.1`), whose input is a
    feature map (B, C, h, w): average it over positions to have a vector.

    >>> penultimate(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2)))
    '2'

    Raises:
        PrunescopeError: the network has neither.
    """
    modules = dict(model.named_modules())
    order = execution_order(model)
    for kinds in (nn.Linear, CONVOLUTIONS):
        found = [name for name in order if isinstance(modules[name], kinds)]
        if found:
            return found[-1]
    raise PrunescopeError(f"{type(model).__name__} has no linear layer and no convolution, so no head is known")


def prunable(
    model: nn.Module, *, bias: bool = False, norm: bool = False, aux: bool = False, ignore: Iterable[str] = ()
) -> list[str]:
    """Names of the parameters that pruning may cut: weights of convolutions and linear layers, in module order.

    Args:
        bias: also the biases of these layers (and of the norms, with `norm`).
        norm: also the scales of batch, layer and group norms. A pruned scale cuts the whole channel.
        aux: also auxiliary heads, which serve training only.
        ignore: patterns (`*` and `?` as in file names) of parameters or modules to leave alone; a module stands for
            all that is in it.

    A tensor shared by several layers is listed once; the joint projection inside `nn.MultiheadAttention` is not.

    >>> prunable(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)), ignore=["3"])
    ['0.weight']

    Raises:
        PrunescopeError: a pattern of `ignore` matches nothing in the network.
    """
    patterns = tuple(ignore)
    known = dict(model.named_parameters())
    require_matches(patterns, known)
    kinds = (*CONVOLUTIONS, nn.Linear, *(NORMS if norm else ()))
    parts = ("weight", "bias") if bias else ("weight",)
    names = [
        f"{name}.{part}" if name else part
        for name, module in model.named_modules()
        if isinstance(module, kinds) and (aux or not is_auxiliary(name))
        for part in parts
    ]
    return [name for name in names if name in known and not any(matches(name, pattern) for pattern in patterns)]


def is_auxiliary(name: str) -> bool:
    """Whether a module or parameter belongs to an auxiliary head, by its name: `aux1.fc2`, `AuxLogits.conv0`.

    >>> is_auxiliary("AuxLogits.fc"), is_auxiliary("features.fc")
    (True, False)
    """
    return any(part.lower().startswith("aux") for part in name.split("."))


def execution_order(model: nn.Module) -> list[str]:
    """Names of the leaf modules in the order in which the network calls them in eval mode; one called twice counts
    where it is called last.

    Read off a symbolic trace (torch.fx). A network that cannot be traced (control flow on values) is taken in module
    order, without its auxiliary heads.
    """
    try:
        with evaluating(model):
            graph = fx.Tracer().trace(model)
    except Exception:  # whatever the network's own code raises when its inputs are symbols
        return [name for name, _ in model.named_modules() if name and not is_auxiliary(name)]
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    return list(reversed(dict.fromkeys(reversed(calls))))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode again on leaving."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def require_matches(patterns: Iterable[str], parameters: Iterable[str], where: str = "ignore") -> None:
    """Refuse a pattern that stands for no parameter and no module; the message names the nearest."""
    names = list(parameters)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            near = get_close_matches(pattern, [*dict.fromkeys(p for name in names for p in _prefixes(name))], n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise PrunescopeError(f"{where}: {pattern!r} matches no parameter and no module of the network{hint}")


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (`fc.weight`, `layer1`, `conv*`) stands for a parameter: by its name, or by a module's."""
    return any(fnmatchcase(prefix, pattern) for prefix in _prefixes(name))


def _prefixes(name: str) -> list[str]:
    """`a.b.weight` -> `a.b.weight`, `a.b`, `a`."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
