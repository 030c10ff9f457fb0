"""What a run asked for: the evidence by which recordings that no test needs any more are dropped, and by nothing else.

An entry is dropped only where its test would have asked for it again: the module ran in full, the test passed, and this trial was run.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.files import replace_file
from pytest_touchstone.recording.store import module_of, read_recording, shown_path, write_recording
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_touchstone.recording.store import Entry, EntryId

FILE_NAME = "used.jsonl"
FORMAT = "touchstone-used"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ModuleRun:
    """How one test module ran.

    `module` is its path relative to the rootdir. `partial` says why it did not run in full, empty where it did. `tests` are its golden
    tests (node ids without the module), `unfinished` those of them whose body may have ended before its last call, and `trials` (>= 1)
    how often each was run.
    """

    module: str
    partial: str = ""
    tests: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()
    trials: int = 1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run did and asked for.

    `began` and `ended` are seconds since the epoch. `selected` says why the run was not one of the whole project, empty where it was.
    `asked` holds, for each recording file (relative to the rootdir), the digests of the entries that were asked for.
    """

    began: float = 0.0
    ended: float = 0.0
    selected: str = ""
    modules: tuple[ModuleRun, ...] = ()
    asked: Mapping[str, frozenset[str]] = field(default_factory=dict[str, "frozenset[str]"])

    @property
    def not_whole(self) -> str:
        """Why the run may have missed a test somewhere, empty where it cannot."""
        partial = next((f"{run.module} did not run in full ({run.partial})" for run in self.modules if run.partial), "")
        return self.selected or partial or ("" if self.modules else "it ran no golden test")


def with_asked(evidence: Evidence, more: Mapping[str, Iterable[str]]) -> Evidence:
    """The evidence with more digests of entries that were asked for."""
    asked = {
        recording: evidence.asked.get(recording, frozenset()) | frozenset(more.get(recording, ())) for recording in {*evidence.asked, *more}
    }
    return replace(evidence, asked=asked)


def digest(entry_id: EntryId) -> str:
    """A short name of an entry's identity.

    >>> digest(("k", "test_a", 1, 1))
    '75e30ab31472b594'
    """
    return hashlib.sha256(json.dumps(entry_id).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """The entries of a recording file by what becomes of them: `kept` counts those that were not asked for and stay, by the reason."""

    needed: tuple[Entry, ...]
    dropped: tuple[Entry, ...]
    kept: Mapping[str, int]


def sort_out(entries: Iterable[Entry], recording: str, evidence: Evidence, run: ModuleRun | None) -> Sorted:
    """Which entries of a recording file a run shows to be needed; `run` is that of its test module, None where there is no such module."""
    asked = evidence.asked.get(recording, frozenset())
    needed: list[Entry] = []
    dropped: list[Entry] = []
    kept: Counter[str] = Counter()
    for entry in entries:
        why = "" if digest(entry.id) in asked else _why_kept(entry, evidence, run)
        if digest(entry.id) not in asked and not why:
            dropped.append(entry)
        else:
            needed.append(entry)
            kept.update([why] if why else [])
    return Sorted(needed=tuple(needed), dropped=tuple(dropped), kept=dict(kept))


def _why_kept(entry: Entry, evidence: Evidence, run: ModuleRun | None) -> str:
    if run is None:
        return evidence.not_whole and f"the run was not a whole one: {evidence.not_whole}"
    if run.partial:
        return f"{run.module} did not run in full: {run.partial}"
    if entry.trial > run.trials:
        return f"only {run.trials} {'trial of each case was' if run.trials == 1 else 'trials of each case were'} run"
    if entry.test in run.tests:
        return "their tests did not pass, and may have stopped before they asked" if entry.test in run.unfinished else ""
    if run.unfinished:
        return "not every test passed, and those that did not may ask for them"
    return evidence.not_whole and f"they may belong to a test that moved, and the run was not a whole one: {evidence.not_whole}"


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What became of one recording file (relative to the rootdir): entries dropped, and entries not asked for that stay, by the reason."""

    recording: str
    dropped: tuple[Entry, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict[str, int])

    def lines(self, *, done: bool = True) -> list[str]:
        """What to tell of it; nothing where every entry was asked for."""
        told: list[str] = []
        if self.dropped:
            verb = "dropped from" if done else "would be dropped from"
            told.append(f"{_recordings(len(self.dropped))} that no test asked for {verb} {self.recording}")
        told += [
            f"{_recordings(count)} that no test asked for {'stays' if count == 1 else 'stay'} in {self.recording}: {why}"
            for why, count in self.kept.items()
        ]
        return [visible(line) for line in told]


def _recordings(count: int) -> str:
    return f"{count} {'recording' if count == 1 else 'recordings'}"


def prune(recording: Path, rootdir: Path, evidence: Evidence, *, dry_run: bool = False) -> Pruned:
    """Drop what a run shows to be needed by no test; a file of which nothing is left is deleted.

    The caller holds the lock of `merge_lock`.

    Raises:
        RecordingError: the file cannot be used.
        OSError: it cannot be written.
    """
    name = shown_path(recording, rootdir)
    sorted_out = sort_out(read_recording(recording, root=rootdir), name, evidence, _run_of(recording, rootdir, evidence))
    if sorted_out.dropped and not dry_run:
        if sorted_out.needed:
            write_recording(recording, sorted_out.needed)
        else:
            recording.unlink()
    return Pruned(recording=name, dropped=sorted_out.dropped, kept=sorted_out.kept)


def refusal(recording: Path, rootdir: Path, evidence: Evidence) -> str:
    """Why a run says nothing about a recording file, and what to run; empty where it does say something."""
    run, module = _run_of(recording, rootdir, evidence), module_of(recording)
    name, path = shown_path(recording, rootdir), shown_path(module, rootdir)
    command = f"pytest --llm-eval {shlex.quote(path)}"
    if run is None and module.exists():
        return f"{name}: the last run did not run {path}; run {command}"
    if run is None and evidence.not_whole:
        why = f"its test module is gone, and the last run was not a whole one, so another may need it ({evidence.not_whole})"
        return f"{name}: {why}; run pytest --llm-eval in {rootdir}"
    if run is not None and run.partial:
        return f"{name}: {path} did not run in full in the last run ({run.partial}); run {command}"
    if recording.stat().st_mtime > evidence.ended:
        return f"{name}: it changed after the last run; run {command if run else 'pytest --llm-eval'}"
    if run is not None and (not module.exists() or module.stat().st_mtime > evidence.began):
        return f"{name}: {path} changed after the last run began; run {command}"
    return ""


def _run_of(recording: Path, rootdir: Path, evidence: Evidence) -> ModuleRun | None:
    module = shown_path(module_of(recording), rootdir)
    return next((run for run in evidence.modules if run.module == module), None)


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Keep the evidence of a run in place of that of the run before.

    Raises:
        OSError: the file cannot be written.
    """
    head = {"format": FORMAT, "version": VERSION, "began": evidence.began, "ended": evidence.ended, "selected": evidence.selected}
    modules = [
        {
            "module": run.module,
            "partial": run.partial,
            "tests": sorted(run.tests),
            "unfinished": sorted(run.unfinished),
            "trials": run.trials,
        }
        for run in evidence.modules
    ]
    asked = [{"recording": recording, "asked": sorted(ids)} for recording, ids in sorted(evidence.asked.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(f"{json.dumps(line)}\n" for line in (head, *modules, *asked)).encode())


def read_evidence(path: Path) -> Evidence:
    """The evidence of the last run.

    Raises:
        RecordingError: there is none, or it cannot be used.
    """
    try:
        head, *lines = [cast("dict[str, Any]", json.loads(line)) for line in path.read_bytes().splitlines()]
        if (head["format"], head["version"]) != (FORMAT, VERSION):
            raise _unusable(path)
        return Evidence(
            began=float(head["began"]),
            ended=float(head["ended"]),
            selected=str(head["selected"]),
            modules=tuple(_module_run(line) for line in lines if "module" in line),
            asked={str(line["recording"]): frozenset(map(str, line["asked"])) for line in lines if "recording" in line},
        )
    except FileNotFoundError:
        msg = f"{path}: no run of the tests has left word here of what it asked for; run pytest --llm-eval first"
        raise RecordingError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); make it readable, or run pytest --llm-eval again"
        raise RecordingError(msg) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(path) from error


def _unusable(path: Path) -> RecordingError:
    return RecordingError(f"{path}: is damaged, or from another version of pytest-touchstone; run pytest --llm-eval again")


def _module_run(line: dict[str, Any]) -> ModuleRun:
    return ModuleRun(
        module=str(line["module"]),
        partial=str(line["partial"]),
        tests=frozenset(map(str, line["tests"])),
        unfinished=frozenset(map(str, line["unfinished"])),
        trials=int(line["trials"]),
    )
