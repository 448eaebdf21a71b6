"""Which cells can run now, which first, and which together. Pure bookkeeping: nothing is computed here."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from prunescope.study.cell import Cell
from prunescope.study.plan import Plan


class Queue:
    """The cells of a plan that are still to be done, handed out in an order that keeps all workers busy."""

    def __init__(self, plan: Plan, done: set[str]) -> None:
        self._cells = plan.cells
        self._children = plan.children()
        self._missing = {
            folder: {parent.folder for parent in cell.parents.values()} - done
            for folder, cell in plan.cells.items()
            if folder not in done
        }
        self._height = self._heights()
        self._order = {folder: number for number, folder in enumerate(plan.cells)}
        self._alone: set[str] = set()
        self._ready: set[str] = set()
        self._heap: list[tuple[int, int, str]] = []
        self._probes: dict[str, set[str]] = defaultdict(set)  # ready ones, by checkpoint
        for folder, missing in self._missing.items():
            if not missing:
                self._make_ready(folder)

    def __len__(self) -> int:
        """Cells not yet done, failed or skipped."""
        return len(self._missing)

    def take(self) -> list[Cell]:
        """The next task: one cell, or all ready probe cells that can share one pass; empty when nothing is ready."""
        while self._heap:
            folder = heapq.heappop(self._heap)[2]
            if folder in self._ready:
                break
        else:
            return []
        first = self._cells[folder]
        task = [first]
        if first.kind == "probe" and folder not in self._alone:
            ready = sorted(self._probes[_checkpoint(first)] - self._alone, key=self._order.__getitem__)
            task = _sharing([self._cells[other] for other in ready], first)
        for cell in task:
            self._leave_ready(cell.folder)
        return task

    def finish(self, task: Sequence[Cell]) -> None:
        """The task's cells are done: what waited for them may start."""
        for cell in task:
            self._drop(cell.folder)
            for child in self._children[cell.folder]:
                missing = self._missing.get(child.folder)
                if missing and cell.folder in missing:
                    missing.discard(cell.folder)
                    if not missing:
                        self._make_ready(child.folder)

    def separate(self, task: Sequence[Cell]) -> None:
        """Put the cells of a failed shared task back, to be tried one by one."""
        for cell in task:
            self._alone.add(cell.folder)
            self._make_ready(cell.folder)

    def fail(self, cell: Cell) -> list[Cell]:
        """The cell failed: drop it and everything that needs it. Returns what is skipped because of it, each once."""
        self._drop(cell.folder)
        skipped: list[Cell] = []
        for child in self._children[cell.folder]:
            if child.folder in self._missing:
                skipped += [child, *self.fail(child)]
        return skipped

    def _make_ready(self, folder: str) -> None:
        self._ready.add(folder)
        # The longest chain first: rounds wait for rounds, probes wait for nobody.
        heapq.heappush(self._heap, (-self._height[folder], self._order[folder], folder))
        if self._cells[folder].kind == "probe":
            self._probes[_checkpoint(self._cells[folder])].add(folder)

    def _leave_ready(self, folder: str) -> None:
        self._ready.discard(folder)
        if self._cells[folder].kind == "probe":
            self._probes[_checkpoint(self._cells[folder])].discard(folder)

    def _drop(self, folder: str) -> None:
        self._missing.pop(folder, None)
        self._leave_ready(folder)

    def _heights(self) -> dict[str, int]:
        """Length of the longest chain of cells that hangs below each cell; probes weigh little."""
        height: dict[str, int] = {}
        for folder in reversed(self._cells):  # children were planned after their parents
            below = max((height[child.folder] for child in self._children[folder]), default=0)
            height[folder] = below + (1 if self._cells[folder].kind == "probe" else 100)
        return height


def _checkpoint(probe: Cell) -> str:
    return probe.parents["checkpoint"].folder


def _sharing(ready: Sequence[Cell], first: Cell) -> list[Cell]:
    """The ready probe cells on one checkpoint whose references agree."""
    references = [cell.parents["reference"].folder for cell in ready if "reference" in cell.parents]
    chosen = first.parents["reference"].folder if "reference" in first.parents else (references or [""])[0]
    return [cell for cell in ready if "reference" not in cell.parents or cell.parents["reference"].folder == chosen]
