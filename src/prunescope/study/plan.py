"""From a study to its cells: what is to be computed, from what, and under which key it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunescope.core.configure import canonical
from prunescope.pruning.granularity import Weights
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import Sensitivity
from prunescope.study.cell import Cell
from prunescope.study.params import data_params, model_params, moving_params
from prunescope.study.study import Study

Role = Literal["dense", "ticket", "random", "dense-control", "reinit", "unretrained"]


@dataclass(frozen=True)
class Point:
    """One checkpoint on the report's curves: where it stands in the study and where its records are.

    Attributes:
        role: `dense`, `ticket` or a control.
        recipe: name; empty for the dense networks.
        round: 0 for dense.   density: asked for, in (0, 1].
        checkpoint: folder of the cell that made it.
        probes: {probe key: folder of its record}.
        reference: folder -> of the dense checkpoint it is compared with.
        reference_probes: {probe key: folder of the reference's record}.
    """

    role: Role
    recipe: str
    seed: int
    round: int
    density: float
    checkpoint: str
    probes: Mapping[str, str]
    reference: str
    reference_probes: Mapping[str, str]


@dataclass(eq=False)
class Plan:
    """All cells of a study, parents before children, and the points and floor pairs that the report draws."""

    study: Study
    cells: dict[str, Cell] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    floor: list[Point] = field(default_factory=list)

    def add(self, cell: Cell) -> Cell:
        """The cell as planned: an equal one that is there already wins."""
        return self.cells.setdefault(cell.folder, cell)

    def children(self) -> dict[str, list[Cell]]:
        """{folder: cells that need it}."""
        found: dict[str, list[Cell]] = {folder: [] for folder in self.cells}
        for cell in self.cells.values():
            for parent in cell.parents.values():
                found[parent.folder].append(cell)
        return found


def make_plan(study: Study) -> Plan:
    """Expand a study: dense networks per seed, the rounds of every recipe, controls, and probes on each checkpoint."""
    plan = Plan(study)
    data = plan.add(Cell("data", data_params(study), {}, "data"))
    builder = _Builder(plan, data, model_params(study))
    dense = {seed: builder.dense(seed) for seed in study.seeds.dense}
    for seed in study.seeds.dense:
        plan.points.append(builder.point("dense", "", seed, 0, 1.0, dense[seed], dense[seed]))
    for reference in study.seeds.dense:
        for other in study.seeds.dense:
            if reference < other:
                plan.floor.append(builder.point("dense", "", other, 0, 1.0, dense[other], dense[reference]))
    controlled = study.controls.recipes or tuple(recipe.name for recipe in study.recipes[:1])
    for recipe in study.recipes:
        for seed in study.seeds.tickets:
            for step in builder.rounds(recipe, seed, dense[seed]):
                plan.points.append(builder.point("ticket", recipe.name, seed, *step.place, step.ticket, dense[seed]))
                if recipe.name in controlled:
                    for role, cell in builder.controls(recipe, seed, step, dense[seed]):
                        plan.points.append(builder.point(role, recipe.name, seed, *step.place, cell, dense[seed]))
    return plan


@dataclass(frozen=True, eq=False)
class _Round:
    """One round of one recipe: the network just cut (None where it is cut while it trains), and after its training."""

    number: int
    density: float
    cut: Cell | None
    ticket: Cell

    @property
    def place(self) -> tuple[int, float]:
        return self.number, self.density


class _Builder:
    """Makes cells of one study and files them in its plan."""

    def __init__(self, plan: Plan, data: Cell, model: Mapping[str, Any]) -> None:
        self.plan, self.data, self.study, self.model = plan, data, plan.study, model

    def dense(self, seed: int, stop: str | None = None) -> Cell:
        """Training from the initialisation, to the end or to a rewind point."""
        params: dict[str, Any] = {"model": self.model, "training": canonical(self.study.training), "seed": seed}
        if stop is not None:
            params["stop"] = stop
        label = f"dense seed {seed}" + (f" until {stop}" if stop else "")
        return self.plan.add(Cell("train", params, {"data": self.data}, label))

    def rounds(self, recipe: Recipe, seed: int, dense: Cell) -> Iterator[_Round]:
        untrained = recipe.schedule.before_training or recipe.schedule.gradual
        begin = ticket = (self.origin(recipe, seed) if untrained else None) or dense
        for number, density in enumerate(recipe.schedule.densities(), start=1):
            cut = None if recipe.schedule.gradual else self.cut(recipe, seed, number, density, ticket, dense)
            ticket = self.retrain(recipe, seed, number, cut or ticket, "ticket")
            yield _Round(number, density, cut, ticket)
            if recipe.schedule.independent:
                ticket = begin

    def origin(self, recipe: Recipe, seed: int) -> Cell | None:
        """What the recipe rewinds to; None when it keeps the trained weights."""
        if recipe.rewind.keeps_weights:
            return None
        return self.dense(seed, "0it" if recipe.rewind.to == "init" else str(recipe.rewind.at))

    def cut(self, recipe: Recipe, seed: int, number: int, density: float, previous: Cell, dense: Cell) -> Cell:
        params = {**self.scored(recipe, seed, number), "density": round(density, 12)}
        parents = {"previous": previous, "data": self.data}
        if isinstance(recipe.scope, Sensitivity):
            scanned = self.scored(recipe, seed, 0)
            parents["scan"] = self.plan.add(
                Cell("scan", scanned, {"previous": dense, "data": self.data}, f"sensitivity of layers seed {seed}")
            )
        return self.plan.add(Cell("prune", params, parents, f"cut to {density:.1%} seed {seed}"))

    def scored(self, recipe: Recipe, seed: int, number: int) -> dict[str, Any]:
        """How weights are scored and compared; round 0 is the scan before the first cut."""
        params = {"criterion": canonical(recipe.criterion), "scope": canonical(recipe.scope), **self.units(recipe)}
        if recipe.ignore:
            params["ignore"] = list(recipe.ignore)
        if recipe.target != "units":
            params["target"] = recipe.target
        if type(recipe.criterion).needs_data or type(recipe.criterion).needs_seed:
            params["seed"] = [seed, number]
        return params

    def units(self, recipe: Recipe) -> dict[str, Any]:
        """What is cut at once; nothing for single weights, so that older keys hold."""
        return {} if recipe.granularity == Weights() else {"granularity": canonical(recipe.granularity)}

    def retrain(self, recipe: Recipe, seed: int, number: int, cut: Cell, role: Role, times: int = 1) -> Cell:
        """Training under a mask, from where the recipe rewinds to; `times` as many epochs when it does not rewind."""
        training = recipe.retraining(self.study.training, number)
        params: dict[str, Any] = {
            "training": canonical(training), "seed": seed, "round": number, "rewind": canonical(recipe.rewind),
        }  # fmt: skip
        if role != "ticket":
            params["role"] = role
        if times != 1:
            params["times"] = times
            if recipe.epochs_per_round:
                params["epochs"] = list(recipe.epochs_per_round[:times])
        parents = {"cut": cut, "data": self.data}
        if role != "reinit" and (origin := self.origin(recipe, seed)) is not None:
            parents["rewind"] = origin
        if role == "ticket" and recipe.moves:
            params["moving"] = moving_params(recipe)
        if recipe.distill is not None:
            params["distill"] = canonical(recipe.distill)
            parents["teacher"] = self.dense(seed)
        name = recipe.name if role == "ticket" else f"{recipe.name} {role}"
        return self.plan.add(Cell("retrain", params, parents, f"{name} round {number} seed {seed}"))

    def controls(self, recipe: Recipe, seed: int, step: _Round, dense: Cell) -> Iterator[tuple[Role, Cell]]:
        """Branches off one round. Without rewinding, a control trains as long as its ticket did in all rounds."""
        control = self.study.controls
        if control.rounds is not None and step.number not in control.rounds:
            return
        masked = step.cut if step.cut is not None and not recipe.moves else step.ticket
        alone = recipe.rewind.to in ("init", "late") or recipe.schedule.independent
        times = 1 if alone else step.number
        for kind in control.kinds:
            if kind == "unretrained":
                yield "unretrained", step.cut or self.cut(recipe, seed, step.number, step.density, dense, dense)
            elif kind == "reinit":
                yield "reinit", self.retrain(recipe, seed, step.number, masked, "reinit")
            else:
                role: Role = "random" if kind == "random" else "dense-control"
                params: dict[str, Any] = {"control": kind}
                if kind == "random":
                    params |= {"seed": [seed, step.number], **self.units(recipe)}
                parents = {"ticket": masked, "previous": dense, "data": self.data}
                cut = self.plan.add(Cell("prune", params, parents, f"{kind} mask at {step.density:.1%} seed {seed}"))
                yield role, self.retrain(recipe, seed, step.number, cut, role, times)

    def point(
        self, role: Role, recipe: str, seed: int, number: int, density: float, checkpoint: Cell, reference: Cell
    ) -> Point:
        """Probe cells of a checkpoint against its dense reference."""
        own = self.probes(checkpoint, reference)
        of_reference = own if checkpoint is reference else self.probes(reference, reference)
        return Point(role, recipe, seed, number, density, checkpoint.folder, own, reference.folder, of_reference)

    def probes(self, checkpoint: Cell, reference: Cell) -> dict[str, str]:
        found = {}
        for key, probe in self.study.probes.items():
            parents = {"checkpoint": checkpoint, "data": self.data}
            if probe.needs_reference:
                parents["reference"] = self.performance(reference)
            if probe.needs_dense and (first := self.dense(self.study.seeds.dense[0])) is not checkpoint:
                parents["dense"] = self.measured(key, first)
            label = f"{key} of {checkpoint.label}"
            found[key] = self.plan.add(Cell("probe", {"probe": canonical(probe)}, parents, label)).folder
        return found

    def measured(self, key: str, first: Cell) -> Cell:
        """What a probe records of the study's first dense network."""
        parents = {"checkpoint": first, "data": self.data}
        if self.study.probes[key].needs_reference:
            parents["reference"] = self.performance(first)
        params = {"probe": canonical(self.study.probes[key])}
        return self.plan.add(Cell("probe", params, parents, f"{key} of {first.label}"))

    def performance(self, checkpoint: Cell) -> Cell:
        """The record that tells a network's predictions."""
        probe = next(probe for probe in self.study.probes.values() if probe.name == "performance")
        parents = {"checkpoint": checkpoint, "data": self.data}
        return self.plan.add(Cell("probe", {"probe": canonical(probe)}, parents, f"performance of {checkpoint.label}"))
