from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.data.load import check, load_data
from prunescope.data.shapes import Shapes
from prunescope.data.sources import sources
from prunescope.data.split import Dataset

TINY: dict[str, Any] = {"name": "shapes", "train": 64, "val": 16, "test": 16, "size": 16}


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    return Shapes(train=64, val=16, test=16, size=16).load()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[Dataset], None]:
    """Registers a source `given` with an option `root` that returns the data set it was given."""

    def register(dataset: Dataset) -> None:
        @dataclass(frozen=True)
        class Given:
            root: str = "nowhere"

            def load(self) -> Dataset:
                return replace(dataset, info={"root": self.root})

        monkeypatch.setattr(sources, "_parts", {**sources._parts})
        sources.register("given")(Given)

    return register


def test_a_name_with_options_is_the_source_with_those_fields(tiny: Dataset) -> None:
    assert load_data(TINY).fingerprint == tiny.fingerprint
    assert load_data({**TINY, "seed": "3"}).fingerprint == replace(Shapes(3, 64, 16, 16, 16)).load().fingerprint
    assert load_data("digits").name == "digits"


def test_the_config_is_left_as_it_was() -> None:
    config = {**TINY, "limit_train": 8, "allow_duplicates": True}
    before = dict(config)
    load_data(config)
    assert config == before


def test_a_path_behind_the_name_is_the_root(source: Callable[[Dataset], None], tiny: Dataset) -> None:
    source(tiny)
    assert load_data("given").info["root"] == "nowhere"
    assert load_data("given:/some/where:else").info["root"] == "/some/where:else"
    assert load_data({"name": "given", "root": "x"}).info["root"] == "x"
    with pytest.raises(PrunescopeError, match="given twice"):
        load_data({"name": "given:a", "root": "b"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("shape", "did you mean 'shapes'"),
        ("shapes:/data", "'shapes' reads no folder"),
        ("digit:/data", "did you mean 'digits'"),
        ({**TINY, "sise": 3}, r"data\.sise: unknown key; did you mean 'size'"),
        ({**TINY, "limit_tain": 3}, "did you mean 'limit_train'"),
        ({**TINY, "train": "many"}, r"data\.train: .*integer.*'many'"),
        ({**TINY, "limit_val": 0}, r"data\.limit_val: must be at least 1"),
        ({**TINY, "limit_val": 1.5}, r"data\.limit_val"),
        ({**TINY, "allow_duplicates": "perhaps"}, r"data\.allow_duplicates"),
        ({"train": 3}, "expected a name"),
        ({**TINY, "train": 3}, "no training image of class"),
        ({**TINY, "test": 1}, "split 'test' has images of a single class"),
        ({**TINY, "limit_train": 3}, "no training image of class"),
    ],
)
def test_mistakes_get_one_line_with_the_place(config: Any, words: str) -> None:
    with pytest.raises(PrunescopeError, match=words) as caught:
        load_data(config)
    assert "\n" not in str(caught.value)


def test_limits_keep_classes_in_balance_and_are_nested(tiny: Dataset) -> None:
    data = load_data({**TINY, "limit_train": 16, "limit_test": 999})
    assert torch.bincount(data.train.labels).tolist() == [4] * 4
    assert data.info["limited_to"] == {"train": 16}
    assert data.test.fingerprint == tiny.test.fingerprint
    fewer = load_data({**TINY, "limit_train": 8})
    assert set(fewer.train.ids) < set(data.train.ids) < set(tiny.train.ids)
    assert fewer.train.fingerprint == load_data({**TINY, "limit_train": 8}).train.fingerprint


def test_duplicates_stop_the_load_unless_allowed(source: Callable[[Dataset], None], tiny: Dataset) -> None:
    source(replace(tiny, test=replace(tiny.train.subset(range(16)), ids=tiny.test.ids)))
    with pytest.raises(PrunescopeError, match="shapes-train-00000 = shapes-test-00000"):
        load_data("given")
    with pytest.warns(PrunescopeWarning, match="16 images"):
        assert load_data({"name": "given", "allow_duplicates": True}).info["duplicates"] == 16


def test_only_images_that_are_used_can_be_duplicates(source: Callable[[Dataset], None], tiny: Dataset) -> None:
    kept = set(load_data({**TINY, "limit_train": 32}).train.ids)
    left_out = [i for i, name in enumerate(tiny.train.ids) if name not in kept][:16]
    source(replace(tiny, test=replace(tiny.train.subset(left_out), ids=tiny.test.ids)))
    load_data({"name": "given", "limit_train": 32})
    with pytest.raises(PrunescopeError, match="16 images"):
        load_data("given")


def test_splits_that_do_not_fit_together_are_refused(tiny: Dataset) -> None:
    def one_class(label: int) -> Any:
        return tiny.val.subset(torch.nonzero(tiny.val.labels == label)[:, 0])

    cases = [
        (replace(tiny, val=one_class(2)), "split 'val' has images of a single class, 'shard'"),
        (replace(tiny, train=tiny.train.subset(tiny.train.labels.ne(1).nonzero()[:, 0])), "of class 'candy'"),
        (replace(tiny, val=tiny.val.subset([])), "split 'val' has no images"),
        (replace(tiny, val=replace(tiny.val, classes=("a", "b", "c", "d"))), "has classes"),
        (replace(tiny, test=replace(tiny.test, images=tiny.test.images[:, :1])), r"shape \(1, 16, 16\)"),
        (replace(tiny, test=replace(tiny.test, ids=["x"] * 16)), "id 'x' more than once"),
    ]
    for data, words in cases:
        with pytest.raises(PrunescopeError, match=words):
            check(data)
    check(tiny)


MODULE = """
from dataclasses import replace
from prunescope.data.shapes import Shapes

def make(train=64, *, size=16):
    return replace(Shapes(train=train, val=16, test=16, size=size).load(), name="mine")

def wrong():
    return 3

def broken():
    raise TypeError("from inside")

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "data_of_a_user"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_users_function_in_the_current_folder_is_called_with_the_options(module: str) -> None:
    path = list(sys.path)
    data = load_data({"name": f"{module}:make", "train": 32, "limit_val": 8})
    assert (data.name, len(data.train), len(data.val)) == ("mine", 32, 8)
    assert sys.path == path


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        ("mak", {}, "did you mean 'make'"),
        ("number", {}, "unknown function 'number'"),
        ("make", {"trian": 3}, "unexpected keyword argument 'trian'"),
        ("wrong", {}, "must return a prunescope.data.Dataset, got int"),
    ],
)
def test_mistakes_in_naming_a_users_function(module: str, function: str, options: dict, words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        load_data({"name": f"{module}:{function}", **options})


def test_a_module_that_is_missing_is_told_from_one_that_misses_something(module: str) -> None:
    with pytest.raises(PrunescopeError, match="there is no module 'no_such'"):
        load_data("no_such.module:make")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_data("needs_more:make")
    with pytest.raises(TypeError, match="from inside"):
        load_data(f"{module}:broken")
