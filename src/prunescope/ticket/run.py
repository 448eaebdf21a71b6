"""From a job to a ticket on disk; killed and called again, it goes on to the same bits."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.surroundings import surroundings
from prunescope.data.split import Dataset
from prunescope.engine.allocator import tune_allocator
from prunescope.engine.device import pick_device
from prunescope.engine.train import accuracy
from prunescope.engine.training import Training
from prunescope.metrics.proportions import share_interval
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.density import effective_mask
from prunescope.pruning.summary import layer_table
from prunescope.pruning.zeros import own_zeros
from prunescope.ticket.blueprint import FORMAT, Blueprint, read_facts
from prunescope.ticket.folder import TicketFolder
from prunescope.ticket.job import Job, Material
from prunescope.ticket.prune import prune

#: Splits on which accuracy is told; nothing is chosen on either.
SPLITS = ("val", "test")

#: Called with (rounds done, rounds in all, epochs done of this round, epochs of this round).
Progress = Callable[[int, int, float, float], None]


def run(job: Job, out: Path, on_progress: Progress = lambda *counts: None) -> dict[str, Any]:
    """Make the ticket that the job asks for in `out`, unless it is there; returns what `ticket.json` says.

    Raises:
        PrunescopeError: the input is wrong, `out` holds something else, or the disk is full.
    """
    folder, asked = TicketFolder(out), job.identity()
    folder.require(asked)
    if folder.finished:
        folder.tidy()
        return read_ticket(out)[1]
    tune_allocator()
    material = job.load()
    asked["fingerprint"] = None if material.data is None else material.data.fingerprint
    folder.require(asked)
    try:
        with folder.at_work(asked):
            return _make(job, folder, material, on_progress)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrunescopeError(f"the disk is full ({out}); what was done is kept: make room and run again") from error


def read_ticket(folder: Path) -> tuple[Blueprint, dict[str, Any]]:
    """What `ticket.json` says: how to build the network, and all else."""
    return read_facts(folder / "ticket.json", "ticket", ("data", "zeros", "rounds", "layers", "accuracy"))


def _make(job: Job, folder: TicketFolder, material: Material, on_progress: Progress) -> dict[str, Any]:
    model, data, shape = material.network, material.data, material.blueprint.shape
    device = pick_device(job.device)
    before = _accuracies(model.to(device), data, device)
    zeros = own_zeros(model.cpu(), job.zeros)
    done = folder.done()
    counts = {"rounds": len(job.recipe.schedule.densities()), "done": len(done)}

    def on_round(checkpoint: Checkpoint) -> None:
        counts["done"] = checkpoint.round
        on_progress(counts["done"], counts["rounds"], 0, 0)
        if checkpoint.round < counts["rounds"]:
            folder.save_round(described(checkpoint, model, shape))

    def on_epoch(entry: dict[str, Any]) -> None:
        epochs = job.recipe.retraining(Training(), counts["done"] + 1).epochs
        on_progress(counts["done"], counts["rounds"], entry["epoch"], epochs)

    on_progress(counts["done"], counts["rounds"], 0, 0)
    last = prune(
        model, job.recipe, data, retrain=job.retrain, zeros=job.zeros, rewind_weights=material.origin, shape=shape,
        seed=job.seed, done=done, state=folder.state, on_round=on_round, on_epoch=on_epoch, device=device,
    )  # fmt: skip
    ticket = described(last, model, shape)
    after = _accuracies(model.to(device), data, device)
    rounds = [{"round": c.round, "density": c.density, "effective_density": c.info["effective_density"]}
              for c in [*folder.done(), ticket]]  # fmt: skip
    facts = {
        "kind": "ticket", "format": FORMAT, "network": asdict(material.blueprint), "job": job.identity(),
        "data": None if data is None else _facts(data), "zeros": zeros.densities, "rounds": rounds,
        "layers": _layers(ticket, zeros), "accuracy": {"before": before, "after": after},
        "versions": surroundings(), "device": str(device), "threads": torch.get_num_threads(),
    }  # fmt: skip
    folder.finish(ticket, facts)
    return facts


def described(checkpoint: Checkpoint, model: nn.Module, shape: tuple[int, ...]) -> Checkpoint:
    """With nominal and effective densities; the latter are None where the network's signal cannot be followed."""
    assert checkpoint.mask is not None
    info: dict[str, Any] = {"density": checkpoint.mask.density, "densities": checkpoint.mask.densities}
    try:
        live: Mask | None = effective_mask(model.cpu(), checkpoint.mask, shape)
    except PrunescopeError as error:
        live, info["not_followed"] = None, str(error)
    info["effective_density"] = None if live is None else live.density
    info["effective_densities"] = {} if live is None else live.densities
    return replace(checkpoint, info=info)


def _layers(ticket: Checkpoint, zeros: Mask) -> list[dict[str, Any]]:
    """One row a pruned tensor: `pruning.summary.layer_table`, the density it came with, and the effective one."""
    assert ticket.mask is not None
    live = ticket.info["effective_densities"]
    return [
        {**row, "before": zeros.densities.get(row["layer"], 1.0), "effective_density": live.get(row["layer"])}
        for row in layer_table(ticket.mask)
    ]


def _facts(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name, "fingerprint": data.fingerprint, "classes": list(data.classes),
        "counts": {name: len(data[name]) for name in ("train", *SPLITS)},
        "normalisation": asdict(data.train.normalisation),
    }  # fmt: skip


def _accuracies(model: nn.Module, data: Dataset | None, device: torch.device) -> dict[str, Any]:
    """{split: share of images that are right, with its 95 % interval}; nothing without data."""
    found = {}
    for name in SPLITS if data is not None else ():
        assert data is not None
        images = len(data[name])
        found[name] = asdict(share_interval(round(accuracy(model, data[name], device=device) * images), images))
    return found
