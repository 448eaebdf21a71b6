"""What a study costs beside its computing: planning 10,000 cells, and writing, checking and reading cells.

python benchmarks/planning.py [--cells 10000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from prunescope.core.types import Record
from prunescope.probes.base import probes
from prunescope.pruning.scoring import criteria
from prunescope.study.config import read_study
from prunescope.study.plan import make_plan
from prunescope.study.records import load_record, save_record
from prunescope.study.schedule import Queue
from prunescope.study.store import Store


def study(cells: int) -> dict[str, object]:
    """A study with at least so many cells: recipes x seeds x rounds, two probes each."""
    seeds, rounds = 10, 10
    recipes = -(-cells // (seeds * rounds * 4))
    return {
        "name": "big", "data": "shapes", "model": "small_cnn", "controls": "none",
        "recipes": [{"name": f"r{i}", "schedule": {"density": 0.1 / (i + 1), "rounds": rounds}}
                    for i in range(recipes)],
        "probes": ["performance", "gradcam"],
        "seeds": {"dense": list(range(seeds)), "tickets": list(range(seeds))},
    }  # fmt: skip


def recipe(i: int, rounds: int) -> dict[str, object]:
    """One of many that differ."""
    return {"name": f"r{i}", "schedule": {"density": 0.1 / (i + 1), "rounds": rounds}}


def main() -> None:
    """Print seconds per step and microseconds per cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    arguments = parser.parse_args()

    assert list(probes)
    assert list(criteria)  # importing the parts is no part of reading a config
    started = time.perf_counter()
    chosen = read_study(study(arguments.cells))
    read = time.perf_counter()
    plan = make_plan(chosen)
    for cell in plan.cells.values():
        assert cell.key
    planned = time.perf_counter()
    queue = Queue(plan, set())
    while task := queue.take():
        queue.finish(task)
    queued = time.perf_counter()
    count = len(plan.cells)
    print(f"{count} cells")
    for what, seconds in (("read the config", read - started), ("plan", planned - read), ("queue", queued - planned)):
        print(f"{what:>24}: {seconds:7.3f} s  {1e6 * seconds / count:8.1f} us a cell")

    cells = list(plan.cells.values())[:200]
    record = Record("p", {"a": 1.0}, {"image.x": np.zeros((1000, 64), np.float16)}, np.arange(1000).astype(str))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        started = time.perf_counter()
        for cell in cells:
            with store.writing(cell, {}) as temporary:
                save_record(record, temporary)
        written = time.perf_counter()
        assert all(store.intact(cell) for cell in cells)
        checked = time.perf_counter()
        for cell in cells:
            load_record(store.path(cell))
        loaded = time.perf_counter()
    for what, seconds in (("write", written - started), ("check", checked - written), ("load", loaded - checked)):
        print(f"{what + ' a cell (128 kB)':>24}: {1e3 * seconds / len(cells):7.2f} ms")


if __name__ == "__main__":
    main()
