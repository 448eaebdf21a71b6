"""Runs the cells of a plan: in this process, or in several at once. Everything a cell leaves is in the store."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, Literal

import torch

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.files import at_work
from prunescope.engine.allocator import tune_allocator
from prunescope.study.cell import Cell
from prunescope.study.collapse import collapse
from prunescope.study.config import read_study
from prunescope.study.plan import Plan
from prunescope.study.schedule import Queue
from prunescope.study.store import Store
from prunescope.study.study import Study
from prunescope.study.work import Workshop


@dataclass(frozen=True)
class Event:
    """Something that happened, for progress bars. `found` comes first: so many cells (`at`) were done before."""

    what: Literal["found", "started", "progress", "done", "failed", "skipped", "warning"]
    folder: str
    label: str = ""
    at: float = 0.0
    total: float = 0.0
    unit: str = ""
    message: str = ""


@dataclass
class Outcome:
    """What a run did: cells computed now, found done, failed and skipped because of a failure."""

    computed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


Listener = Callable[[Event], None]


def execute(plan: Plan, root: Path, *, workers: int = 1, on_event: Listener = lambda event: None) -> Outcome:
    """Compute every cell that is not done, parents first. Run again after a crash, it goes on where it stopped.

    A cell that fails (a diverged training, a probe that cannot measure) is recorded, what depends on it is
    skipped, and the others go on. Damaged cells (checksums) are computed again with a warning.

    Args:
        workers: processes; 1 runs in this one. Each uses `execution.threads` threads.

    Raises:
        PrunescopeError: the data cannot be read, the disk is full, or another run holds the folder.
    """
    store = Store(root)
    with at_work(root):
        store.tidy()
        done = _intact(plan, store, on_event)
        outcome = Outcome(cached=sorted(done))
        on_event(Event("found", "", at=len(done), total=len(plan.cells)))
        queue = Queue(plan, done)
        run = _run_here if workers == 1 else _run_in_processes
        run(plan.study, store, queue, outcome, _warning_of_collapse(plan, store, on_event), workers)
        return outcome


def _warning_of_collapse(plan: Plan, store: Store, on_event: Listener) -> Listener:
    """The listener, which is also warned when a cut has left layers that pass nothing on."""
    children = plan.children()

    def heard(event: Event) -> None:
        on_event(event)
        if event.what == "done" and (told := collapse(store, plan.cells[event.folder], children[event.folder])):
            on_event(Event("warning", event.folder, event.label, message=told))

    return heard


def _intact(plan: Plan, store: Store, on_event: Listener) -> set[str]:
    """Folders of the cells that are done and whole; damaged ones are removed."""
    done = {cell.folder for cell in plan.cells.values() if store.has(cell)}
    for folder in sorted(done):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PrunescopeWarning)
            if store.drop_damaged(plan.cells[folder]):
                done.discard(folder)
        for warning in caught:
            on_event(Event("warning", folder, message=str(warning.message)))
    return done


def _run_here(study: Study, store: Store, queue: Queue, outcome: Outcome, on_event: Listener, workers: int) -> None:
    del workers
    with _threads(study.execution.threads):
        tune_allocator()
        shop = Workshop(store.root, study)
        while task := queue.take():
            on_event(Event("started", task[0].folder, _label(task)))
            error: BaseException | None = None
            try:
                shop.make(task, lambda at, total, unit, f=task[0].folder: on_event(  # type: ignore[misc]
                    Event("progress", f, at=at, total=total, unit=unit)))  # fmt: skip
            except Exception as caught:
                error = caught
            _settle(task, error, store, queue, outcome, on_event)


def _run_in_processes(
    study: Study, store: Store, queue: Queue, outcome: Outcome, on_event: Listener, workers: int
) -> None:
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    arguments = (str(store.root), study.as_mapping(), messages, os.getpid())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=arguments) as pool:
        running: dict[Future[None], list[Cell]] = {}
        try:
            while True:
                while len(running) < workers and (task := queue.take()):
                    on_event(Event("started", task[0].folder, _label(task)))
                    running[pool.submit(_work, task)] = task
                if not running:
                    return
                finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                _relay(messages, on_event)
                for future in finished:
                    task = running.pop(future)
                    _settle(task, future.exception(), store, queue, outcome, on_event)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _settle(
    task: list[Cell], error: BaseException | None, store: Store, queue: Queue, outcome: Outcome, on_event: Listener
) -> None:
    """Book the end of a task, good or bad."""
    if error is None:
        queue.finish(task)
        outcome.computed += [cell.folder for cell in task]
        for cell in task:
            on_event(Event("done", cell.folder, cell.label))
        return
    if isinstance(error, BrokenProcessPool):
        raise PrunescopeError(
            "a worker process died (out of memory?); what was done is kept: run again with fewer --workers"
        ) from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise PrunescopeError(
            f"the disk is full ({store.root}); what was done is kept: make room and run again"
        ) from error
    if len(task) > 1:
        queue.separate(task)  # one probe must not take the others with it
        return
    cell = task[0]
    if cell.kind == "data" and isinstance(error, PrunescopeError):
        raise error
    message = str(error) if isinstance(error, PrunescopeError) else "".join(traceback.format_exception(error))
    store.fail(cell, message)
    outcome.failed[cell.folder] = message
    on_event(Event("failed", cell.folder, cell.label, message=message.strip().splitlines()[-1]))
    for skipped in queue.fail(cell):
        if skipped.folder not in outcome.skipped:
            outcome.skipped.append(skipped.folder)
            on_event(Event("skipped", skipped.folder, skipped.label))


def _label(task: Sequence[Cell]) -> str:
    """`late round 1 seed 0: performance, gradcam` for probes that share one pass."""
    if len(task) == 1:
        return task[0].label
    probes, points = zip(*(cell.label.split(" of ", 1) for cell in task), strict=True)
    return f"{points[0]}: {', '.join(probes)}"


def _relay(messages: Any, on_event: Listener) -> None:
    while True:
        try:
            on_event(messages.get_nowait())
        except Empty:
            return


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# What follows runs in the worker processes.

_shop: Workshop
_messages: Any


def _begin_worker(root: str, study: dict[str, Any], messages: Any, parent: int) -> None:
    import signal

    global _shop, _messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    chosen = read_study(study)
    torch.set_num_threads(chosen.execution.threads)
    tune_allocator()
    _shop, _messages = Workshop(Path(root), chosen), messages


def _die_with(parent: int) -> None:
    """End this process when its parent was killed: nobody would collect its work."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _work(task: list[Cell]) -> None:
    def progress(at: float, total: float, unit: str) -> None:
        _messages.put(Event("progress", task[0].folder, at=at, total=total, unit=unit))

    _shop.make(task, progress)
