"""The recordings of a run: which entry answers a request, and what to say when none does."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.store import FOLDER, Entry, EntryId, read_recording, recording_path, shown_path
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pytest_touchstone.recording.key import Asked

MAX_DIFF_LINES = 60
MAX_DIFF_LINE = 400
MAX_COMPARED = 1000
_SKIPPED_FOLDERS = frozenset({"node_modules", "build", "dist", "venv", "__pycache__", "site-packages"})
_WORD = re.compile(r"\w+")


class _Shelf:
    """Entries by what they are looked up by, each with the recording file that holds it."""

    def __init__(self, entries: Iterable[tuple[Path, Entry]]) -> None:
        self.exact: dict[EntryId, Entry] = {}
        self.any_test: dict[tuple[str, int, int], tuple[Path, Entry]] = {}
        self.by_request: dict[str, list[Entry]] = {}
        self.by_url: dict[JsonValue, list[Entry]] = {}
        for path, entry in entries:
            self.exact[entry.id] = entry
            self.any_test.setdefault((entry.key, entry.trial, entry.occurrence), (path, entry))
            self.by_request.setdefault(entry.key, []).append(entry)
            self.by_url.setdefault(entry.request.get("url"), []).append(entry)


class Library:
    """The recordings under a rootdir as they are on disk when they are first asked for; what is recorded later does not change them.

    `saved` are calls of killed sessions, still in their journals.
    """

    def __init__(self, rootdir: Path, saved: Iterable[Entry] = ()) -> None:
        """Read nothing yet."""
        self._rootdir = rootdir
        self._saved: dict[str, list[Entry]] = {}
        for entry in saved:
            self._saved.setdefault(entry.module or "", []).append(entry)
        self._lock = threading.RLock()
        self._shelves: dict[Path, _Shelf] = {}
        self._others: _Shelf | None = None
        self._words: dict[int, frozenset[str]] = {}
        self._asked: defaultdict[Path, set[EntryId]] = defaultdict(set)
        self._lent: defaultdict[Path, set[EntryId]] = defaultdict(set)

    def load(self, module: Path) -> None:
        """Read the recordings of a test module.

        Raises:
            RecordingError: its file cannot be used.
        """
        self._shelf(module)

    def find(self, module: Path, key: str, test: str, trial: int, occurrence: int) -> Entry | None:
        """The answer to this request: of this test, of any test of the module, of any module; always of the same trial and occurrence."""
        shelf = self._shelf(module)
        exact = shelf.exact.get((key, test, trial, occurrence))
        if exact is not None:
            return exact
        found = shelf.any_test.get((key, trial, occurrence)) or self._elsewhere().any_test.get((key, trial, occurrence))
        if found is None:
            return None
        path, entry = found
        self._lent[path].add(entry.id)
        return entry

    def note(self, module: Path, entry_id: EntryId) -> None:
        """Remember that a test of the module asked for this, whatever became of it."""
        self._asked[module].add(entry_id)

    def asked(self) -> dict[str, set[EntryId]]:
        """What the entries of each recording file (relative to the rootdir) were asked for so far, by tests of any module."""
        found = {self._relative(path): set(ids) for path, ids in self._lent.items()}
        for module, ids in self._asked.items():
            found.setdefault(self._relative(recording_path(module)), set()).update(ids)
        return found

    def explain_miss(self, module: Path, asked: Asked, test: str, trial: int, occurrence: int) -> str:
        """The message for a request that nothing answers: what was asked, the nearest recording, and how to record it."""
        relative = self._relative(module)
        node = relative if test.startswith("fixture:") else f"{relative}::{test}"
        headline = f"no recording answers a call of {relative}::{test} (trial {trial}): {asked.method} {asked.url}"
        command = f"record it: pytest --llm-eval --llm-record missing {shlex.quote(node)}"
        return "\n".join([headline, *self._nearest(module, asked, test, trial, occurrence), command])

    def _shelf(self, module: Path) -> _Shelf:
        with self._lock:
            if module not in self._shelves:
                path = recording_path(module)
                entries = read_recording(path, root=self._rootdir)
                known = {entry.id for entry in entries}
                saved = [entry for entry in self._saved.get(self._relative(module), ()) if entry.id not in known]
                ordered = sorted([*entries, *saved], key=lambda entry: entry.test)
                self._shelves[module] = _Shelf((path, entry) for entry in ordered)
            return self._shelves[module]

    def _relative(self, path: Path) -> str:
        return shown_path(path, self._rootdir)

    def _elsewhere(self) -> _Shelf:
        """The answers of all modules. Files that cannot be used are left out here: their own module reports them."""
        with self._lock:
            if self._others is None:
                entries: list[tuple[Path, Entry]] = []
                for path in sorted(recording_files(self._rootdir)):
                    try:
                        entries += [(path, entry) for entry in read_recording(path)]
                    except RecordingError:
                        continue
                for module, saved in self._saved.items():
                    entries += [(recording_path(self._rootdir / module), entry) for entry in saved]
                self._others = _Shelf(entries)
            return self._others

    def _nearest(self, module: Path, asked: Asked, test: str, trial: int, occurrence: int) -> list[str]:
        shelves = (self._shelf(module), self._elsewhere())
        same = next((shelf.by_request[asked.key] for shelf in shelves if asked.key in shelf.by_request), ())
        if same:
            trials = sorted({entry.trial for entry in same})
            times = max(entry.occurrence for entry in same)
            known = f"this very request is recorded for trial {_listed(trials)}, at most {times} time{'s' if times > 1 else ''} in a trial"
            return [f"{known}; this is trial {trial}, time {occurrence}"]
        nearest = next((self._closest(asked, test, shelf.by_url[asked.url]) for shelf in shelves if asked.url in shelf.by_url), None)
        if nearest is None:
            return ["there is no recording of this URL"]
        headline = f"the nearest recording is of {visible(nearest.test)}, from {nearest.at[:10]}:"
        return [headline, *_diff(_pretty(nearest.request), _pretty(asked.stored()))]

    def _closest(self, asked: Asked, test: str, entries: Sequence[Entry]) -> Entry:
        """Of entries of this URL the one that shares most words with the request: among those of its own test, if there are any."""
        words = _words(asked.stored())
        best, highest = entries[0], (-1.0, "")
        for entry in [entry for entry in entries if entry.test == test] or entries[:MAX_COMPARED]:
            others = self._words_of(entry)
            most, least = max(len(words), len(others), 1), min(len(words), len(others))
            if least / most >= highest[0]:  # what can be shared at most, before it is counted
                shared = len(words & others)
                likeness = (shared / max(1, len(words) + len(others) - shared), entry.at)
                best, highest = (entry, likeness) if likeness > highest else (best, highest)
        return best

    def _words_of(self, entry: Entry) -> frozenset[str]:
        if id(entry) not in self._words:
            self._words[id(entry)] = _words(entry.request)
        return self._words[id(entry)]


def recording_files(rootdir: Path) -> Iterator[Path]:
    """Every recording file below a folder; folders of other people's code are not searched."""
    for folder, names, files in os.walk(rootdir):
        names[:] = [name for name in names if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        if "pyvenv.cfg" in files:
            names.clear()
        elif FOLDER in names:
            names.remove(FOLDER)
            yield from (rootdir / folder / FOLDER).glob("*.jsonl")


def _listed(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _words(request: Mapping[str, JsonValue]) -> frozenset[str]:
    return frozenset(_WORD.findall(json.dumps(request)))


def _pretty(request: Mapping[str, JsonValue]) -> list[str]:
    # ASCII only: control and bidirectional characters of a prompt must not act on a terminal.
    return json.dumps(request, indent=1, sort_keys=True).splitlines()


def _diff(recorded: list[str], asked: list[str]) -> list[str]:
    lines = [line[:MAX_DIFF_LINE] for line in difflib.unified_diff(recorded, asked, "recorded", "asked", lineterm="", n=1)]
    left_out = len(lines) - MAX_DIFF_LINES
    return lines if left_out <= 0 else [*lines[:MAX_DIFF_LINES], f"... {left_out} more lines"]
