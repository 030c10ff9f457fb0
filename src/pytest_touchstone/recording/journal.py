"""Journals: what keeps a paid answer when the process is killed, and how journals become recordings.

Each process appends to a journal of its own, one write for each call, and holds a lock on it for life. A journal whose lock is free
belongs to nobody any more, so it can be read and merged; there is no state to clean up after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.store import (
    MAX_FILE,
    Entry,
    EntryId,
    decode_entry,
    encode_entry,
    module_inside,
    newest,
    read_recording,
    recording_path,
    write_recording,
)
from pytest_touchstone.recording.unchanged import settle
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from pytest_touchstone.recording.redact import Redactor

SUFFIX = ".jsonl"


class Journal:
    """The journal of this process, opened at the first call."""

    def __init__(self, folder: Path) -> None:
        """Write nothing yet."""
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def write(self, line: str) -> None:
        """Append one line, in one write.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        data = f"{line}\n".encode()
        with self._lock:
            descriptor = self._open()
            if os.write(descriptor, data) != len(data):
                # A torn line must not swallow the next one.
                os.write(descriptor, b"\n")
                msg = "the disk took only part of a journal line"
                raise OSError(msg)

    def close(self) -> None:
        """Give the lock back, also where a forked child still holds the file."""
        with self._lock:
            if self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self._descriptor


@dataclass(frozen=True, kw_only=True)
class JournalContent:
    """What a free journal holds: its calls, what was refused when they were made, and notes on lines that were dropped."""

    entries: tuple[Entry, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...]


def refusal_line(message: str) -> str:
    """The journal line that passes on why a call was not stored."""
    return json.dumps({"refused": message})


def read_free_journals(folder: Path, *, redactor: Redactor) -> tuple[Entry, ...]:
    """The calls of journals that nobody writes any more, without touching the files."""
    entries: list[Entry] = []
    for path in _journals(folder):
        with _free(path, fcntl.LOCK_SH) as content:
            if content is not None:
                entries += [entry for entry in content.entries if not redactor.leaks(encode_entry(entry))]
    return newest(entries)


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What became of the journals: recording files written with their number of new calls, refusals, and notes on what was dropped.

    Paths are relative to the rootdir. `salvaged` counts the calls among them that an earlier, killed session had made. `asked` are the
    identities under which each file now answers what this session asked.
    """

    written: tuple[tuple[str, int], ...] = ()
    salvaged: int = 0
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    asked: Mapping[str, frozenset[EntryId]] = field(default_factory=dict[str, "frozenset[EntryId]"], compare=False)

    def lines(self) -> list[str]:
        """One line for each thing to tell; none where nothing happened."""
        told = [f"{count} {'call' if count == 1 else 'calls'} recorded in {path}" for path, count in self.written]
        if self.salvaged:
            told.append(f"{self.salvaged} of them saved from a session that was killed")
        return [visible(line) for line in (*told, *self.notes, *(f"not stored: {message}" for message in self.refused))]


@dataclass(kw_only=True)
class _Merging:
    started: str
    written: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    refused: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    asked: dict[str, frozenset[EntryId]] = field(default_factory=dict[str, "frozenset[EntryId]"])
    salvaged: int = 0


def merge_journals(folder: Path, *, rootdir: Path, redactor: Redactor, started: str) -> MergeReport:
    """Move the calls of every free journal into the recording files of their test modules, under one lock.

    A journal is deleted once all of its calls are stored or refused for good; where a recording file cannot be read it stays, and the next
    merge tries again. Calls made before `started` (UTC, ISO 8601) are reported as salvaged.
    """
    if not any(_journals(folder)):
        return MergeReport()
    merging = _Merging(started=started)
    with merge_lock(folder), contextlib.ExitStack() as stack:
        free: list[tuple[Path, JournalContent]] = []
        for path in _journals(folder):
            content = stack.enter_context(_free(path, fcntl.LOCK_EX))
            if content is not None:
                free.append((path, content))
        entries = [entry for _, content in free for entry in content.entries]
        merging.notes += [note for _, content in free for note in content.notes]
        merging.refused += [message for _, content in free for message in content.refused]
        kept: set[str] = set()
        for module in sorted({entry.module or "" for entry in entries}):
            if not _merge_module(module, [entry for entry in entries if entry.module == module], rootdir, redactor, merging):
                kept.add(module)
        for path, content in free:
            if not any(entry.module in kept for entry in content.entries):
                path.unlink(missing_ok=True)
    return MergeReport(
        written=tuple(merging.written),
        salvaged=merging.salvaged,
        refused=tuple(dict.fromkeys(merging.refused)),
        notes=tuple(merging.notes),
        asked=merging.asked,
    )


def _merge_module(module: str, entries: list[Entry], rootdir: Path, redactor: Redactor, merging: _Merging) -> bool:
    """Store the calls of one module; False where they must stay in their journals."""
    try:
        path = recording_path(module_inside(rootdir, module))
    except RecordingError as error:
        merging.refused.append(str(error))
        return True
    try:
        root = rootdir.resolve()
        old = read_recording(path, root=root)
        fresh = newest(_clean(entries, module, redactor, merging))
        settled = settle(fresh, {entry.id: entry for entry in old}, since=merging.started)
        relative = path.relative_to(root).as_posix()
        merging.asked[relative] = settled.ids
        if settled.news and write_recording(path, [*old, *settled.news]):
            merging.salvaged += sum(entry.at < merging.started for entry in settled.news)
            merging.written.append((relative, len(settled.news)))
    except (RecordingError, OSError) as error:
        merging.refused.append(f"{len(entries)} calls of {module} stay in the journal, because the recording cannot be used:\n{error}")
        return False
    return True


def _clean(entries: list[Entry], module: str, redactor: Redactor, merging: _Merging) -> Iterator[Entry]:
    """The last gate: secrets that were learnt only after the call are taken out, and what still holds one is refused."""
    for entry in entries:
        clean = entry
        if redactor.leaks(encode_entry(entry)):
            body = cast("dict[str, Any]", redactor.redact_json(dict(entry.body)))
            request = cast("dict[str, Any]", redactor.redact_json(dict(entry.request)))
            headers = {name: redactor.redact(value) for name, value in entry.headers.items()}
            clean = replace(entry, body=body, request=request, headers=headers)
        if redactor.leaks(encode_entry(clean)):
            merging.refused.append(f"a call of {redactor.redact(entry.test)} in {module}: its line would hold a secret")
        else:
            yield clean


def _journals(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file() and not path.is_symlink())


@contextlib.contextmanager
def merge_lock(folder: Path) -> Generator[None]:
    """Held by the one process that may change recording files; `folder` is that of the journals.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "merge.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _free(path: Path, lock: int) -> Generator[JournalContent | None]:
    """The content of a journal, locked meanwhile; None where its writer lives, or somebody else was faster."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        if os.fstat(descriptor).st_nlink == 0:
            yield None
            return
        yield _content(path, descriptor)
    finally:
        os.close(descriptor)


def _content(path: Path, descriptor: int) -> JournalContent:
    entries: list[Entry] = []
    refused: list[str] = []
    notes: list[str] = []
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = file.read(MAX_FILE)
    *lines, torn = data.split(b"\n")
    if torn:
        notes.append(f"the last line of the journal {path.name} was cut off when its session was killed; that call is lost")
    for number, raw in enumerate(lines, start=1):
        if not raw:
            continue
        try:
            text = raw.decode()
            message = _refusal(text)
            if message is None:
                entries.append(_journal_entry(text))
            else:
                refused.append(message)
        except ValueError:
            notes.append(f"line {number} of the journal {path.name} is damaged; that call is lost")
    return JournalContent(entries=tuple(entries), refused=tuple(refused), notes=tuple(notes))


def _refusal(text: str) -> str | None:
    if not text.startswith('{"refused"'):
        return None
    message = json.loads(text).get("refused")
    return message if isinstance(message, str) else None


def _journal_entry(text: str) -> Entry:
    entry = decode_entry(text)
    if entry.module is None:
        msg = "names no module"
        raise ValueError(msg)
    return entry
