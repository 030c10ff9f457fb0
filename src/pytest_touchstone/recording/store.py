"""The recording file: `__recordings__/<module>.jsonl` beside the test module, one checked line for each call."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pytest_touchstone.trial import Role

FOLDER = "__recordings__"
FORMAT = "touchstone-recording"
VERSION = 1
HEADER = f'{{"format":"{FORMAT}","version":{VERSION}}}'
MAX_LINE = 128 * 1024 * 1024
MAX_FILE = 1024 * 1024 * 1024

# Response headers that apps read; everything else (cookies, organisation ids, rate limits) is left out.
KEPT_HEADERS = frozenset({"content-type", "retry-after", "location", "request-id", "x-request-id", "apim-request-id", "x-amzn-requestid"})
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1000}")
_CHECKED = re.compile(r'\{"check":"([0-9a-f]{16})",')
_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_CONFLICT = ("<<<<<<< ", "||||||| ", ">>>>>>> ")
_RECORD_AGAIN = "delete the line and record the call again with --llm-record missing"

EntryId = tuple[str, str, int, int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One recorded call.

    (`key`, `test`, `trial`, `occurrence`) is its identity; trials and occurrences count from 1. `at` is when it was recorded
    (UTC, ISO 8601 with microseconds), `latency_s` how long the answer took in seconds, `cost_usd` what it cost then in US dollars, None
    with `cost_reason` where that is not known. `request` is the redacted request, `body` the stored form of the response body.
    An `incomplete` stream was closed by the app before its end. `note` is free text, for recordings written by hand.
    `role` is who asked. `module` is set in journals only: the test module, relative to the rootdir.
    """

    key: str
    test: str
    trial: int
    occurrence: int
    at: str
    request: Mapping[str, JsonValue]
    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, Any]
    incomplete: bool = False
    latency_s: float | None = None
    cost_usd: float | None = None
    cost_reason: str = ""
    note: str = ""
    role: Role = "app"
    module: str | None = None

    @property
    def id(self) -> EntryId:
        """What the entry answers: this request of this test, in this trial, for the n-th time."""
        return self.key, self.test, self.trial, self.occurrence


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that a recording may hold, and a replayed response may carry."""
    named = {name.lower(): value for name, value in headers.items()}
    return {name: named[name] for name in sorted(KEPT_HEADERS & named.keys()) if _HEADER_VALUE.fullmatch(named[name])}


def encode_entry(entry: Entry) -> str:
    """The entry's line, without its line feed."""
    response: dict[str, Any] = {"status": entry.status, "headers": entry.headers, "body": entry.body}
    if entry.incomplete:
        response["incomplete"] = True
    optional = {"module": entry.module, "cost_usd": entry.cost_usd, "cost_reason": entry.cost_reason or None, "note": entry.note or None}
    if entry.role != "app":
        optional["role"] = entry.role
    fields: dict[str, Any] = {
        "test": entry.test,
        "trial": entry.trial,
        "occurrence": entry.occurrence,
        "key": entry.key,
        "at": entry.at,
        "latency_s": entry.latency_s,
        **{name: value for name, value in optional.items() if value is not None},
        "request": entry.request,
        "response": response,
    }
    rest = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    try:
        raw = rest.encode()
    except UnicodeEncodeError:  # lone surrogates can only be written as escapes
        rest = json.dumps(fields, separators=(",", ":"))
        raw = rest.encode()
    return f'{{"check":"{_checksum(raw[1:])}",{rest[1:]}'


def _checksum(rest: bytes) -> str:
    return hashlib.sha256(rest).hexdigest()[:16]


def decode_entry(line: str) -> Entry:
    """The entry of a line.

    Raises:
        ValueError: the line is no entry; the message says why and what to do.
    """
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError):
        msg = f"is cut off or is not JSON; {_RECORD_AGAIN}"
        raise ValueError(msg) from None
    checked = _CHECKED.match(line)
    if not isinstance(fields, dict) or (checked is None and "check" not in fields):
        msg = f"is not an entry of a recording; {_RECORD_AGAIN}"
        raise ValueError(msg)
    if checked is None or _checksum(line[checked.end() :].encode("utf-8", "surrogatepass")) != checked.group(1):
        msg = f"was changed after it was recorded (its checksum does not match); restore it, or {_RECORD_AGAIN}"
        raise ValueError(msg)
    try:
        return _entry(cast("dict[str, Any]", fields))
    except (KeyError, TypeError, RecursionError) as error:
        msg = f"lacks a field or has one of the wrong type ({error}); {_RECORD_AGAIN}"
        raise ValueError(msg) from None


def _entry(fields: dict[str, Any]) -> Entry:
    response = _typed(fields, "response", dict)
    headers = {str(name): str(value) for name, value in _typed(response, "headers", dict).items()}
    at = _typed(fields, "at", str)
    if not _AT.fullmatch(at):
        _wrong("at")
    status = _number(response, "status")
    if not 200 <= status <= 599:
        _wrong("status")
    return Entry(
        key=_typed(fields, "key", str),
        test=_typed(fields, "test", str),
        trial=_number(fields, "trial"),
        occurrence=_number(fields, "occurrence"),
        at=at,
        request=_typed(fields, "request", dict),
        status=status,
        headers=kept_headers(headers),
        body=_typed(response, "body", dict),
        incomplete=response.get("incomplete") is True,
        latency_s=_seconds(fields.get("latency_s"), "latency_s"),
        cost_usd=_seconds(fields.get("cost_usd"), "cost_usd"),
        cost_reason=str(fields.get("cost_reason", "")),
        note=str(fields.get("note", "")),
        role=_role(fields.get("role")),
        module=None if fields.get("module") is None else _typed(fields, "module", str),
    )


def _role(value: object) -> Role:
    return "judge" if value == "judge" else "teacher" if value == "teacher" else "app"


def _typed(fields: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - the kind that was asked for
    value = fields[name]
    if not isinstance(value, kind):
        _wrong(name)
    return value


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _wrong(name)
    return value


def _wrong(name: str) -> NoReturn:
    raise TypeError(name)


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        _wrong(name)
    return float(value)


def recording_path(module: Path) -> Path:
    """Where the recordings of a test module are kept.

    >>> recording_path(Path("evals/test_support.py")).as_posix()
    'evals/__recordings__/test_support.jsonl'
    """
    return module.parent / FOLDER / f"{module.stem}.jsonl"


def module_of(recording: Path) -> Path:
    """The test module whose recordings a file keeps.

    >>> module_of(Path("evals/__recordings__/test_support.jsonl")).as_posix()
    'evals/test_support.py'
    """
    return recording.parent.parent / f"{recording.stem}.py"


def module_inside(rootdir: Path, module: str) -> Path:
    """The absolute path of a test module named in a journal.

    Raises:
        RecordingError: it is no Python module inside the rootdir, or its recordings would be written outside of it.
    """
    pure = PurePosixPath(module)
    root = rootdir.resolve()
    path = root.joinpath(*pure.parts) if not pure.is_absolute() else Path(pure)
    legal = not pure.is_absolute() and ".." not in pure.parts and pure.suffix == ".py" and "\0" not in module
    if not legal or not path.parent.is_dir() or not recording_path(path).parent.resolve().is_relative_to(root):
        msg = f"a journal names the test module {module!r}, which is not a module in a folder inside {root}; its calls are not stored"
        raise RecordingError(msg)
    return path


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a recording file holds: its entries, each with its line (counted from 1), and a message for every fault."""

    entries: tuple[tuple[int, Entry], ...] = ()
    faults: tuple[str, ...] = ()


def scan_recording(path: Path, *, root: Path | None = None) -> Scan:
    """Read a recording file, faulty or not; paths in messages are relative to `root` where the file is inside."""
    shown = shown_path(path, root)
    try:
        if path.stat().st_size > MAX_FILE:
            return Scan(faults=(f"{shown}: is larger than {MAX_FILE} bytes; delete it and record again with --llm-record all",))
        data = path.read_bytes()
    except OSError as error:
        return Scan(faults=(f"{shown}: cannot be read ({error.strerror}); make it readable, or delete it and record again",))
    faults: list[str] = []
    return Scan(entries=tuple(_entries(shown, data, faults)), faults=tuple(faults))


def shown_path(path: Path, root: Path | None) -> str:
    """The path as messages show it: relative to `root` where it lies inside."""
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.as_posix()


def read_recording(path: Path, *, root: Path | None = None) -> tuple[Entry, ...]:
    """The entries of a recording file, none where there is no file; of entries with one identity, the newest.

    Raises:
        RecordingError: the file cannot be used; the message has a line for every fault, with paths relative to `root`.
    """
    if not os.path.lexists(path):
        return ()
    scan = scan_recording(path, root=root)
    if scan.faults:
        raise RecordingError("\n".join(scan.faults))
    return newest(entry for _, entry in scan.entries)


def newest(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """One entry for each identity: the one recorded last, the later one of equals."""
    chosen: dict[EntryId, Entry] = {}
    for entry in entries:
        if entry.id not in chosen or chosen[entry.id].at <= entry.at:
            chosen[entry.id] = entry
    return tuple(chosen.values())


def _entries(path: str, data: bytes, faults: list[str]) -> Iterator[tuple[int, Entry]]:
    lines = data.split(b"\n")
    if (problem := _header_problem(lines[0])) is not None:
        faults.append(f"{path}:1: {problem}")
        if "newer" in problem:
            return
    for number, raw in enumerate(lines, start=1):
        if not raw.strip() or raw.rstrip(b"\r") == HEADER.encode() or (number == 1 and problem is not None):
            continue  # a merge=union of two new files repeats the header
        try:
            yield number, decode_entry(_line_text(raw))
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")


def _header_problem(line: bytes) -> str | None:
    if line.rstrip(b"\r") == HEADER.encode():
        return None
    if line.startswith(b"<<<<<<< "):
        return _line_problem(line.decode("utf-8", "replace"))
    try:
        header: Any = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if isinstance(header, dict) and cast("Any", header).get("format") == FORMAT:
        version = cast("Any", header).get("version")
        if isinstance(version, int) and version > VERSION:
            return f"was written by a newer pytest-touchstone (format {version}; this one reads {VERSION}); upgrade pytest-touchstone"
    return f"is not the first line of a recording ({HEADER}); restore the file, or delete it and record again with --llm-record all"


def _line_problem(text: str) -> str | None:
    if text.startswith(_CONFLICT) or text.strip() == "=======":
        return "is a merge conflict marker; keep the lines of both sides, delete the markers (or set merge=union in .gitattributes)"
    return None


def _line_text(raw: bytes) -> str:
    if len(raw) > MAX_LINE:
        msg = f"is longer than {MAX_LINE} bytes; {_RECORD_AGAIN}"
        raise ValueError(msg)
    try:
        text = raw.rstrip(b"\r").decode()
    except UnicodeDecodeError:
        msg = f"is not UTF-8; {_RECORD_AGAIN}"
        raise ValueError(msg) from None
    if (problem := _line_problem(text)) is not None:
        raise ValueError(problem)
    return text


def write_recording(path: Path, entries: Iterable[Entry]) -> bool:
    """Replace a recording file as a whole, sorted; False where it already held exactly that.

    The new file is complete on disk before it takes the old one's name.
    """
    ordered = sorted(newest(entries), key=lambda entry: (entry.test, entry.trial, entry.key, entry.occurrence))
    text = "".join(f"{line}\n" for line in (HEADER, *(encode_entry(replace(entry, module=None)) for entry in ordered)))
    data = text.encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    path.parent.mkdir(exist_ok=True)
    replace_file(path, data)
    return True
