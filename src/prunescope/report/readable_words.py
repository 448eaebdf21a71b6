"""What MIS found, in sentences: tickets beside the dense networks, judges beside controls, and how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from prunescope.report.beside import Beside
from prunescope.report.by_density import span
from prunescope.report.places import dense_points, number, percent, ticket_rows
from prunescope.study.results import Results

#: Share of the images that are extremes of a unit, a side, from which they are no longer very extreme.
_MILD = 0.05
_POOLS = {"mean": "mean over positions", "max": "largest value", "centre": "value in the centre"}


class ReadableWords(Beside):
    """Sentences about one probe `mis` and recipe.

    Attributes:
        layers: rows of `mis_layers`, with `unscored`, the share of a layer's units without a score.
        runs: the study's runs, with the probe's metrics under their own names.
        record: of the first dense network.
    """

    def __init__(self, found: Results, key: str, recipe: str, layers: pd.DataFrame) -> None:
        super().__init__(found, key, recipe)
        self.title = recipe if key == "mis" else f"{recipe} ({key})"
        self.layers = layers.assign(unscored=(layers["constant"] + layers["tied"]) / layers["units"])
        columns = [name for name in map(str, found.runs.columns) if name.startswith(f"{key}.")]
        self.runs = found.runs.rename(columns={name: name.removeprefix(f"{key}.") for name in columns})
        self.record = found.record(dense_points(found)[0], key)

    def words(self) -> Iterator[str]:
        yield (
            f"With {self.last} of the {self.kept} the judge gets {self._now('accuracy')} of the units’ tasks "
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
                f"Of the units that have a score in the dense network and in its ticket at {self.last}, MIS changes "
                f"by {number(float(value))}, unit by unit, mean over layers: what the survivors became, apart from who "
                "survived."
            )

    def _fixed(self) -> Iterator[str]:
        """The first and the last layer have the same units in every network, whatever is pruned between them."""
        names, values, _ = self.means(self.layers, "layer", "mis")
        if len(names) > 1:
            ends = [f"{names[i]} {number(values[i, 0])} to {number(values[i, -1])}" for i in (0, -1)]
            yield f"MIS of the first and of the last layer, dense to {self.last}: {ends[0]}; {ends[1]}."

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
            for name in self.control_names()
        ]
        if told:
            yield f"To compare with, of the same tasks get right: {'; '.join(told)}."

    def control_names(self) -> list[str]:
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

    def _now(self, column: str, form: Callable[[float], str] = percent) -> str:
        rows = ticket_rows(self.runs, self.recipe)
        value = rows[rows["round"] == rows["round"].max()][column].mean() if column in rows else np.nan
        return form(float(value))

    def _dense(self, column: str, form: Callable[[float], str] = percent) -> str:
        values = self.runs[self.runs["role"] == "dense"].get(column, pd.Series(dtype=float))
        return span(values.to_list(), form)

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


def _name(judge: dict[str, object]) -> str:
    """An embedding in words: its name and what differs from its defaults."""
    options = ", ".join(f"{key} {value}" for key, value in judge.items() if key != "name")
    return f"{judge['name']}" + (f" ({options})" if options else "")
