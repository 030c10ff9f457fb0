"""The files of the chosen formats: made of the examples that an export keeps, written each in its format's folder, removed when stale."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.format import Files, NotHeldError
from pytest_touchstone.export.formats.registry import FORMATS
from pytest_touchstone.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.format import Row

# What manifests may name as files of theirs: a manifest is data, and what it lists is removed.
_KNOWN = frozenset((name, file) for name, format_ in FORMATS.items() for file in format_.files)
_NEEDS = {"datasets": ("pyarrow", "parquet")}


@dataclass(frozen=True, kw_only=True)
class Made:
    """One format of an export before it is written.

    `files` are its contents by name, empty where no example is in it. `written` counts its examples; `left` are all others: which one of
    the given examples (from 0), and why. `anchored` are columns that `formats.trl` explains.
    """

    name: str
    files: Mapping[str, bytes]
    written: int
    left: tuple[tuple[int, str], ...]
    anchored: tuple[str, ...] = ()

    def listed(self) -> list[dict[str, Any]]:
        """The files as a manifest lists them: path in the export's folder, sha256 (hex), size in bytes."""
        return [
            {"path": f"{self.name}/{file}", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for file, data in self.files.items()
        ]


def make(name: str, examples: Sequence[Example]) -> Made:
    """The format of that name, of examples that are fit to be written; each is in its files or, with a reason, left out."""
    format_ = FORMATS[name]
    rows: list[Row] = []
    left: list[tuple[int, str]] = []
    for index, example in enumerate(examples):
        try:
            rows.append(format_.row(example))
        except NotHeldError as error:
            left.append((index, str(error)))
    encoded = format_.encode(rows) if rows else Files(content={})
    if isinstance(encoded, LeftOut):
        known = dict(left)
        left = [(index, known.get(index, encoded.reason)) for index in range(len(examples))]
        rows, encoded = [], Files(content={})
    return Made(name=name, files=encoded.content, written=len(rows), left=tuple(left), anchored=encoded.anchored)


def check_needs(names: Iterable[str]) -> None:
    """Refuse a format whose library is not installed, before anything is paid for.

    Raises:
        ExportError: the library is missing; the message says what to install.
    """
    for name in names:
        package, extra = _NEEDS.get(name, ("", ""))
        if package and importlib.util.find_spec(package) is None:
            msg = f"the format {name!r} needs {package}, which is not installed; pip install 'pytest-touchstone[{extra}]', or leave it out"
            raise ExportError(msg)


def check_places(folder: Path, names: Iterable[str], manifest: Path) -> None:
    """Refuse a folder in which a format would replace what is not an export's.

    Raises:
        ExportError: a place is no folder or no plain file, or the file is not one that the manifest knows.
    """
    owned = _owned(_read(manifest))
    for name in names:
        place = folder / name
        if _kind(place) not in {None, stat.S_IFDIR}:
            msg = f"{place}: is no folder, and the format {name!r} is written into it; remove it or choose another folder"
            raise ExportError(msg)
        for file in FORMATS[name].files:
            path = place / file
            if _kind(path) not in {None, stat.S_IFREG}:
                msg = (
                    f"{path}: is a link, a folder or a device, and an export replaces plain files only; remove it or choose another folder"
                )
                raise ExportError(msg)
            if _kind(path) is not None and (name, file) not in owned:
                msg = f"{path}: was not written by an export (its manifest does not list it); move it away or choose another folder"
                raise ExportError(msg)


def claim(manifest: Path, made: Iterable[Made], *, empty: Mapping[str, Any]) -> None:
    """Have the manifest on disk list the files that are about to be written, so that a later export knows them after a crash.

    What it says of the data stays as it is; `empty` is the manifest where there is none yet. Nothing is written where all are listed.

    Raises:
        OSError: the disk failed.
    """
    found = _read(manifest)
    owned = _owned(found)
    new = {(each.name, file) for each in made for file in each.files} - owned
    if new:
        claimed = sorted(f"{name}/{file}" for name, file in owned | new)
        text = json.dumps({**(found or empty), "claimed": claimed}, indent=2) + "\n"
        replace_file(manifest, text.encode("utf-8", "backslashreplace"))


def write_files(folder: Path, manifest: Path, made: Collection[Made]) -> None:
    """Write the files of the formats into their folders, and remove those of an earlier export that this one does not have.

    Removed is only what the manifest on disk lists. A folder that is left empty goes too; what others put there stays.

    Raises:
        OSError: the disk failed; each file is either the old or the new one.
    """
    for each in made:
        for file, data in each.files.items():
            (folder / each.name).mkdir(exist_ok=True)
            replace_file(folder / each.name / file, data)
    kept = {(each.name, file) for each in made for file in each.files}
    for name, file in sorted(_owned(_read(manifest)) - kept):
        if _kind(folder / name) == stat.S_IFDIR and _kind(folder / name / file) == stat.S_IFREG:
            (folder / name / file).unlink()
            with contextlib.suppress(OSError):
                (folder / name).rmdir()


def _kind(path: Path) -> int | None:
    """The kind of a file as `stat` names it, None where there is nothing."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(manifest: Path) -> dict[str, Any]:
    try:
        found: object = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _owned(manifest: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The files that a manifest lists, by format and name."""
    listed = set(_texts(manifest.get("claimed")))
    formats: object = manifest.get("formats")
    for report in cast("dict[str, object]", formats).values() if isinstance(formats, dict) else ():
        files: object = cast("dict[str, object]", report).get("files") if isinstance(report, dict) else None
        entries = cast("list[object]", files) if isinstance(files, list) else []
        listed |= set(_texts([cast("dict[str, object]", entry).get("path") for entry in entries if isinstance(entry, dict)]))
    return {(name, file) for name, file in _KNOWN if f"{name}/{file}" in listed}


def _texts(value: object) -> Iterator[str]:
    yield from (item for item in cast("list[object]", value if isinstance(value, list) else []) if isinstance(item, str))
