"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused
from PIL import Image

from prunescope.pruning.scoring import criteria

STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "size": 16, "train": 96, "val": 48, "test": 48},
    "model": "tests.study.nets:little",
    "training": {"epochs": 1, "batch_size": 32, "lr": 0.05, "precision": "32"},
    "seeds": {"dense": [0], "tickets": [0]},
    "recipes": [{"name": "late", "schedule": {"density": 0.5, "rounds": 1}, "rewind": {"to": "init"}}],
    "controls": "none",
    "probes": ["performance", "gradcam"],
    "execution": {"device": "cpu"},
}


def test_a_study_from_end_to_end_and_again(prunescope: Any, tmp_path: Path) -> None:
    ran = prunescope(study=STUDY)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "report.html").is_file()
    assert "0 found done" in ran.err
    again = prunescope(study=STUDY)
    assert again.code == 0
    assert "0 cells computed" in again.err
    page = tmp_path / "elsewhere" / "page.html"
    (tmp_path / "elsewhere").mkdir()
    assert prunescope("report", tmp_path / "out", "--out", page).code == 0
    assert page.is_file()
    assert (tmp_path / "elsewhere" / "tables" / "pooled.parquet").is_file()
    status = prunescope("status", tmp_path / "out")
    assert status.code == 0
    assert "done" in status.out


def test_a_dry_run_computes_nothing(prunescope: Any, tmp_path: Path) -> None:
    ran = prunescope("--dry-run", study=STUDY)
    assert ran.code == 0
    assert "dense seed 0" in ran.out
    assert "waiting" in ran.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["criteria", "probes", "attributions", "models", "data", "embeddings"])
def test_lists(prunescope: Any, kind: str) -> None:
    ran = prunescope("list", kind)
    assert ran.code == 0
    known = {
        "criteria": "magnitude", "probes": "gradcam", "models": "resnet20", "data": "shapes", "embeddings": "encoder",
        "attributions": "integrated_gradients",
    }  # fmt: skip
    assert known[kind] in ran.out


def test_the_list_of_criteria_says_what_each_needs_costs_and_where_it_is_from(prunescope: Any) -> None:
    """Readable in 100 columns, also when piped: no name is cut off."""
    out = prunescope("list", "criteria").out
    assert max(map(len, out.splitlines())) <= 100
    assert {"granularity", "needs", "passes", "source"} <= set(out.split())
    entries = _entries(out)
    assert list(entries) == sorted(criteria)
    for name, words in entries.items():
        kind = criteria[name]
        needs = {"images": kind.needs_data, "labels": kind.needs_labels, "gradients": kind.needs_gradients,
                 "training": kind.needs_history}  # fmt: skip
        assert [need for need in needs if need in words.split("|")[3].split()] == [
            n for n, is_so in needs.items() if is_so
        ]
        assert ("channel" in words.split("|")[2]) == (kind.per == "filter")
        assert kind.source in words.split("|")[5]
        assert kind.cost in words.split("|")[4]


def _entries(out: str) -> dict[str, str]:
    """{name: its cells, their lines joined, between bars}, by where the columns begin."""
    lines = out.splitlines()
    header = next(line for line in lines if "granularity" in line)
    starts = [header.index(word) for word in ("name", "(default)", "granularity", "needs", "passes", "source", "what")]
    found: dict[str, list[list[str]]] = {}
    for line in lines[lines.index(header) + 1 :]:
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        if set(line) - set(" ─"):
            name = cells[0] or list(found)[-1]
            found.setdefault(name, []).append(cells)
    return {name: "|".join(" ".join(filter(None, column)) for column in zip(*rows, strict=True))
            for name, rows in found.items()}  # fmt: skip


def test_help_and_version(prunescope: Any) -> None:
    for verb in ("run", "demo", "report", "status", "list"):
        ran = prunescope(verb, "--help")
        assert ran.code == 0
        assert "Usage" in ran.out
    assert "0.1.0" in prunescope("--version").out


def test_unknown_keys_and_wrong_types(prunescope: Any) -> None:
    refused(prunescope(study={**STUDY, "recipies": []}), "did you mean 'recipes'?")
    refused(prunescope(study={**STUDY, "training": {"lr": "fast"}}), "training.lr", "'fast'")
    refused(prunescope(study={**STUDY, "data": {"name": "shapes", "sise": 16}}), "did you mean 'size'?")
    refused(prunescope("--set", "training.lr", study=STUDY), "key=value")
    refused(prunescope("list", "criterions"), "did you mean 'criteria'?")


def test_a_missing_study_and_a_missing_folder(prunescope: Any, tmp_path: Path) -> None:
    refused(prunescope("run", tmp_path / "nowhere.yaml"), "nowhere.yaml")
    refused(prunescope("report", tmp_path), "no study in")
    refused(prunescope("status", tmp_path), "no study in")
    data = {"name": "folder", "root": str(tmp_path / "nowhere"), "size": 16}
    refused(prunescope(study={**STUDY, "data": data}), "nowhere")


def images(root: Path, classes: dict[str, int]) -> dict[str, Any]:
    """A folder of noise in the usual layout, and the config that names it."""
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return {"name": "folder", "root": str(root), "size": 16}


def test_an_empty_class_and_a_single_class(prunescope: Any, tmp_path: Path) -> None:
    refused(prunescope(study={**STUDY, "data": images(tmp_path / "a", {"cat": 4, "dog": 0})}), "dog")
    refused(prunescope(study={**STUDY, "data": images(tmp_path / "b", {"cat": 4})}), "class")


def test_a_corrupt_image_is_named(prunescope: Any, tmp_path: Path) -> None:
    data = images(tmp_path / "a", {"cat": 4, "dog": 4})
    (tmp_path / "a" / "val" / "dog" / "2.png").write_bytes(b"\x89PNG not really")
    refused(prunescope(study={**STUDY, "data": data}), "2.png")


def test_duplicates_across_splits_are_named(prunescope: Any, tmp_path: Path) -> None:
    data = images(tmp_path / "a", {"cat": 8, "dog": 8})
    (tmp_path / "a" / "test" / "cat" / "0.png").write_bytes((tmp_path / "a" / "train" / "dog" / "1.png").read_bytes())
    refused(prunescope(study={**STUDY, "data": data}), "0.png", "1.png", "allow_duplicates")


class Malicious:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_a_malicious_weights_file_is_refused_and_runs_nothing(prunescope: Any, tmp_path: Path) -> None:
    with (tmp_path / "evil.pth").open("wb") as file:
        pickle.dump({"state_dict": Malicious(tmp_path / "pwned")}, file)
    model = {"name": "tests.study.nets:little", "weights": str(tmp_path / "evil.pth")}
    refused(prunescope(study={**STUDY, "model": model}), "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_a_folder_of_another_config_is_refused_and_kept(prunescope: Any, tmp_path: Path) -> None:
    assert prunescope(study=STUDY).code == 0
    before = sorted(path.name for path in (tmp_path / "out" / "cells").iterdir())
    refused(prunescope("--set", "training.lr=0.5", study=STUDY), "training.lr", "0.05 there, 0.5 here")
    assert sorted(path.name for path in (tmp_path / "out" / "cells").iterdir()) == before


def test_a_failed_cell_is_exit_code_two_and_in_the_report(prunescope: Any, tmp_path: Path) -> None:
    recipes = [*STUDY["recipes"], {"name": "wild", "schedule": {"density": 0.5, "rounds": 1},
                                   "rewind": {"to": "none"}, "training": {"lr": 1e20}}]  # fmt: skip
    ran = prunescope(study={**STUDY, "recipes": recipes})
    assert ran.code == 2
    assert "wild round 1 seed 0" in ran.err
    assert "wild round 1 seed 0" in (tmp_path / "out" / "report.html").read_text()
