"""Where golden files may lie: paths and globs to files, links that leave the root folder refused, nothing opened that could hang."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pytest_touchstone.cases import shown
from pytest_touchstone.errors import Fault
from pytest_touchstone.golden_arrow import is_dataset

MAGIC = frozenset("*?[")


class Places:
    """The folders of one load: paths are relative to `base`; what lies inside `rootdir` must not lead out of it through a link."""

    def __init__(self, *, base: Path, rootdir: Path) -> None:
        """Take both folders as they are named, without following links, which the check below must see."""
        self.base = Path(os.path.abspath(base))  # noqa: PTH100 - resolve() follows links
        self._roots = (Path(os.path.abspath(rootdir)), Path(os.path.realpath(rootdir)))  # noqa: PTH100 - as above

    def expanded(self, text: str) -> list[Path]:
        """The files that a path or glob names, sorted, saved data sets among them; hidden ones only where the glob names them.

        Raises:
            OSError: a folder cannot be searched.
            ValueError: the path or glob is malformed.
        """
        path = self.base / text
        if os.path.lexists(path):
            return [path]
        first = next((index for index, part in enumerate(path.parts) if MAGIC & set(part)), None)
        if first is None:
            return []
        folder, pattern = Path(*path.parts[:first]), "/".join(path.parts[first:])
        hidden = any(part.startswith(".") for part in path.parts[first:])
        found = [match for match in folder.glob(pattern) if hidden or not _is_hidden(match.relative_to(folder))]
        return sorted(match for match in found if not match.is_dir() or is_dataset(match))

    def guard(self, path: Path, place: str) -> Fault | None:
        """Why a file may not be opened: it cannot be found, leads out of the root folder, or opening it could hang."""
        try:
            mode = path.stat().st_mode
        except OSError as error:
            return self.leaves_root(path, place) or unreadable(place, error)
        if not stat.S_ISREG(mode):
            return Fault(file=place, problem="is no regular file", fix="give a file, not a pipe, socket, device or folder")
        return self.leaves_root(path, place)

    def leaves_root(self, path: Path, place: str) -> Fault | None:
        """A fault for a path that lies inside the root folder by its text and outside of it by its links."""
        real = Path(os.path.realpath(path))
        if self._inside(path) is None or real.is_relative_to(self._roots[1]):
            return None
        problem = f"leads out of the root folder through a symbolic link, to {str(real)!r}"
        return Fault(file=place, problem=problem, fix="copy the file into the project, or name it by its real path")

    def _inside(self, path: Path) -> Path | None:
        """The path relative to the root folder, None where its text points elsewhere; links are not followed."""
        lexical = Path(os.path.normpath(path))
        return next((lexical.relative_to(root) for root in self._roots if lexical.is_relative_to(root)), None)

    def shown_path(self, path: str | Path) -> str:
        """The path relative to the root folder where it lies inside, else as given; control characters are escaped."""
        text = str(self._inside(self.base / path) or path)
        return text if text.isprintable() else repr(text)[1:-1]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def unreadable(place: str, error: OSError) -> Fault:
    """A fault for what the operating system refused."""
    return Fault(file=place, problem=f"cannot be read: {error.strerror or shown(str(error))}", fix="correct the path or its permissions")


def no_dataset(place: str) -> Fault:
    """A fault for a folder that is no saved data set."""
    problem = "is a folder, and no data set saved by datasets.save_to_disk"
    return Fault(file=place, problem=problem, fix=f"name its files, such as {shown(place + '/*.yaml')}")
