"""Parts from mappings: every mistake named with its place and the nearest allowed word, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from prunescope.core.configure import canonical, configure, named, split_spec
from prunescope.core.errors import PrunescopeError, choices, missing_extra
from prunescope.core.registry import Registry


@dataclass(frozen=True)
class Inner:
    at: str = "1ep"
    to: Literal["init", "late"] = "init"


@dataclass(frozen=True)
class Outer:
    rounds: int = 3
    rates: tuple[float, ...] = (1.0,)
    inner: Inner = Inner()
    other: Inner | None = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise PrunescopeError(f"rounds must be at least 1, got {self.rounds}")


def test_nested_parts_and_lists_are_built() -> None:
    made = configure(Outer, {"rates": [1, 0.5], "inner": {"to": "late"}, "other": {"at": "2ep"}}, "x")
    assert made == Outer(rates=(1.0, 0.5), inner=Inner(to="late"), other=Inner(at="2ep"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"round": 3}, "x.round: unknown key; did you mean 'rounds'?"),
        ({"rounds": "many"}, "x.rounds: input should be a valid integer"),
        ({"rounds": 0}, "x: rounds must be at least 1, got 0"),
        ({"inner": {"two": "late"}}, "x.inner.two: unknown key"),
        ({"inner": {"to": "never"}}, "x.inner.to: input should be 'init' or 'late', got 'never'"),
        ({"inner": 7}, "x.inner: input should be a dictionary"),
    ],
)
def test_mistakes_name_place_and_cure(options: dict[str, object], expected: str) -> None:
    with pytest.raises(PrunescopeError) as caught:
        configure(Outer, options, "x")
    assert expected in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(PrunescopeError) as caught:
        configure(Outer, {"round": 3, "rounds": "many", "inner": {"to": "never"}}, "x")
    assert len(str(caught.value).splitlines()) == 3


def test_canonical_leaves_defaults_out_and_reads_back() -> None:
    part = Outer(rounds=5, inner=Inner(to="late"))
    assert canonical(part) == {"rounds": 5, "inner": {"to": "late"}}
    assert configure(Outer, canonical(part), "x") == part
    assert canonical(Outer()) == {}


def test_named_parts() -> None:
    registry: Registry[type[Outer]] = Registry("thing")
    registry.register("outer")(Outer)
    assert named(registry, "outer", "x") == Outer()
    assert named(registry, {"name": "outer", "rounds": 7}, "x").rounds == 7
    with pytest.raises(PrunescopeError, match="unknown thing 'outr'; did you mean 'outer'"):
        named(registry, "outr", "x")
    with pytest.raises(PrunescopeError, match="x: expected a name"):
        split_spec(7, "x")


def test_two_parts_may_not_share_a_name() -> None:
    registry: Registry[type] = Registry("thing")
    registry.register("a")(Outer)
    registry.register("a")(Outer)  # the same again (a module imported twice) is fine
    with pytest.raises(PrunescopeError, match="registered twice"):
        registry.register("a")(Inner)


def test_messages() -> None:
    assert "did you mean" not in str(choices("model", "xyz", ["resnet20"]))
    assert "prunescope[timm]" in str(missing_extra("timm", "timm", "model timm:vit"))
