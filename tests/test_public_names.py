"""What `import prunescope as ps` offers: every name is there, and type checkers see the same ones."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import prunescope as ps


@pytest.mark.parametrize("name", ps.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(ps, name) is not None
    assert name in dir(ps)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(ps.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    assert told == {name: f"prunescope.{home}" for name, home in ps._HOMES.items()}


def test_the_parts_of_removal_and_pictures_are_among_them() -> None:
    assert {"greedy", "Until", "Race", "visualise", "Ascent"} <= set(ps.__all__)
