"""Time of all map distances and of their bootstrap on 10,000 maps of 8 x 8, the size of a CIFAR-10 test set.

python benchmarks/drift.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from prunescope.core.types import Record
from prunescope.metrics.families import FAMILIES
from prunescope.metrics.statistics import bootstrap_mean
from prunescope.study.drift import drift

N = 10_000


def seconds(function: Callable[[], Any]) -> float:
    """Best of three."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def network(seed: int) -> dict[str, Record]:
    """Records as CIFAR-10 gives them: predictions, two stacks of maps, scores of 24 concepts, a 10 x 24 table."""
    generator = np.random.default_rng(seed)
    ids = np.array([f"test/{i:05d}" for i in range(N)])
    labels = np.arange(N) % 10
    predicted = np.where(generator.random(N) < 0.1, 0, labels)
    maps = {name: generator.random((N, 8, 8)).astype(np.float16) for name in ("image.reference", "image.true")}
    concepts = {"image.scores": generator.normal(size=(N, 24)), "class.contributions": generator.normal(size=(10, 24))}
    return {
        "performance": Record("performance", {}, {"image.predicted": predicted, "image.label": labels}, ids),
        "gradcam": Record("gradcam", {}, maps, ids),
        "concepts": Record("concepts", {}, concepts, ids),
    }


def main() -> None:
    a, b = network(0), network(1)
    x, y = (records["gradcam"].arrays["image.reference"] for records in (a, b))
    total = 0.0
    for distance in FAMILIES["maps"]:
        values = distance.function(x, y)
        taken = seconds(lambda d=distance: d.function(x, y)), seconds(lambda v=values: bootstrap_mean(v, seed=0))
        total += sum(taken)
        print(f"{distance.name:10s} {taken[0]:7.3f} s   interval {taken[1]:7.3f} s")
    print(f"{'together':10s} {total:7.3f} s (target: 3 s)")
    print(f"bootstrap of 2,000 values, 1,000 draws {seconds(lambda: bootstrap_mean(x[:2000, 0, 0], seed=0)):7.3f} s")
    distances = {
        "performance": {"image.predicted": "labels"},
        "gradcam": {"image.reference": "maps", "image.true": "maps"},
        "concepts": {"image.scores": "scores", "class.contributions": "rankings"},
    }
    print(f"drift of one network, all probes       {seconds(lambda: drift(a, b, distances)):7.3f} s")


if __name__ == "__main__":
    main()
