"""Units a person could read: MIS layer by layer, tickets beside the dense networks. Words first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from prunescope.core.types import Array, Record
from prunescope.report.boxes import box_chart
from prunescope.report.by_density import ByDensity, above_chance, against, words_of_range
from prunescope.report.charts import Figure
from prunescope.report.heat import HeatTable
from prunescope.report.mis_rows import mis_layers, probe_keys, rows_of_layers
from prunescope.report.places import dense_points, number, percent, recipes_done, spread_out, ticket_rows, tickets
from prunescope.report.verdicts import Line, Verdicts, verdicts
from prunescope.study.results import Results

#: Networks beside the dense ones in a chart of boxes, at most.
_BOXES = 3
_KINDS = {"conv": "convolutions", "linear": "linear layers", "norm": "norms"}
#: Share of the images that are extremes of a unit, a side, from which they are no longer very extreme.
_MILD = 0.05

LEAD = (
    "A task of a unit: images that drive it up, as many that drive it down, and two more, one of each kind. Whoever "
    "can tell which is which has understood something of the unit. A machine does it here, by how alike images look to "
    "a judge that never saw these networks (Zimmermann, Klindt and Brendel 2024). A half is chance. A high share says "
    "that a unit’s extreme images look alike; not that the unit matters, nor that the network is right."
)


@dataclass(frozen=True)
class ReadableView:
    """One recipe's tickets beside the dense networks.

    Attributes:
        charts: {kind of layer in words: key of its figure}; `figures` has them.
        drift: the verdicts that scores of units have.
    """

    key: str
    title: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]
    drift: tuple[Line, ...]
    densities: tuple[float, ...]
    kept: str
    charts: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


def readable_views(found: Results) -> list[ReadableView]:
    """One per probe `mis` and recipe of which tickets are done; none without such a probe."""
    keys = probe_keys(found, "mis")
    if not keys or not dense_points(found):
        return []
    layers, judged = mis_layers(found), verdicts(found)
    return [
        _View(found, key, recipe, layers[layers["probe"] == key]).made(judged)
        for key in keys
        for recipe in recipes_done(found)
    ]


class _View:
    def __init__(self, found: Results, key: str, recipe: str, layers: pd.DataFrame) -> None:
        self.found, self.key, self.recipe = found, key, recipe
        self.by = ByDensity(found, recipe)
        self.title = recipe if key == "mis" else f"{recipe} ({key})"
        self.layers = layers.assign(unscored=(layers["constant"] + layers["tied"]) / layers["units"])
        columns = [name for name in map(str, found.runs.columns) if name.startswith(f"{key}.")]
        self.runs = found.runs.rename(columns={name: name.removeprefix(f"{key}.") for name in columns})
        self.record = found.record(dense_points(found)[0], key)

    def made(self, judged: list[Verdicts]) -> ReadableView:
        charts, figures = {}, {}
        for kind, words in _KINDS.items():
            if kind in self.record.info["kinds"].values():
                charts[words] = f"mis/{self.key}/{self.recipe}/{kind}"
                figures[charts[words]] = self._boxes(kind, words)
        lines, densities = self._lines(judged)
        return ReadableView(
            f"{self.key}/{self.recipe}", self.title, tuple(self._words()), tuple(self._tables()), lines, densities,
            self.by.kept, charts, figures,
        )  # fmt: skip

    # -- words

    def _words(self) -> Iterator[str]:
        yield (
            f"With {self.by.last} of the {self.by.kept} the judge gets {self._now('accuracy')} of the units’ tasks "
            f"right (dense: {self._dense('accuracy')}; chance: {percent(0.5)}); their MIS is "
            f"{self._now('mis', number)} (dense: {self._dense('mis', number)}). Both are means over layers of the "
            "layers’ means."
            f"{self._verdict('layer.accuracy', 'mean_change')}"
        )
        yield (
            f"{self._now('dead')} of the units answer alike to every image (dense: {self._dense('dead')}), and for "
            f"{self._now('tied')} chance would choose among equal images (dense: {self._dense('tied')}). Neither has a "
            "score, nor does it count in any mean."
        )
        yield from self._paired()
        yield from self._fixed()
        yield from self._second()
        yield from self._controls()
        yield from self._how()

    def _paired(self) -> Iterator[str]:
        rows = ticket_rows(self.layers, self.recipe)
        value = rows[rows["round"] == rows["round"].max()]["paired_change"].mean()
        if np.isfinite(value):
            yield (
                f"Of the units that have a score in the dense network and in its ticket at {self.by.last}, MIS changes "
                f"by {number(float(value))}, unit by unit, mean over layers: what the survivors became, apart from who "
                "survived."
            )

    def _fixed(self) -> Iterator[str]:
        """The first and the last layer have the same units in every network, whatever is pruned between them."""
        names, values, _ = self.by.means(self.layers, "layer", "mis")
        if len(names) > 1:
            ends = [f"{names[i]} {number(values[i, 0])} to {number(values[i, -1])}" for i in (0, -1)]
            yield f"MIS of the first and of the last layer, dense to {self.by.last}: {ends[0]}; {ends[1]}."

    def _second(self) -> Iterator[str]:
        if "mis_second" in self.runs and self.runs["mis_second"].notna().any():
            yield (
                f"A second judge ({_name(self.record.info['second'])}) has a MIS of {self._now('mis_second', number)} "
                f"(dense: {self._dense('mis_second', number)}) and gets {self._now('accuracy_second')} right (dense: "
                f"{self._dense('accuracy_second')}). Over units both agree with a rank correlation of "
                f"{self._now('agreement', number)} (dense: {self._dense('agreement', number)})."
            )

    def _controls(self) -> Iterator[str]:
        known = {
            "label": "class labels alone", "colour": "colours alone", "random": "an untrained network",
            "permuted": "the judge with the images mixed up",
        }  # fmt: skip
        told = [
            f"{known.get(name, name)} {self._now(f'accuracy_{name}')} (dense: {self._dense(f'accuracy_{name}')})"
            for name in self._control_names()
        ]
        if told:
            yield f"To compare with, of the same tasks get right: {'; '.join(told)}."

    def _control_names(self) -> list[str]:
        known = map(str, self.runs.columns)
        names = [name.removeprefix("accuracy_") for name in known if name.startswith("accuracy_")]
        return [name for name in names if name != "second" and self.runs[f"accuracy_{name}"].notna().any()]

    def _how(self) -> Iterator[str]:
        info = self.record.info
        judges = [f"{number(info['alpha'])} for {_name(info['similarity'])}"]
        if info["alpha_second"] is not None:
            judges.append(f"{number(info['alpha_second'])} for {_name(info['second'])}")
        extreme = (
            " That is a large share: these images are less extreme than those of larger sets, and scores of sets of "
            "other sizes are not comparable." if info["share_a_side"] > _MILD else ""
        )  # fmt: skip
        yield (
            f"Judge: {_name(info['similarity'])}. Alpha: {', '.join(judges)}; fitted on the dense network of the first "
            f"seed so that logits spread by {info['spread']}, or as the study gives it, and the same for all networks. "
            f"Tasks: N = {info['tasks']} of K = {info['references']} references a side, from the "
            f"{percent(info['share_a_side'])} of {info['images']:,} {info['split']} images that drive a unit (its "
            f"{_POOLS[info['pool']]}) most, and as many that drive it least.{extreme}"
        )

    # -- numbers

    def _now(self, column: str, form: object = percent) -> str:
        rows = ticket_rows(self.runs, self.recipe)
        value = rows[rows["round"] == rows["round"].max()][column].mean() if column in rows else np.nan
        return form(float(value))  # type: ignore[operator]

    def _dense(self, column: str, form: object = percent) -> str:
        values = self.runs[self.runs["role"] == "dense"].get(column, pd.Series(dtype=float))
        return words_of_range(values.to_list(), form)  # type: ignore[arg-type]

    def _verdict(self, array: str, distance: str) -> str:
        pooled = self.found.pooled
        if pooled.empty:
            return ""
        rows = ticket_rows(pooled, self.recipe)
        rows = rows[(rows["probe"] == self.key) & (rows["array"] == array) & (rows["distance"] == distance)]
        if not len(rows):
            return ""
        verdict = str(rows.sort_values("round")["verdict"].iloc[-1])
        return f" The change of the layers’ means: {verdict}."

    # -- tables and charts

    def _tables(self) -> Iterator[HeatTable]:
        title, how = self.title, self.by.how
        yield self._summary()
        for column, name in (
            ("mis", "MIS of a layer’s units"),
            ("accuracy", "Tasks of a layer’s units that are right"),
        ):
            form = number if column == "mis" else percent
            rows = self.by.means(self.layers, "layer", column)
            yield self.by.heat(rows, f"{name}, {title}", f"Of units with a score. {how}", form=form, level=above_chance)
        rows = self.by.means(self.layers, "layer", "unscored")
        yield self.by.heat(rows, f"Units without a score, {title}", f"Constant or tied, share of a layer’s. {how}")
        names, values, ends = self.by.means(self.layers, "layer", "paired_change")
        if np.isfinite(values).any():
            level = against(float(np.nanmax(np.abs(values))))
            note = f"Mean change of MIS, unit by unit, from the dense network. {how}"
            rows = (names, values, np.zeros_like(ends))
            yield self.by.heat(rows, f"Units that have a score in both, {title}", note, form=number, level=level)

    def _summary(self) -> HeatTable:
        """Every judge, kind and fixed layer at every density."""
        shown = {
            "accuracy": "right tasks, judge", "accuracy_second": "right tasks, second judge", "mis": "MIS, judge",
            "mis_second": "MIS, second judge", "agreement": "agreement of both (rank correlation)",
            **{f"mis_{kind}": f"MIS, {words}" for kind, words in _KINDS.items()},
            **{f"accuracy_{name}": f"right tasks, {name}" for name in self._control_names()},
            "dead": "constant units", "tied": "tied units",
        }  # fmt: skip
        shown = {name: words for name, words in shown.items() if name in self.runs and self.runs[name].notna().any()}
        long = self.runs.melt(["role", "recipe", "round"], list(shown), "measure")
        rows = self.by.means(long.assign(measure=long["measure"].map(shown)), "measure", "value")
        note = (
            "Means over layers of layer means, then over seeds; in brackets the range of the dense networks, which is "
            f"the floor. Columns: {self.by.kept} kept."
        )
        return self.by.heat(
            rows, f"At every density, {self.title}", note, corner="measure", form=number, level=np.zeros_like
        )  # fmt: skip

    def _boxes(self, kind: str, words: str) -> Figure:
        layers = [name for name, own in self.record.info["kinds"].items() if own == kind]
        groups = {"dense": self._values([self.found.record(p, self.key) for p in dense_points(self.found)], layers)}
        rounds = spread_out(sorted(set(self.by.columns) - {0}), _BOXES)
        for round_ in rounds:
            points = [point for point in tickets(self.found, self.recipe) if point.round == round_]
            records = [self.found.record(point, self.key) for point in points]
            groups[f"{self.by.columns[round_]} kept"] = self._values(records, layers)
        title = f"MIS of units, {words}, {self.title}"
        return box_chart(groups, layers, title=title, unit="MIS, all seeds", chance=0.5)

    def _values(self, records: list[Record], layers: list[str]) -> list[Array]:
        parts = [dict(rows_of_layers(record)) for record in records]
        return [
            np.concatenate(
                [record.arrays["unit.mis"][part[layer]] for record, part in zip(records, parts, strict=True)]
            )
            for layer in layers
        ]

    def _lines(self, judged: list[Verdicts]) -> tuple[tuple[Line, ...], tuple[float, ...]]:
        for table in judged:
            if table.recipe == self.recipe:
                mine = tuple(line for line in table.lines if line.figure.startswith(f"drift/{self.key}/"))
                return mine, table.densities
        return (), ()


_POOLS = {"mean": "mean over positions", "max": "largest value", "centre": "value in the centre"}


def _name(judge: dict[str, object]) -> str:
    """An embedding in words: its name and what differs from its defaults."""
    options = ", ".join(f"{key} {value}" for key, value in judge.items() if key != "name")
    return f"{judge['name']}" + (f" ({options})" if options else "")
