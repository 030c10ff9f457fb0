"""What git knows of a folder: its commit, its branch, whether files differ from the commit, and what files held at another one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 10.0
SHORT_COMMIT = 10


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The state of a folder under git; all None where git is missing, does not know the folder, or does not answer.

    `commit` is also None before the first commit. `dirty` is whether a file that git knows differs from it. `branch` is None where none is
    checked out.
    """

    commit: str | None = None
    dirty: bool | None = None
    branch: str | None = None

    @property
    def short(self) -> str | None:
        """The commit in ten characters, `+` behind it where files differ from it; None where git knows none.

        >>> Checkout(commit="3b4f2aa9c01d55e0", dirty=True).short
        '3b4f2aa9c0+'
        """
        return None if self.commit is None else f"{self.commit[:SHORT_COMMIT]}{'+' if self.dirty else ''}"


class CheckoutQuestion:
    """Asks git for the state of a folder when it is made, and waits for the answer when that is wanted."""

    def __init__(self, folder: Path) -> None:
        """Start git, which reads only."""
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command
                _command("status", "--porcelain=v2", "--branch", "--untracked-files=no"),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C"},
            )

    def answer(self, patience_s: float = PATIENCE_S) -> Checkout:
        """What git said; nothing when it is asked again. A git that is silent for longer than `patience_s` (seconds) is ended."""
        process, self._process = self._process, None
        if process is None:
            return Checkout()
        with process:
            try:
                said, _ = process.communicate(timeout=patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                return Checkout()
        return _checkout(said.decode("utf-8", "backslashreplace")) if process.returncode == 0 else Checkout()

    def drop(self) -> None:
        """Ask no longer; git is ended where it has not answered."""
        self.answer(patience_s=0)


def checkout(folder: Path) -> Checkout:
    """The state of the folder now."""
    return CheckoutQuestion(folder).answer()


def commit_of(ref: str, folder: Path) -> str | None:
    """The full id of the commit that a branch, a tag or an abbreviated id names; None where git does not know any.

    >>> from pathlib import Path
    >>> commit_of("--version", Path("/")) is None
    True
    """
    if not ref or ref.startswith("-"):  # nothing that git would take for an option
        return None
    said = _said(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    return said.decode("ascii", "replace").strip() if said else None


def files_at(commit: str, folder: Path) -> list[str] | None:
    """The paths below the folder, relative to it, that git knew at the commit; None where git cannot say."""
    said = _said(folder, "ls-tree", "-r", "-z", "--name-only", commit)
    return None if said is None else [os.fsdecode(name) for name in said.split(b"\0") if name]


def file_at(commit: str, path: str, folder: Path) -> bytes | None:
    """What the file, its path relative to the folder, held at the commit; None where it did not exist."""
    return _said(folder, "show", f"{commit}:./{path}")


def _checkout(said: str) -> Checkout:
    headers = dict(line[2:].split(" ", maxsplit=1) for line in said.splitlines() if line.startswith("# branch."))
    commit, branch = headers.get("branch.oid"), headers.get("branch.head")
    return Checkout(
        commit=None if commit == "(initial)" else commit,
        dirty=any(not line.startswith("#") for line in said.splitlines()),
        branch=None if branch == "(detached)" else branch,
    )


def _said(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(  # noqa: S603 - git, and nothing that it takes for an option
            _command(*arguments), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _command(*arguments: str) -> list[str]:
    # Without locks, nothing that a person does with git at the same time fails because of this.
    return ["git", "--no-optional-locks", "--no-pager", *arguments]
