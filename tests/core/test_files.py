"""A file or folder appears whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import atomic_file, atomic_folder, read_text, sha256, write_atomic


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    write_atomic(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_failed_folder_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "cell") as temporary:  # noqa: PT012
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_the_first_wins(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "cell") as slow:
        (slow / "a").write_text("slow")
        with atomic_folder(tmp_path / "cell") as fast:
            (fast / "a").write_text("fast")
    assert (tmp_path / "cell" / "a").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["cell"]


def test_digest(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_text_is_read_whole_or_refused_by_name(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", "žluťoučký")
    assert read_text(tmp_path / "x") == "žluťoučký"
    (tmp_path / "x").write_bytes(b"ok so far \xff")
    with pytest.raises(PrunescopeError, match=r"x is damaged: no UTF-8 \(invalid start byte at byte 10\)"):
        read_text(tmp_path / "x")
    with pytest.raises(PrunescopeError, match=r"cannot read .*gone: No such file"):
        read_text(tmp_path / "gone")
    with pytest.raises(PrunescopeError, match="cannot read"):
        read_text(tmp_path)
