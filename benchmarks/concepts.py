"""Concept vectors: all concepts at once beside a loop over scikit-learn's LinearSVC, to the same solution.

python benchmarks/concepts.py
python benchmarks/concepts.py --concepts 100 --images 1000 --width 512 --threads 1
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.probes.concepts.svm import Table, balanced, linear_svm


def embeddings(images: int, width: int, concepts: int, noise: float) -> tuple[Tensor, Tensor]:
    """Standardised embeddings with correlated features, and labels that are linear in them up to noise."""
    generator = torch_generator(0, "benchmark")
    mix = torch.randn(width, width, generator=generator) * torch.logspace(0, -1.5, width)[:, None]
    x = (torch.randn(images, width, generator=generator) @ mix).relu().double()
    x = (x - x.mean(0)) / x.std(0, correction=0)
    evidence = x @ torch.randn(width, concepts, generator=generator, dtype=torch.float64)
    evidence = evidence / evidence.std(0)
    evidence += noise * torch.randn(images, concepts, generator=generator, dtype=torch.float64)
    return x, (evidence > 0.7).to(torch.int8)


def loop(x: Tensor, labels: Tensor, c: float, tolerance: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Weights (K, D + 1), the intercept last."""
    found = []
    for concept in labels.T.numpy():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            machine = LinearSVC(
                C=c, class_weight="balanced", dual="auto", tol=tolerance, max_iter=100_000, random_state=0
            ).fit(x.numpy(), concept)
        found.append(np.append(machine.coef_[0], machine.intercept_))
    return np.array(found)


def together(x: Tensor, labels: Tensor, c: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Weights (K, D + 1), the intercept last."""
    found = linear_svm(Table.of(x), labels, c=c)
    return torch.cat([found.weights, found.intercepts[:, None]], 1).numpy()


def objective(x: Tensor, labels: Tensor, c: float, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What both minimise, per concept."""
    w = torch.from_numpy(weights).T
    signs = torch.where(labels == 1, 1.0, -1.0).double()
    slack = (1 - signs * (x @ w[:-1] + w[-1])).clamp_min(0)
    return (w.square().sum(0) / 2 + (c * balanced(labels) * slack.square()).sum(0)).numpy()


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median of `repeats`, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=128, help="dimensions of the embeddings")
    parser.add_argument("--c", type=float, default=0.1, help="weight of the loss, as C of LinearSVC")
    parser.add_argument("--noise", type=float, default=0.5, help="in the labels; 0: every concept is separable")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    x, labels = embeddings(options.images, options.width, options.concepts, options.noise)
    ours, mine = seconds(lambda: together(x, labels, options.c), options.repeats)
    best = objective(x, labels, options.c, mine)
    print(f"{options.concepts} concepts, {options.images} images, {options.width} dimensions, C = {options.c}")
    print(f"all at once                  {ours:8.3f} s")
    for tolerance in (1e-4, 1e-6):  # scikit-learn's default, and one that reaches the same objective
        theirs, peer = seconds(lambda t=tolerance: loop(x, labels, options.c, t), options.repeats)
        cosine = (mine * peer).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(peer, axis=1)
        excess = (objective(x, labels, options.c, peer) / best - 1).max()
        print(
            f"loop over LinearSVC, {tolerance:.0e} {theirs:8.3f} s   ratio {theirs / ours:5.1f}   "
            f"smallest cosine {cosine.min():.6f}   its objective above ours by at most {excess:.1e}"
        )


if __name__ == "__main__":
    main()
