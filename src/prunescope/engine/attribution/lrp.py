"""Layer-wise relevance propagation."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, fx, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.engine.attribution.base import Explainer, InputMethod, methods
from prunescope.engine.attribution.peer import CHECKED, captum, in_parts
from prunescope.engine.attribution.rewritten import rewritten

Rule = Literal["gamma", "alpha1beta0", "epsilon"]


@methods.register("lrp")
@dataclass(frozen=True)
class Lrp(InputMethod):
    """Layer-wise relevance propagation (Bach et al. 2015; rules after Montavon et al. 2019), on a copy of the network.

    Batch norms are folded into the convolutions before them. Convolutions that a ReLU follows, but for the first, have
    the rule; everything else the epsilon rule. It applies where every step is a convolution, a linear layer, an
    addition, a pooling or a ReLU. There the epsilon rule alone *is* input times gradient (Ancona et al. 2018,
    proposition 1); of the first images that is checked, and a network in which it is not (means, products ...) is
    refused.

    Attributes:
        rule: `gamma` favours what speaks for the class, `alpha1beta0` takes nothing else, `epsilon` takes all alike.
        gamma: how much.
    """

    rule: Rule = "gamma"
    gamma: float = 0.25
    summary: ClassVar[str] = "relevance shared out layer by layer (Bach et al. 2015)"
    passes: ClassVar[str] = "two forward, one backward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in get_args(Rule):
            raise choices("rule", self.rule, get_args(Rule), "lrp")
        if not self.gamma >= 0:
            raise PrunescopeError(f"lrp: gamma must be 0 or more, got {self.gamma}")

    def attributor(self, model: nn.Module) -> Explainer:
        package, rules = captum(self.name), importlib.import_module("captum.attr._utils.lrp_rules")
        sums = importlib.import_module("captum.attr._utils.custom_modules").Addition_Module
        own = rewritten(model, addition=sums, folded=True)
        favoured = [] if self.rule == "epsilon" else _before_relus(own)
        checked = list[bool]()

        def relevance(part: Tensor, chosen: Tensor, favour: list[str]) -> Tensor:
            for name in favour:  # Captum takes rules off again
                own.get_submodule(name).rule = (
                    rules.GammaRule(self.gamma) if self.rule == "gamma" else rules.Alpha1_Beta0_Rule()
                )
            try:
                found: Tensor = package.LRP(own).attribute(part, target=chosen).detach()
            except (TypeError, RuntimeError, AttributeError) as error:
                raise _refusal(model, _reason(error)) from error
            return found

        def part_of(part: Tensor, chosen: Tensor) -> Tensor:
            if not checked:
                few = part[:CHECKED].detach(), chosen[:CHECKED]
                _require_conserving(model, own, few, relevance(few[0].clone().requires_grad_(), few[1], []))
                checked.append(True)
            return relevance(part, chosen, favoured)

        return lambda x, target: in_parts(part_of, x, target, 1)


def _before_relus(own: nn.Module) -> list[str]:
    """Convolutions whose output only a ReLU reads, but for the first: before another sum the rules can divide by 0."""
    if not isinstance(own, fx.GraphModule):
        return []
    calls = [node for node in own.graph.nodes if node.op == "call_module"]
    found = []
    for node in calls:
        readers = [reader for copied in node.users for reader in copied.users]  # a clone lies between
        if isinstance(own.get_submodule(node.target), nn.Conv2d) and readers:
            kinds = [own.get_submodule(r.target) if r.op == "call_module" else None for r in readers]
            found += [str(node.target)] if all(isinstance(kind, nn.ReLU) for kind in kinds) else []
    first = next((str(n.target) for n in calls if isinstance(own.get_submodule(n.target), nn.Conv2d)), "")
    return [name for name in found if name != first]


def _require_conserving(model: nn.Module, own: nn.Module, images: tuple[Tensor, Tensor], found: Tensor) -> None:
    x, target = images[0].detach().clone().requires_grad_(), images[1]
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(own(x).gather(1, target[:, None]).sum(), x)
    wanted = x.detach() * gradient
    gap = float((found - wanted).abs().sum() / wanted.abs().sum().clamp_min(1e-12))
    if not gap <= 0.01:
        raise _refusal(
            model, f"with the epsilon rule its relevance is {gap:.0%} off input times gradient, so it holds a step that"
            " Captum's LRP does not see, such as a mean, a product of maps or a layer norm",
        )  # fmt: skip


def _reason(error: Exception) -> str:
    """Captum's words, or what they mean."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"Captum has no rule for one of its modules ({text[:120]})" if "no rule" in text else text


def _refusal(model: nn.Module, why: str) -> PrunescopeError:
    return PrunescopeError(f"lrp does not apply to {type(model).__name__}: {why}; take integrated_gradients")
