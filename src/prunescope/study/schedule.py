"""Which cells can run now, which first, and which together. Pure bookkeeping: nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence

from prunescope.study.plan import Cell, Plan


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
        self._running: set[str] = set()
        self._alone: set[str] = set()

    def __len__(self) -> int:
        """Cells not yet done, failed or skipped."""
        return len(self._missing)

    def take(self) -> list[Cell]:
        """The next task: one cell, or all ready probe cells that can share one pass; empty when nothing is ready."""
        ready = [folder for folder, missing in self._missing.items() if not missing and folder not in self._running]
        if not ready:
            return []
        # The longest chain first: rounds wait for rounds, probes wait for nobody.
        first = self._cells[max(ready, key=lambda folder: self._height[folder])]
        task = [first]
        if first.kind == "probe" and first.folder not in self._alone:
            task = _sharing([self._cells[f] for f in ready if f not in self._alone], first)
        self._running.update(cell.folder for cell in task)
        return task

    def finish(self, task: Sequence[Cell]) -> None:
        """The task's cells are done: what waited for them may start."""
        for cell in task:
            self._drop(cell.folder)
            for child in self._children[cell.folder]:
                if child.folder in self._missing:
                    self._missing[child.folder].discard(cell.folder)

    def separate(self, task: Sequence[Cell]) -> None:
        """Put the cells of a failed shared task back, to be tried one by one."""
        for cell in task:
            self._running.discard(cell.folder)
            self._alone.add(cell.folder)

    def fail(self, cell: Cell) -> list[Cell]:
        """The cell failed: drop it and everything that needs it. Returns what is skipped because of it."""
        self._drop(cell.folder)
        skipped: list[Cell] = []
        for child in self._children[cell.folder]:
            if child.folder in self._missing:
                skipped += [child, *self.fail(child)]
        return skipped

    def _drop(self, folder: str) -> None:
        self._missing.pop(folder, None)
        self._running.discard(folder)

    def _heights(self) -> dict[str, int]:
        """Length of the longest chain of unfinished cells that hangs below each cell; probes weigh little."""
        height: dict[str, int] = {}
        for folder in reversed(self._cells):  # children were planned after their parents
            below = max((height[child.folder] for child in self._children[folder]), default=0)
            height[folder] = below + (1 if self._cells[folder].kind == "probe" else 100)
        return height


def _sharing(ready: Sequence[Cell], first: Cell) -> list[Cell]:
    """The ready probe cells on the same checkpoint whose references agree."""
    same = [
        cell for cell in ready
        if cell.kind == "probe" and cell.parents["checkpoint"].folder == first.parents["checkpoint"].folder
    ]  # fmt: skip
    references = [cell.parents["reference"].folder for cell in same if "reference" in cell.parents]
    chosen = first.parents["reference"].folder if "reference" in first.parents else (references or [""])[0]
    return [cell for cell in same if "reference" not in cell.parents or cell.parents["reference"].folder == chosen]
