"""Scores of all units once images are embedded: ours beside a loop over units and tasks, as the formula reads.

    python benchmarks/mis.py [--units 8000] [--images 10000] [--numbers 256] [--threads 2] [--slow 40]

Extremes are drawn at random: speed does not depend on which images they are. What is timed is all that follows the
forward pass: drawing N tasks of K references a side for every unit, their margins, alpha, scores. The loop runs on
`--slow` units, and its time is told for all.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.engine.extremes import NOWHERE, Extremes, Ranked
from prunescope.engine.mis import drawn_units, judged


def extreme_images(units: int, images: int, count: int) -> dict[str, Extremes]:
    """Random ones, in one layer; the two ends share no image."""
    generator = numpy_generator(0, "benchmark")
    drawn = np.stack([generator.permutation(images)[: 2 * count] for _ in range(units)])
    nowhere = np.full((units, count), NOWHERE)
    top, bottom = (
        Ranked(np.full((units, count), sign, np.float32), half, nowhere, nowhere)
        for sign, half in ((1, drawn[:, :count]), (-1, drawn[:, count:]))
    )
    none = np.zeros(units, dtype=np.bool_)
    return {"layer": Extremes(top, bottom, none, none)}


def slowly(up: Array, down: Array, vectors: Array, alpha: float) -> float:
    """MIS of one unit, task by task and term by term."""
    chances = []
    for (query_up, *above), (query_down, *below) in zip(up.tolist(), down.tolist(), strict=True):
        first, second = (
            np.mean([vectors[query] @ vectors[image] for image in above])
            - np.mean([vectors[query] @ vectors[image] for image in below])
            for query in (query_up, query_down)
        )
        chances.append(1 / (1 + np.exp(-alpha * (first - second))))
    return float(np.mean(chances))


def main() -> None:
    """Print seconds of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=8000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--numbers", type=int, default=256, help="of each vector: the default encoder's are 256")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--references", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slow", type=int, default=40, help="units of the loop")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    vectors = numpy_generator(0, "vectors").standard_normal((given.images, given.numbers), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = extreme_images(given.units, given.images, given.tasks * (given.references + 1))
    start = time.perf_counter()
    units = drawn_units(found, given.images, references=given.references)
    drawn = time.perf_counter()
    scores = judged(units, vectors)
    done = time.perf_counter()
    mine = scores.mis
    slow = [slowly(units.tasks.up[i], units.tasks.down[i], vectors, scores.alpha) for i in range(given.slow)]
    looped = (time.perf_counter() - done) * given.units / given.slow
    apart = np.abs(mine[: given.slow] - slow).max()
    print(
        f"{given.units} units, {given.tasks} tasks of {given.references} references a side, {given.images} images as "
        f"{given.numbers} numbers\n"
        f"  tasks {drawn - start:.2f} s, margins and scores {done - drawn:.2f} s, together {done - start:.2f} s, peak "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB\n"
        f"  a loop over units and tasks: {looped:.0f} s ({looped / (done - start):.0f} times as long), scores within "
        f"{apart:.0e}"
    )


if __name__ == "__main__":
    main()
