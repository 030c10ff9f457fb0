"""Replacing files whole: whoever reads one sees the old content or the new, also after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` as the new content of `path`, in a folder that exists; an existing file keeps its permissions.

    The content is complete on disk, beside the file, before it takes the file's name. What a killed writer left beside it is removed.
    A symbolic link is replaced by the file.

    Raises:
        OSError: the disk failed; the file is the old one still, or already the new one.
    """
    _remove_left_overs(path)
    with _temporary(path) as (temporary, file):
        file.write(data)
        file.flush()
        with contextlib.suppress(FileNotFoundError):
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        os.fsync(file.fileno())
        temporary.replace(path)
    _sync_folder(path.parent)


def keep_out_of_git(folder: Path) -> None:
    """Have a folder that serves one checkout only ignore itself, as pytest's cache does; nothing happens where there is no such folder."""
    if folder.is_dir() and not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")


@contextlib.contextmanager
def _temporary(path: Path) -> Generator[tuple[Path, BinaryIO]]:
    """A new file beside `path`, locked while it is written, so that no other process takes it for a left-over."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        with temporary.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:  # taken for a left-over before it was locked
                continue
            try:
                yield temporary, file
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            return


def _remove_left_overs(path: Path) -> None:
    prefix = f".{path.name}."
    for other in path.parent.iterdir():
        if other.name.startswith(prefix) and other.name.endswith(".tmp"):
            with contextlib.suppress(OSError):
                _remove_unless_locked(other)


def _remove_unless_locked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
