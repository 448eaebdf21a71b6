"""A ticket on disk: what is done of it, what it is, and the refusal to mix two in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import at_work, atomic_folder, read_json, write_atomic
from prunescope.engine.train import lasting
from prunescope.models.checkpoint import Checkpoint
from prunescope.study.folder import differences


class TicketFolder:
    """Where one ticket is made and kept.

    Layout: the last checkpoint's files (`models.checkpoint`) and `ticket.json`, which is written last: with it, the
    ticket is done. `rounds/N/` holds the checkpoints of the rounds before, `job.json` what was asked for, and, on the
    way, `state/` the training in progress.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def finished(self) -> bool:
        """Whether the ticket is done."""
        return (self.root / "ticket.json").is_file()

    def require(self, job: Mapping[str, Any]) -> None:
        """Refuse a folder in which something else lies; writes nothing.

        Args:
            job: `ticket.job.Job.identity`, and the fingerprint of its data once that is known.

        Raises:
            PrunescopeError: the folder holds files that are not ours, or (part of) a ticket of another job; the message
                names every key that differs.
        """
        file = self.root / "job.json"
        if not file.is_file():
            if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
                raise PrunescopeError(f"{self.root} exists and holds no ticket; give another folder with --out")
            return
        old = read_json(file)
        if not isinstance(old, dict):
            raise PrunescopeError(f"{file} is damaged; give another folder with --out")
        different = differences({key: value for key, value in old.items() if key in job}, job)
        if different and (self.finished or any(self.root.glob("rounds/*")) or any(self.root.glob("state/*.state"))):
            raise PrunescopeError(
                f"{self.root} holds the ticket of another job; give another folder with --out, or undo these changes:\n"
                + "\n".join(f"  {key}: {was!r} there, {now!r} here" for key, was, now in different)
            )

    @contextmanager
    def at_work(self, job: Mapping[str, Any]) -> Iterator[None]:
        """One run at a time in this folder, for this job; what a killed one left half-written is removed."""
        with at_work(self.root):
            for stray in [*self.root.glob(".*.tmp"), *self.root.glob("*/.*.tmp")]:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
            write_atomic(self.root / "job.json", json.dumps(job, indent=1))
            (self.root / "state").mkdir(exist_ok=True)
            yield

    def state(self, number: int) -> Path:
        """The file for the training of a round."""
        return self.root / "state" / f"{number}.state"

    def done(self) -> list[Checkpoint]:
        """The rounds before the last that are done."""
        found: list[Checkpoint] = []
        while (folder := self.root / "rounds" / str(len(found) + 1)).is_dir():
            found.append(Checkpoint.load(folder))
        return found

    def save_round(self, checkpoint: Checkpoint) -> None:
        """Keep a round that is not the last; its training's state is no longer needed."""
        with atomic_folder(self.root / "rounds" / str(checkpoint.round)) as folder:
            _lasting(checkpoint).save(folder)
        self.state(checkpoint.round).unlink(missing_ok=True)

    def finish(self, checkpoint: Checkpoint, facts: Mapping[str, Any]) -> None:
        """Keep the last round, and say what the ticket is."""
        temporary = self.root / ".ticket.tmp"
        _lasting(checkpoint).save(temporary)
        for file in sorted(temporary.iterdir()):
            write_atomic(self.root / file.name, file.read_bytes())
        shutil.rmtree(temporary)
        write_atomic(self.root / "ticket.json", json.dumps(facts, indent=1))
        self.tidy()

    def tidy(self) -> None:
        """Of a finished ticket, remove the training states, which a run killed at its very end leaves."""
        shutil.rmtree(self.root / "state", ignore_errors=True)


def _lasting(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, history=lasting(checkpoint.history))
