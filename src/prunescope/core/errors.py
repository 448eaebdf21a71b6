"""The one error class that a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PrunescopeError(ValueError):
    """Something the user can put right. The message says what, where, got, allowed and nearest.

    The command line prints it as one line and exits with code 2; anything else is a bug.
    """


class PrunescopeWarning(UserWarning):
    """Something went differently than asked, and the run goes on; the report repeats it."""


def choices(kind: str, got: object, allowed: Iterable[str], where: str = "") -> PrunescopeError:
    """The error for a name that is none of `allowed`, with the nearest one suggested.

    >>> print(choices("model", "resnet2", ["resnet20", "vgg11"]))
    unknown model 'resnet2'; did you mean 'resnet20'? Known: resnet20, vgg11
    """
    names = sorted(allowed)
    near = get_close_matches(str(got), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    place = f" in {where}" if where else ""
    return PrunescopeError(f"unknown {kind} {got!r}{place}{hint} Known: {', '.join(names)}")


def missing_extra(package: str, extra: str, wanted_for: str) -> PrunescopeError:
    """The error for an optional package that is not installed."""
    return PrunescopeError(
        f"{wanted_for} needs the package {package!r}: install it with  pip install 'prunescope[{extra}]'"
    )
