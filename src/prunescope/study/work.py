"""What each kind of cell does: stored artifacts in, one new artifact out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunescope.core.configure import configure, named
from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive, numpy_generator
from prunescope.core.surroundings import surroundings
from prunescope.core.types import Record
from prunescope.data.load import load_data
from prunescope.data.split import NAMES, Dataset
from prunescope.data.training_batches import steps_per_epoch
from prunescope.engine.device import pick_device
from prunescope.engine.distillation import Distillation, Teacher
from prunescope.engine.steps import Step
from prunescope.engine.train import fit, lasting
from prunescope.engine.training import Training
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.density import effective_mask
from prunescope.models.zoo import build_model
from prunescope.probes.base import check, measure, probes
from prunescope.pruning.schedule import Rewind
from prunescope.pruning.summary import layer_table
from prunescope.study.cell import Cell
from prunescope.study.cuts import Cuts
from prunescope.study.moving import moving_mask
from prunescope.study.records import load_record, save_record
from prunescope.study.store import Store
from prunescope.study.study import Study

#: Test images kept in the store for the report's gallery, drawn by seed: the report needs no data.
PICTURES = 200

#: Called with (units done, units in all, what they are): epochs while training, images while measuring.
Progress = Callable[[float, float, str], None]


class Workshop:
    """One process's view of a study: its store, its data (loaded once) and its device."""

    def __init__(self, root: Path, study: Study) -> None:
        self.store = Store(root)
        self.study = study
        self.device = pick_device(study.execution.device)
        self._data: Dataset | None = None

    def make(self, cells: Sequence[Cell], progress: Progress) -> None:
        """Compute and store one cell, or several probe cells of one checkpoint in one pass. Done? Return."""
        todo = [cell for cell in cells if not self.store.has(cell)]
        if not todo:
            return
        if todo[0].kind == "probe":
            self._probe(todo, progress)
        else:
            maker = {
                "data": self._describe, "train": self._train, "scan": self._scan, "prune": self._prune,
                "retrain": self._retrain,
            }  # fmt: skip
            maker[todo[0].kind](todo[0], progress)

    def data(self, cell: Cell) -> Dataset:
        """The data set, checked against the fingerprint it had when the study began."""
        if self._data is None:
            data = load_data(self.study.data)
            want = self.store.json(cell, "data.json")["fingerprint"]
            if data.fingerprint != want:
                raise PrunescopeError(
                    f"data {data.name!r} is not what this study began with ({data.fingerprint}, was {want}): "
                    "bring the old data back, or start a new study folder with --out"
                )
            self._data = data
        return self._data

    def _describe(self, cell: Cell, progress: Progress) -> None:
        """The facts about the data, and the test images that the report may show."""
        data = load_data(self.study.data)
        # A model, weights or probes that do not fit the data are the user's to put right, before all else.
        check(self._model(data, 0), self.study.probes, data)
        with self._writing(cell) as folder:
            facts = {
                "name": data.name, "classes": list(data.classes), "shape": list(data.test.shape),
                "counts": {name: np.bincount(data[name].labels.numpy(), minlength=len(data.classes)).tolist()
                           for name in NAMES},
                "concept_names": list((data.concept_bank or data.train).concept_names),
                "concept_level": (data.concept_bank or data.train).concept_level,
                "fingerprint": data.fingerprint, "info": dict(data.info),
            }  # fmt: skip
            (folder / "data.json").write_text(json.dumps(facts, indent=1))
            count = min(PICTURES, len(data.test))
            chosen = np.sort(numpy_generator(0, "pictures").permutation(len(data.test))[:count])
            pictures = data.test.subset(torch.from_numpy(chosen))
            np.savez(folder / "pictures.npz", ids=pictures.ids, labels=pictures.labels.numpy(),
                     images=pictures.images[:].numpy())  # fmt: skip
        self._data = data

    def _train(self, cell: Cell, progress: Progress) -> None:
        data = self.data(cell.parents["data"])
        training = configure(Training, cell.params["training"], "training")
        model = self._model(data, derive(cell.params["seed"], "init"))
        stop = None
        if "stop" in cell.params:
            place = Step.parse(cell.params["stop"])
            stop = place.at(self._per_epoch(training, data), training.total_steps(data.train))
        with self._writing(cell) as folder:
            history = self._fit(cell, model, training, data, progress, seed=cell.params["seed"], stop=stop)
            Checkpoint.of(model, history=history).save(folder)

    def _scan(self, cell: Cell, progress: Progress) -> None:
        data = self.data(cell.parents["data"])
        model = self._checkpoint(cell.parents["previous"]).into(self._model(data, 0))
        with self._writing(cell) as folder:
            found = self._cuts(data).scan(cell, model, lambda done, total: progress(done, total, "layers"))
            facts = {**asdict(found), "largest": found.largest()}
            (folder / "scan.json").write_text(json.dumps(facts, indent=1))

    def _prune(self, cell: Cell, progress: Progress) -> None:
        data = self.data(cell.parents["data"])
        before = self._checkpoint(cell.parents["previous"])
        model = before.into(self._model(data, 0))
        with self._writing(cell) as folder:
            mask = self._mask(cell, model, before.mask, data)
            mask.apply_(model)
            Checkpoint.of(model, mask=mask, round=before.round + 1, info=self._density(model, mask, data)).save(folder)

    def _mask(self, cell: Cell, model: nn.Module, before: Mask | None, data: Dataset) -> Mask:
        if "control" in cell.params:
            ticket = self._checkpoint(cell.parents["ticket"]).mask
            assert ticket is not None
            return self._cuts(data).control(cell, model, ticket)
        table = self.store.json(cell.parents["scan"], "scan.json")["largest"] if "scan" in cell.parents else None
        return self._cuts(data).mask(cell, model, before, table)

    def _cuts(self, data: Dataset) -> Cuts:
        return Cuts(data, self.study.training, self.device)

    def _retrain(self, cell: Cell, progress: Progress) -> None:
        data, params = self.data(cell.parents["data"]), cell.params
        training = configure(Training, params["training"], "training")
        rewind = configure(Rewind, params["rewind"], "rewind")
        pruned = self._checkpoint(cell.parents["cut"])
        role, seed, number = params.get("role", "ticket"), params["seed"], params["round"]
        model = self._model(data, derive(seed, "reinit", number), fresh=role == "reinit")
        if role != "reinit":
            source = self._checkpoint(cell.parents["rewind"]) if "rewind" in cell.parents else pruned
            source.into(model)
        moving = moving_mask(cell, model, pruned.mask, training, data.train)
        teacher = None
        if "teacher" in cell.parents:
            network = self._checkpoint(cell.parents["teacher"]).into(self._model(data, 0))
            teacher = Teacher(network, configure(Distillation, params["distill"], "distill"))
        history: list[Any] = []
        with self._writing(cell) as folder:
            for turn, epochs in enumerate(params.get("epochs", [training.epochs] * params.get("times", 1))):
                part = replace(training, epochs=epochs)
                start = rewind.start(self._per_epoch(part, data), part.total_steps(data.train))
                history += self._fit(
                    cell, model, part, data, progress,
                    part=turn, seed=seed, mask=moving or pruned.mask, teacher=teacher,
                    start=0 if role == "reinit" else start, order=1000 * turn + number,
                )  # fmt: skip
            mask = pruned.mask if moving is None else moving.mask
            assert mask is not None
            info = self._density(model, mask, data)
            Checkpoint.of(model, mask=mask, round=number, history=tuple(history), info=info).save(folder)

    def _probe(self, cells: Sequence[Cell], progress: Progress) -> None:
        first = cells[0]
        data = self.data(first.parents["data"])
        model = self._checkpoint(first.parents["checkpoint"]).into(self._model(data, 0))
        reference = next((self.record(c.parents["reference"]) for c in cells if "reference" in c.parents), None)
        dense = {c.folder: self.record(c.parents["dense"]) for c in cells if "dense" in c.parents}
        wanted = {cell.folder: named(probes, cell.params["probe"], "probe") for cell in cells}
        fitting = any(probe.needs_concepts for probe in wanted.values())  # on training and validation images
        seen, total = 0, len(data.test) + (len(data.train) + len(data.val) if fitting else 0)

        def on_batch(images: int) -> None:
            nonlocal seen
            seen += images
            progress(seen, total, "images")

        started = time.perf_counter()
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        records = measure(
            model, wanted, data, reference=reference, dense=dense,
            batch_size=self.study.execution.batch_size, device=self.device, on_batch=on_batch,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        for cell in cells:
            with self._writing(cell, seconds / len(cells)) as folder:
                save_record(records[cell.folder], folder)

    def record(self, cell: Cell | str) -> Record:
        """A stored record."""
        return load_record(self.store.path(cell))

    def _checkpoint(self, cell: Cell) -> Checkpoint:
        return Checkpoint.load(self.store.path(cell))

    def _model(self, data: Dataset, seed: int, *, fresh: bool = False) -> nn.Module:
        """The study's network; `fresh`: initialised from the seed even where the study starts from trained weights."""
        trained = ("weights", "pretrained") if fresh else ()
        config = {key: value for key, value in self.study.model.items() if key not in trained}
        return build_model(config, classes=len(data.classes), channels=data.train.shape[0], seed=seed)

    def _per_epoch(self, training: Training, data: Dataset) -> int:
        return steps_per_epoch(data.train, training.batch_size)

    def _density(self, model: nn.Module, mask: Mask, data: Dataset) -> dict[str, Any]:
        live = effective_mask(model, mask, data.train.shape)
        return {
            "density": mask.density, "effective_density": live.density, "densities": mask.densities,
            "effective_densities": {row["layer"]: row["density"] for row in layer_table(live)},
        }  # fmt: skip

    def _fit(
        self,
        cell: Cell,
        model: nn.Module,
        training: Training,
        data: Dataset,
        progress: Progress,
        *,
        part: int = 0,
        **options: Any,
    ) -> Sequence[dict[str, Any]]:
        if options.get("stop") == 0:
            return ()
        history = fit(
            model, data.train, training, validate=data.val, state=self.store.scratch(cell, part), device=self.device,
            on_epoch=lambda entry: progress(entry["epoch"], training.epochs, "epochs"), **options,
        )  # fmt: skip
        return lasting(history)

    @contextmanager
    def _writing(self, cell: Cell, seconds: float | None = None) -> Iterator[Path]:
        started = time.perf_counter()
        provenance: dict[str, Any] = {}
        with self.store.writing(cell, provenance) as folder:
            yield folder
            took = time.perf_counter() - started if seconds is None else seconds
            provenance |= {
                **surroundings(), "seconds": round(took, 3), "device": str(self.device),
                "threads": torch.get_num_threads(), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }  # fmt: skip
