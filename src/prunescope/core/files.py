"""Files that are either there, whole and on disk, or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunescope.core.errors import PrunescopeError


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_text(path: Path, *, encoding: str = "utf-8") -> str:
    """The text of a file.

    Raises:
        PrunescopeError: it cannot be read, or is not text in this encoding; the message names it.
    """
    try:
        return path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise PrunescopeError(f"{path} is damaged: no UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise PrunescopeError(f"cannot read {path}: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        PrunescopeError: it cannot be read or is no JSON; the message names it.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise PrunescopeError(f"{path} is damaged ({error})") from None


def fsync_folder(path: Path) -> None:
    """Make a folder's entries durable (a rename is not, before this)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fsync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed over `path`, else removed.

    >>> with atomic_file(Path("x.txt")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("whole or not at all")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _fsync_file(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes so that a reader sees the old file or the new one, never a part."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success every file is flushed and it is renamed to `path`.

    When `path` already exists by then (another process was faster), the new folder is dropped: equal names mean
    equal content here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _fsync_file(file)
        fsync_folder(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """One run at a time in a folder, which is made if need be; the lock goes with the process, however it ends.

    Raises:
        PrunescopeError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise PrunescopeError(f"another run is at work in {folder}; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()
