"""What every probe must do."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace

import numpy as np
import torch
from torch import nn

from prunescope.core.configure import canonical, named
from prunescope.core.types import Array, Record
from prunescope.data.split import NAMES, Dataset
from prunescope.engine.untouched import fixed_rng
from prunescope.metrics.families import FAMILIES
from prunescope.probes.base import Probe, Subject, measure, probe, probes
from prunescope.study.drift import drift
from prunescope.testing.samples import BreakdownError, breaking, tiny_data, tiny_network
from prunescope.testing.snapshot import Snapshot, prepare


class ProbeContract:
    """Inherit, name the class `Test...`, and set `probe` (or override `make_probe`). Every method is one clause.

    Attributes:
        probe: the probe to hold to the contract.
        rtol, atol: how far floats may differ where the order of summation does (batch size, shared sweep). Arrays of
            float16 may differ by one unit in the last place besides.
        counts: keys of `info` that tell how it was computed, which may hang on the batch size.
    """

    probe: Probe
    rtol: float = 1e-4
    atol: float = 1e-5
    counts: tuple[str, ...] = ()

    def make_probe(self) -> Probe:
        """The probe; override when its options must be made."""
        return self.probe

    def make_network(self, *, inplace: bool = False) -> nn.Module:
        """A network that fits `make_data`; `inplace`: its ReLUs overwrite their input, with the same weights."""
        return tiny_network(inplace=inplace)

    def make_data(self) -> Dataset:
        """Images, with concepts and object masks, so that every array of the record is there."""
        return tiny_data()

    # -- what it is

    def test_it_is_registered(self) -> None:
        kind = type(self.make_probe())
        assert probes.get(kind.name) is kind, f"register {kind.__name__} with @probes.register(name)"
        assert kind.summary, "`summary` is empty: `prunescope list probes` has nothing to say"

    def test_its_fields_are_its_configuration(self) -> None:
        item = self.make_probe()
        assert is_dataclass(item), "a probe is a frozen dataclass"
        assert type(item).__dataclass_params__.frozen, "the dataclass is not frozen"
        assert hash(item) == hash(self.make_probe()), "equal options must make equal probes"
        again = named(probes, canonical(item), "probe")
        assert again == item, f"written to YAML and read back it is {again}, not {item}"
        for field in fields(item):
            assert field.name != "name", "`name` is the registered name, not an option"

    # -- what it gives

    def test_its_record_is_well_formed(self) -> None:
        data, record = self.make_data(), self._record()
        assert record.probe == self.make_probe().name, "`Record.probe` is not the registered name"
        json.dumps(dict(record.info))
        if record.ids is not None:
            assert record.ids.tolist() == data.test.ids.tolist(), "ids are not those of the test split, in its order"
        lengths = {"class": len(data.classes), "concept": len(data.test.concept_names)}
        for name, array in record.arrays.items():
            assert not array.flags.writeable, f"array {name!r} can be written to"
            assert array.dtype.kind in "biufU", f"array {name!r} is of {array.dtype}: neither numbers nor text"
            expected = lengths.get(name.partition(".")[0])
            assert expected is None or len(array) == expected, f"{name!r} has {len(array)} rows, expected {expected}"

    def test_its_distances_can_be_computed(self) -> None:
        item, record = self.make_probe(), self._record()
        for array, family in item.distances.items():
            assert array in record.arrays, f"a distance is declared for {array!r}, which is not in the record"
            assert family in FAMILIES, f"unknown family {family!r} for {array!r}; known: {', '.join(FAMILIES)}"
        rows = drift({"it": record}, {"it": record}, {"it": item.distances}, same_start=True, draws=10)
        assert {row.array for row in rows} == set(item.distances)

    # -- what it leaves alone

    def test_the_network_is_left_as_it_was(self) -> None:
        network, data = prepare(self.make_network()), self.make_data()
        subject, images = self._subject(network, data), [data[name].images[:].clone() for name in NAMES]
        before = Snapshot(network)
        self.make_probe().measure(subject, batch_size=8)
        assert not before.differences(), f"changed: {before.differences()}"
        same = all(torch.equal(old, data[name].images[:]) for old, name in zip(images, NAMES, strict=True))
        assert same, "the images were changed"

    def test_the_network_is_left_as_it_was_after_an_error(self) -> None:
        network, data = prepare(self.make_network()), self.make_data()
        subject = self._subject(network, data)
        before = Snapshot(network)
        try:
            self.make_probe().measure(replace(subject, data=breaking(data)), batch_size=8)
        except BreakdownError:
            pass
        else:
            swallowed = "an error while reading images was swallowed, or the images were not read in batches"
            assert self._reads_no_images(subject), swallowed
        assert not before.differences(), f"changed: {before.differences()}"

    # -- what it depends on

    def test_it_gives_the_same_twice(self) -> None:
        """To the last bit, whatever state the global generators are in."""
        with fixed_rng():
            torch.manual_seed(1)
            first = self._record()
            torch.manual_seed(2)
            assert_same_record(first, self._record(), rtol=0, atol=0)

    def test_batch_size_does_not_matter(self) -> None:
        records = (self._record(batch_size=size) for size in (32, 7))
        large, small = (replace(r, info={k: v for k, v in r.info.items() if k not in self.counts}) for r in records)
        assert_same_record(large, small, rtol=self.rtol, atol=self.atol)

    def test_in_place_relus_do_not_matter(self) -> None:
        plain, inplace = (self._record(network=self.make_network(inplace=flag)) for flag in (False, True))
        assert_same_record(plain, inplace, rtol=self.rtol, atol=self.atol)

    def test_other_probes_in_the_same_sweep_do_not_matter(self) -> None:
        others = {"maps": probe("gradcam", layer=self._first_layer()), "scores": probe("performance")}
        wanted = {"before": others["maps"], "it": self.make_probe(), "after": others["scores"]}
        data, network = self.make_data(), self.make_network()
        together = measure(network, wanted, data, reference=self._reference(data), batch_size=8)["it"]
        assert_same_record(self._record(batch_size=8), together, rtol=self.rtol, atol=self.atol)

    def test_the_reference_is_matched_by_image_id(self) -> None:
        if not self.make_probe().needs_reference:
            return
        data = self.make_data()
        subject = self._subject(self.make_network(), data)
        shuffled = replace(subject, reference=_reversed(self._reference(data)))
        first, second = (self.make_probe().measure(s, batch_size=8) for s in (subject, shuffled))
        assert_same_record(first, second, rtol=0, atol=0)

    # -- helpers

    def _subject(self, network: nn.Module, data: Dataset) -> Subject:
        return Subject(network, data, self._reference(data), seed=3)

    def _reads_no_images(self, subject: Subject) -> bool:
        item = self.make_probe()
        return item.streams and not item.start(subject).needs.splits

    def _record(self, *, network: nn.Module | None = None, batch_size: int = 8) -> Record:
        subject = self._subject(network or self.make_network(), self.make_data())
        return self.make_probe().measure(replace(subject, seed=0), batch_size=batch_size)

    def _reference(self, data: Dataset) -> Record:
        """Predictions of a dense network that often differ from this one's."""
        other = self.make_network()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.copy_(parameter.flip(0))
        return measure(other, {"it": probe("performance")}, data)["it"]

    def _first_layer(self) -> str:
        network = self.make_network()
        return next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def assert_same_record(a: Record, b: Record, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Equal names, ids, dtypes and shapes; equal numbers up to the tolerances (NaN equals NaN).

    Raises:
        AssertionError: naming the metric or array that differs.
    """
    assert list(a.metrics) == list(b.metrics), f"different metrics: {list(a.metrics)} and {list(b.metrics)}"
    assert list(a.arrays) == list(b.arrays), f"different arrays: {list(a.arrays)} and {list(b.arrays)}"
    assert (a.ids is None) == (b.ids is None), "only one record has ids"
    assert a.ids is None or b.ids is None or a.ids.tolist() == b.ids.tolist(), "different ids"
    assert dict(a.info) == dict(b.info), f"different info: {a.info} and {b.info}"
    for name, value in a.metrics.items():
        np.testing.assert_allclose(b.metrics[name], value, rtol, atol, err_msg=f"metric {name!r}")
    for name, array in a.arrays.items():
        _assert_same_array(name, array, b.arrays[name], rtol, atol)


def _assert_same_array(name: str, a: Array, b: Array, rtol: float, atol: float) -> None:
    assert a.dtype == b.dtype, f"array {name!r} is of {a.dtype} and {b.dtype}"
    if a.dtype.kind != "f":
        np.testing.assert_array_equal(b, a, err_msg=f"array {name!r}")
        return
    rounding = float(np.finfo(np.float16).eps) if a.dtype == np.float16 and rtol else 0.0
    before, after = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(
        after, before, max(rtol, rounding), max(atol, rounding**2), err_msg=f"array {name!r}"
    )  # fmt: skip


def _reversed(record: Record) -> Record:
    assert record.ids is not None
    turned = {name: array[::-1] if name.startswith("image.") else array for name, array in record.arrays.items()}
    return replace(record, arrays=turned, ids=record.ids[::-1])
