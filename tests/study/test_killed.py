"""SIGKILL at random moments, run again, and the same bits as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from samples import tiny
from test_execute import digests

from prunescope.study.config import read_study
from prunescope.study.execute import execute
from prunescope.study.folder import open_folder
from prunescope.study.plan import make_plan

KILLS = 20
STUDY: dict[str, Any] = tiny(
    # Long enough epochs that kills fall into trainings, into state files and between cells.
    data={"name": "shapes", "size": 16, "train": 768, "val": 64, "test": 64},
    training={"epochs": 3, "batch_size": 32, "lr": 0.05, "precision": "32"},
)


def work(root: Path) -> None:
    """What a user's process does."""
    plan = make_plan(read_study(STUDY))
    open_folder(root, plan)
    outcome = execute(plan, root)
    os._exit(0 if not outcome.failed else 1)


@pytest.mark.slow
def test_twenty_kills_leave_the_same_bits(tmp_path: Path) -> None:
    # The fork server imports everything once, so that a process starts (and can be killed) within milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prunescope.study.execute", "prunescope.probes.gradcam", "sklearn.metrics"])

    def start(root: Path) -> Any:
        process = context.Process(target=work, args=(root,))
        process.start()
        return process

    warm = context.Process(target=int)  # the fork server's own imports are not a run's time
    warm.start()
    warm.join()
    calm = start(tmp_path / "calm")
    began = time.monotonic()
    calm.join()
    duration = time.monotonic() - began
    assert calm.exitcode == 0
    expected = digests(tmp_path / "calm")

    chance, kills, attempt = random.Random(0), 0, 0
    while kills < KILLS:
        attempt += 1
        root = tmp_path / f"killed{attempt}"
        while True:
            process = start(root)
            process.join(timeout=chance.uniform(0.05, 0.5) * duration)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        assert digests(root) == expected
        assert not list(root.rglob("*.tmp"))
        assert not list((root / "scratch").iterdir())
    assert attempt < KILLS, "every kill came before anything was done"
