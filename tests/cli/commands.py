"""What a command did, and how it refuses."""

from __future__ import annotations


class Ran:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def refused(ran: Ran, *expected: str) -> None:
    """Exit code 2, nothing on stdout, one clear line and no traceback on stderr."""
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    lines = [line for line in ran.err.splitlines() if "error:" in line]
    assert len(lines) == 1
    for words in expected:
        assert words in ran.err
