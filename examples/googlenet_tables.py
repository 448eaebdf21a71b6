"""The tables of docs/results/googlenet, from a finished (or half finished) run of examples/googlenet.yaml.

    python examples/googlenet_tables.py runs/googlenet

Accuracies are means over the ticket seeds, with a 95 % bootstrap interval over test images (the same images are drawn
for all networks and seeds, so differences are paired). Seeds are too few for an interval of their own: their values are
listed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from prunescope.study.results import Results, results

DRAWS = 2000
WAYS = ["local weights", "global weights", "filters", "connections", "random connections"]
HOWS = ["SGD 2", "SGD 5", "Adam 2", "Adam 5"]
#: {checkpoint of a recipe: {seed: whether each test image is right}}
Right = dict[tuple[str, str, float], dict[int, np.ndarray]]


def right(found: Results) -> Right:
    """By (role, recipe, density)."""
    table: Right = defaultdict(dict)
    for point in found.points:
        arrays = found.record(point, "performance").arrays
        table[point.role, point.recipe, round(point.density, 3)][point.seed] = (
            arrays["image.label"] == arrays["image.predicted"]
        ).astype(float)
    return table


class Tables:
    """Means, differences and their intervals."""

    def __init__(self, found: Results) -> None:
        self.right = right(found)
        count = len(next(iter(next(iter(self.right.values())).values())))
        self.draws = np.random.default_rng(0).integers(count, size=(DRAWS, count))

    def mean(self, values: np.ndarray) -> str:
        """Per cent, with its interval over images."""
        low, high = np.quantile(values[self.draws].mean(1), [0.025, 0.975])
        return f"{values.mean():.1%} [{low:.1%}, {high:.1%}]"

    def cell(self, role: str, recipe: str, density: float) -> str:
        """Accuracy."""
        seeds = self.right.get((role, recipe, density))
        if not seeds:
            return "-"
        each = ", ".join(f"{100 * value.mean():.1f}" for _, value in sorted(seeds.items()))
        return f"{self.mean(np.mean(list(seeds.values()), axis=0))} ({each})"

    def difference(self, first: tuple[str, str, float], second: tuple[str, str, float]) -> str:
        """Points of accuracy of the first over the second, image by image and seed by seed."""
        a, b = self.right.get(first, {}), self.right.get(second, {})
        common = sorted(set(a) & set(b))
        if not common:
            return "-"
        values = np.mean([a[seed] - b[seed] for seed in common], axis=0)
        low, high = np.quantile(values[self.draws].mean(1), [0.025, 0.975])
        return f"{100 * values.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """As Markdown."""
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Print all tables."""
    made = Tables(results(Path(sys.argv[1])))
    rates = [0.8, 0.6, 0.4, 0.2]
    heads = [f"rate {1 - rate:.1f}" for rate in rates]
    table("Dense networks", ["", "accuracy"], [
        ["trained", made.cell("dense", "", 1.0)],
        *([f"and on: {how}", made.cell("ticket", f"nothing, {how}", 1.0)] for how in HOWS),
    ])  # fmt: skip
    table("Cut, not retrained", ["", *heads], [
        [way, *(made.cell("unretrained", f"{way}, SGD 5", rate) for rate in rates)] for way in WAYS
    ])  # fmt: skip
    runs = [f"{way}, {how}" for way in WAYS for how in ("SGD 2", "SGD 5")] + ["filters, Adam 2", "filters, Adam 5"]
    table("Cut once and retrained", ["", *heads], [
        [run, *(made.cell("ticket", run, rate) for rate in rates)] for run in runs
    ])  # fmt: skip
    controls = {run: ("ticket", f"nothing, {run.split(', ')[1]}", 1.0) for run in runs}
    table("The same beside the dense control trained as long, points", ["", *heads], [
        [run, *(made.difference(("ticket", run, rate), controls[run]) for rate in rates)] for run in runs
    ])  # fmt: skip
    steps = [way for way in WAYS if ("ticket", f"{way} in steps", 0.2) in made.right]
    title = "In four steps, five epochs in all, and at once with five epochs, at rate 0.8"
    table(title, ["", "in steps", "at once", "difference"], [
        [way, made.cell("ticket", f"{way} in steps", 0.2), made.cell("ticket", f"{way}, SGD 5", 0.2),
         made.difference(("ticket", f"{way} in steps", 0.2), ("ticket", f"{way}, SGD 5", 0.2))] for way in steps
    ])  # fmt: skip
    table("By chance instead of by magnitude, connections, points lost", ["", *heads], [
        [how, *(made.difference(("ticket", f"random connections, {how}", rate), ("ticket", f"connections, {how}", rate))
                for rate in rates)] for how in ("SGD 2", "SGD 5")
    ])  # fmt: skip


if __name__ == "__main__":
    main()
