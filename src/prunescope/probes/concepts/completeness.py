"""Concept completeness (Yeh et al. 2020): how much of a network's accuracy its concepts' scores alone can give back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.models.layers import penultimate
from prunescope.probes.concepts.embeddings import Embedded

#: Hidden units of the map from scores to features, steps of its training, how often validation looks, images at most.
_HIDDEN, _STEPS, _EVERY, _IMAGES = 32, 150, 10, 5000
#: Share of test images on which the head alone must decide as the network does.
_SAME = 0.999


@dataclass(frozen=True, eq=False)
class Rebuilding:
    """A network that is rebuilt from scores: map of scores to features, then the network's own head.

    Attributes:
        head: weights (C, D) and bias (C,) of the last linear layer, frozen.
        splits: train, val and test with features, labels and the network's predictions.
    """

    head: tuple[Tensor, Tensor]
    splits: Mapping[str, Embedded]
    seed: int

    @classmethod
    def of(cls, model: nn.Module, layer: str, splits: Mapping[str, Embedded], seed: int) -> Rebuilding | None:
        """None where the features are not what goes into a last linear layer that makes the decision by itself."""
        name = penultimate(model)
        module = dict(model.named_modules())[name]
        if layer != f"{name}:input" or not isinstance(module, nn.Linear):
            return None
        weight = module.weight.detach().float().cpu()
        bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach().float().cpu()
        test = splits["test"]
        same = ((test.x @ weight.T + bias).argmax(1) == test.predicted).double().mean()
        return cls((weight, bias), splits, seed) if float(same) >= _SAME else None

    def completeness(self, scores: Mapping[str, Tensor]) -> tuple[float, float]:
        """(bounded, raw) completeness of scores (N, K) of the three splits; see `completeness`."""
        test, train = self.splits["test"], self.splits["train"]
        classes = len(self.head[0])
        common = int(torch.bincount(train.labels, minlength=classes).argmax())
        chance = max(1 / classes, _share(test.labels == common))
        return completeness(self.accuracy(scores), _share(test.predicted == test.labels), chance, len(test.labels))

    def accuracy(self, scores: Mapping[str, Tensor]) -> float:
        """On the test split, of the network rebuilt from scores.

        The map is linear plus a ReLU layer, begins at the least-squares one, is trained through the frozen head on at
        most 5,000 training images, and is taken where it is most accurate on validation images.
        """
        with torch.inference_mode(False), torch.enable_grad():
            s = {name: values.float().clone() for name, values in scores.items()}
            mean, std = s["train"].mean(0), s["train"].std(0, correction=0).clamp_min(1e-12)
            s = {name: (values - mean) / std for name, values in s.items()}
            rows = torch.randperm(len(s["train"]), generator=torch_generator(self.seed, "completeness"))[:_IMAGES]
            weights = self._start(s["train"][rows], self.splits["train"].x[rows].clone())
            best = self._trained(weights, s, rows)
            return _share(self._logits(best, s["test"]).argmax(1) == self.splits["test"].labels)

    def _start(self, s: Tensor, features: Tensor) -> list[Tensor]:
        """Least squares for the linear part (K + 1, D); the hidden layer is random, and leads nowhere yet."""
        ones = torch.cat([s, torch.ones(len(s), 1)], 1).double()
        gram = ones.T @ ones + 1e-3 * len(s) * torch.eye(ones.shape[1], dtype=torch.float64)
        linear = torch.linalg.solve(gram, ones.T @ features.double()).float()
        generator = torch_generator(self.seed, "completeness", "hidden")
        hidden = torch.randn(s.shape[1], _HIDDEN, generator=generator) / s.shape[1] ** 0.5
        return [linear, hidden, torch.randn(_HIDDEN, generator=generator), torch.zeros(_HIDDEN, features.shape[1])]

    def _logits(self, weights: list[Tensor], s: Tensor) -> Tensor:
        linear, hidden, shift, out = weights
        head, bias = (part.clone() for part in self.head)
        # Through the head first: features of all images, which are wide, are never laid out.
        logits = s @ (linear[:-1] @ head.T) + linear[-1] @ head.T + bias
        return logits + (s @ hidden + shift).relu() @ (out @ head.T)

    def _trained(self, start: list[Tensor], s: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        weights = [weight.clone().requires_grad_() for weight in start]
        optimizer = torch.optim.Adam(weights, lr=0.02)
        x, y = s["train"][rows], self.splits["train"].labels[rows].clone()
        best, kept = -1.0, start
        for step in range(_STEPS + 1):
            if step % _EVERY == 0:
                with torch.no_grad():
                    found = _share(self._logits(weights, s["val"]).argmax(1) == self.splits["val"].labels)
                if found > best:
                    best, kept = found, [weight.detach().clone() for weight in weights]
            optimizer.zero_grad()
            nn.functional.cross_entropy(self._logits(weights, x), y).backward()
            optimizer.step()
        return kept


def completeness(rebuilt: float, network: float, chance: float, images: int) -> tuple[float, float]:
    """(bounded, raw): (rebuilt - chance) / (network - chance), cut to [0, 1], and as it is.

    NaN where the network itself is not above chance for sure (one-sided 5 % over so many images): divided by next to
    nothing it can be anything.

    >>> completeness(0.75, 0.9, 0.5, 1000)
    (0.625, 0.625)

    Args:
        rebuilt, network: accuracies of the network rebuilt from concept scores, and of the network.
        chance: of a constant answer.
    """
    margin = stats.norm.ppf(0.95) * math.sqrt(chance * (1 - chance) / max(1, images))
    if not network - chance > margin:
        return math.nan, math.nan
    raw = (rebuilt - chance) / (network - chance)
    return min(max(raw, 0.0), 1.0), raw


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
