"""The recordings of a run: which entry answers a request, and what to say when none does."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import threading
from typing import TYPE_CHECKING

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.store import FOLDER, Entry, read_recording, recording_path, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pytest_touchstone.recording.key import Asked

MAX_DIFF_LINES = 60
MAX_DIFF_LINE = 400
_SKIPPED_FOLDERS = frozenset({"node_modules", "build", "dist", "venv", "__pycache__", "site-packages"})
_WORD = re.compile(r"\w+")


class _Shelf:
    """The entries of one test module."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self.exact = {entry.id: entry for entry in self.entries}
        self.by_request: dict[str, list[Entry]] = {}
        self.any_test: dict[tuple[str, int, int], Entry] = {}
        for entry in sorted(self.entries, key=lambda entry: entry.test):
            self.by_request.setdefault(entry.key, []).append(entry)
            self.any_test.setdefault((entry.key, entry.trial, entry.occurrence), entry)


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
        self._others: dict[tuple[str, int, int], Entry] | None = None
        self._other_entries: list[Entry] = []

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
        found = exact or shelf.any_test.get((key, trial, occurrence))
        return found or self._elsewhere().get((key, trial, occurrence))

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
                entries = read_recording(recording_path(module))
                known = {entry.id for entry in entries}
                saved = [entry for entry in self._saved.get(self._relative(module), ()) if entry.id not in known]
                self._shelves[module] = _Shelf([*entries, *saved])
            return self._shelves[module]

    def _relative(self, module: Path) -> str:
        return module.relative_to(self._rootdir).as_posix() if module.is_relative_to(self._rootdir) else module.as_posix()

    def _elsewhere(self) -> Mapping[tuple[str, int, int], Entry]:
        """The answers of all modules. Files that cannot be used are left out here: their own module reports them."""
        with self._lock:
            if self._others is None:
                for path in sorted(_recording_files(self._rootdir)):
                    try:
                        self._other_entries += read_recording(path)
                    except RecordingError:
                        continue
                self._other_entries += [entry for entries in self._saved.values() for entry in entries]
                self._others = {}
                for entry in self._other_entries:
                    self._others.setdefault((entry.key, entry.trial, entry.occurrence), entry)
            return self._others

    def _nearest(self, module: Path, asked: Asked, test: str, trial: int, occurrence: int) -> list[str]:
        shelf = self._shelf(module)
        self._elsewhere()
        same = shelf.by_request.get(asked.key) or [entry for entry in self._other_entries if entry.key == asked.key]
        if same:
            trials = sorted({entry.trial for entry in same})
            times = max(entry.occurrence for entry in same)
            known = f"this very request is recorded for trial {_listed(trials)}, at most {times} time{'s' if times > 1 else ''} in a trial"
            return [f"{known}; this is trial {trial}, time {occurrence}"]
        nearest = _closest(asked, test, shelf.entries) or _closest(asked, test, self._other_entries)
        if nearest is None:
            return ["there is no recording of this URL"]
        headline = f"the nearest recording is of {visible(nearest.test)}, from {nearest.at[:10]}:"
        return [headline, *_diff(_pretty(nearest.request), _pretty(asked.stored()))]


def _recording_files(rootdir: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(rootdir):
        names[:] = [name for name in names if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        if "pyvenv.cfg" in files:
            names.clear()
        elif FOLDER in names:
            names.remove(FOLDER)
            yield from (rootdir / folder / FOLDER).glob("*.jsonl")


def _listed(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _closest(asked: Asked, test: str, entries: Iterable[Entry]) -> Entry | None:
    """The entry of the same URL that shares most words with the request; of equals, one of the same test."""
    words = _words(asked.stored())

    def likeness(entry: Entry) -> tuple[float, bool, str]:
        others = _words(entry.request)
        return len(words & others) / max(1, len(words | others)), entry.test == test, entry.at

    candidates = [entry for entry in entries if entry.request.get("url") == asked.url]
    return max(candidates, key=likeness, default=None)


def _words(request: Mapping[str, JsonValue]) -> set[str]:
    return set(_WORD.findall(json.dumps(request)))


def _pretty(request: Mapping[str, JsonValue]) -> list[str]:
    # ASCII only: control and bidirectional characters of a prompt must not act on a terminal.
    return json.dumps(request, indent=1, sort_keys=True).splitlines()


def _diff(recorded: list[str], asked: list[str]) -> list[str]:
    lines = [line[:MAX_DIFF_LINE] for line in difflib.unified_diff(recorded, asked, "recorded", "asked", lineterm="", n=1)]
    left_out = len(lines) - MAX_DIFF_LINES
    return lines if left_out <= 0 else [*lines[:MAX_DIFF_LINES], f"... {left_out} more lines"]
