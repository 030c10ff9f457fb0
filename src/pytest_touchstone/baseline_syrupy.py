"""Baseline files as syrupy snapshots: syrupy counts, writes, finds unused and deletes their entries as those of any snapshot file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from syrupy.data import Snapshot, SnapshotCollection, SnapshotCollections
from syrupy.extensions.base import AbstractSyrupyExtension

from pytest_touchstone.baseline import BaselineEntry, entry_name, read_baseline, write_baseline
from pytest_touchstone.errors import BaselineError
from pytest_touchstone.settings import BASELINE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from syrupy.location import PyTestLocation
    from syrupy.types import SnapshotIndex


# All that syrupy has to know of an entry is whether it is to be written; these stand for its text.
AS_IT_IS = "as it was accepted"
OTHERWISE = "not as it was accepted"


class BaselineFiles:
    """The baseline files of one session: what they held when they were first asked for, and what syrupy writes into them in the end.

    `unused` names the entries of a file whose cases are gone; `others_unused` says that files which it does not name have no test left.
    `faults` holds what is wrong with a file that cannot be read, `failed` what could not be written.
    """

    def __init__(self, root: Path) -> None:
        """Read nothing yet; `root` is what paths in messages are relative to."""
        self.root = root
        self.faults: dict[Path, str] = {}
        self.failed: list[str] = []
        self.unused: dict[Path, frozenset[str]] = {}
        self.others_unused = False
        self.locations: dict[str, str] = {}
        self._entries: dict[Path, dict[str, BaselineEntry]] = {}
        self._offered: dict[tuple[Path, str], BaselineEntry] = {}

    def entries(self, path: Path) -> dict[str, BaselineEntry]:
        """The entries of a file by name as they were when it was first asked for; none of a faulty file, which `faults` then explains."""
        if path not in self._entries:
            self._entries[path] = {}
            try:
                self._entries[path] = read_baseline(path, root=self.root)
            except BaselineError as error:
                self.faults[path] = str(error)
        return self._entries[path]

    def offer(self, path: Path, entry: BaselineEntry) -> str:
        """Keep an entry for when syrupy writes it; the result is what to assert: whether it is as it was."""
        if self.entries(path).get(entry.name) == entry:
            return AS_IT_IS
        self._offered[path, entry.name] = entry
        return OTHERWISE

    def store(self, path: Path, names: Iterable[str]) -> None:
        """Put the offered entries of these names into the file, beside the others."""
        self._change(path, lambda entries: {**entries, **{name: self._offered[path, name] for name in names}})

    def remove(self, path: Path, names: Iterable[str]) -> None:
        """Take entries out of the file; a file without any goes."""
        gone = set(names)
        self._change(path, lambda entries: {name: entry for name, entry in entries.items() if name not in gone})

    def _change(self, path: Path, change: Callable[[dict[str, BaselineEntry]], dict[str, BaselineEntry]]) -> None:
        try:
            # Read again: somebody may have changed it since the run began.
            write_baseline(path, change(read_baseline(path, root=self.root)).values())
        except BaselineError as error:
            self.failed += str(error).splitlines()
        except OSError as error:
            self.failed.append(f"{error.filename or path} could not be written ({error.strerror or error})")

    def unused_in(self, folder: Path) -> dict[Path, frozenset[str]]:
        """The entries in a folder whose cases are gone, as far as the run can tell."""
        found = {path: names for path, names in self.unused.items() if path.parent == folder}
        if self.others_unused:
            for path in sorted(folder.glob(f"*.{BASELINE_SUFFIX}")):
                if path not in self.unused:
                    found[path] = frozenset(self.entries(path))
        return {path: names for path, names in found.items() if names}


class BaselineExtension(AbstractSyrupyExtension):
    """Keeps one file for each test module, with one snapshot for each case of each golden test.

    Other files in the folder are none of its business. What it calls discovered, and so may turn out unused, are only entries that the
    run knows to be without a case: syrupy would take the cases that `--llm-limit` leaves out, and those behind `-x`, for gone.
    """

    file_extension = BASELINE_SUFFIX
    files: ClassVar[BaselineFiles]

    @classmethod
    def of(cls, files: BaselineFiles) -> type[BaselineExtension]:
        """The extension that reads and writes through `files`; syrupy wants a class, and makes the instances itself."""
        return type(cls.__name__, (cls,), {"files": files, "__module__": cls.__module__})

    def serialize(self, data: Any, **_: object) -> str:  # noqa: ANN401 - as syrupy's
        """What it is given, which stands for an entry."""
        return str(data)

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        """The entry's name; the index is the case's id."""
        return entry_name(test_location.snapshot_name, str(index))

    @classmethod
    def get_location(cls, *, test_location: PyTestLocation, index: SnapshotIndex) -> str:
        """The file; syrupy asks three times for each entry, and it is the same for a whole module."""
        known = cls.files.locations
        if test_location.filepath not in known:
            known[test_location.filepath] = super().get_location(test_location=test_location, index=index)
        return known[test_location.filepath]

    def discover_snapshots(self, *, test_location: PyTestLocation, ignore_extensions: list[str] | None = None) -> SnapshotCollections:  # noqa: ARG002 - as syrupy's
        """The entries that nobody needs any more."""
        discovered = SnapshotCollections()
        for path, names in self.files.unused_in(Path(self.dirname(test_location=test_location))).items():
            discovered.add(_collection(path, names))
        return discovered

    def read_snapshot_collection(self, *, snapshot_location: str) -> SnapshotCollection:
        """Every entry of a file."""
        path = Path(snapshot_location)
        return _collection(path, self.files.entries(path))

    def read_snapshot_data_from_location(self, *, snapshot_location: str, snapshot_name: str, session_id: str) -> str | None:  # noqa: ARG002 - as syrupy's
        """What stands for one entry, None where there is none."""
        return AS_IT_IS if snapshot_name in self.files.entries(Path(snapshot_location)) else None

    @classmethod
    def write_snapshot_collection(cls, *, snapshot_collection: SnapshotCollection, name_order: dict[str, int] | None = None) -> None:  # noqa: ARG003 - as syrupy's
        """Put entries into their file, which stays sorted by name whatever order syrupy asks for: else it would not merge."""
        cls.files.store(Path(snapshot_collection.location), [snapshot.name for snapshot in snapshot_collection])

    def delete_snapshots(self, *, snapshot_location: str, snapshot_names: set[str]) -> None:
        """Take entries out of their file."""
        self.files.remove(Path(snapshot_location), snapshot_names)


def _collection(path: Path, names: Iterable[str]) -> SnapshotCollection:
    collection = SnapshotCollection(location=str(path))
    for name in sorted(names):
        collection.add(Snapshot(name=name, data=AS_IT_IS))
    return collection
