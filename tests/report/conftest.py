"""Finished studies, tiny and hostile: made once for all tests of the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_filters import write_folder
from hostile_study import RECIPE, run
from tabs import CHROME

from prunescope.report.build import build_report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROME, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def filter_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of `prunescope car`; every name is hostile."""
    return write_folder(tmp_path_factory.mktemp("filters") / "tables")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study whose every name is hostile."""
    return run(tmp_path_factory.mktemp("report") / "study")


@pytest.fixture(scope="session")
def page(finished: Path) -> Path:
    """Its report."""
    return build_report(finished, finished.parent / "page" / "report.html")


@pytest.fixture(scope="session")
def collapsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of which one recipe empties layers (with hostile names), and one cuts filters."""
    recipes = [
        {"name": RECIPE, "schedule": {"density": 0.003, "rounds": 2, "kind": "linear"}, "rewind": {"to": "none"}},
        {"name": "units", "granularity": "filter", "schedule": {"density": 0.5, "kind": "one-shot"},
         "rewind": {"to": "none"}},
    ]  # fmt: skip
    return run(
        tmp_path_factory.mktemp("collapsed") / "study", model="tests.report.hostile_nets:evil", recipes=recipes,
        controls="none", probes=["performance", "gradcam"],
    )  # fmt: skip


@pytest.fixture(scope="session")
def readable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of units and features; its layers have hostile names."""
    judges = {"similarity": "colour", "second": {"name": "random", "width": 8}, "controls": ["label"], "shown": 2}
    recipes = [
        {"name": RECIPE, "schedule": {"density": 0.25, "rounds": 2}, "rewind": {"to": "init"}},
        {"name": "filters", "granularity": "filter", "schedule": {"density": 0.4, "kind": "one-shot"},
         "rewind": {"to": "none"}},
    ]  # fmt: skip
    return run(
        tmp_path_factory.mktemp("readable") / "study", model="tests.report.hostile_nets:evil", recipes=recipes,
        controls="none", probes=["performance", {"name": "mis", **judges}, "selectivity", "similarity"],
    )  # fmt: skip


@pytest.fixture
def without(finished: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], bool]], Path]:
    """A copy of the study in which the cells that are chosen (by their facts) are not done."""

    def copy(lost: Callable[[dict[str, Any]], bool]) -> Path:
        root = tmp_path / "copy"
        shutil.copytree(finished, root)
        for folder in sorted((root / "cells").iterdir()):
            if lost(json.loads((folder / "cell.json").read_text())):
                shutil.rmtree(folder)
        return root

    return copy
