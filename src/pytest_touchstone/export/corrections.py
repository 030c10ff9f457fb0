"""Corrections: what a person says that a failed case should have answered, and the list of cases that still need one.

Two files, both a JSON object a line. `corrections.jsonl` holds what was accepted and is committed. `needs_correction.jsonl` is written by
an export, to be filled in by hand or with `touchstone correct`; what is filled in there moves to the first file and is gone from the
second, so what the second holds is what is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, ValidationError

from pytest_touchstone.cases import canonical_json, describe, did_you_mean, shown, shown_name
from pytest_touchstone.errors import ExportError, Fault
from pytest_touchstone.export.example import Example
from pytest_touchstone.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

CORRECTIONS_FILE: Final = "corrections.jsonl"
NEEDS_FILE: Final = "needs_correction.jsonl"
MAX_FAULTS: Final = 100

Key = tuple[str, str]
State = Literal["current", "stale", "holdout", "unknown", "elsewhere"]


def _check_correction(value: object) -> object:
    if not isinstance(value, (str, dict, list)):
        msg = f"is {describe(value)}"
        raise ValueError(msg)  # noqa: TRY004 - what is in a file is a value
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        msg = "holds half a character"
        raise ValueError(msg) from None
    return cast("object", value)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    suite: str
    id: str
    content_hash: str
    correction: Annotated[JsonValue, BeforeValidator(_check_correction)]

    @property
    def key(self) -> Key:
        """The case: its suite and its id."""
        return self.suite, self.id


class Correction(_Line):
    """What a case should have answered: text, or an object or list where the app's output is one.

    `content_hash` is that of the case that was corrected: a case that says something else by now needs another correction.
    """


class Needed(_Line):
    """A failed case that needs a correction, with what a person has to know to give one; `correction` is empty until then.

    `why` says why the output failed, and why the case has no other target. `rubric` is what a judge looks for, empty where there is none.
    """

    source: str
    why: str
    rubric: str = ""
    input: JsonValue
    output: str

    @property
    def is_filled(self) -> bool:
        """Whether somebody has given the correction."""
        return is_given(self.correction)


@dataclass(frozen=True, kw_only=True)
class Uncorrected:
    """What a failed train case without a target brings to the list; plain data, from this process or another.

    `example` is the one that a right answer would complete: its completion is the output that failed. `tried` is the `digest` of the
    correction that was tried and did not pass, `taught` a word on what a teacher made of it; each is empty where there was none.
    """

    example: Example
    input: JsonValue
    rubric: str = ""
    why: str
    tried: str = ""
    taught: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "example": self.example.to_dict(),
            "input": self.input,
            "rubric": self.rubric,
            "why": self.why,
            "tried": self.tried,
            "taught": self.taught,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Uncorrected:
        """The inverse of `to_dict`; the example is not asked to be whole."""
        example: dict[str, Any] = data["example"]
        sequences = ("prompt", "completion", "tools", "tags", "checks")
        fields: dict[str, Any] = {name: tuple(value) if name in sequences else value for name, value in example.items()}
        return cls(**{**data, "example": Example(**fields)})

    def shown(self) -> Example:
        """All that the list would show of the case, as one example, so that the holdout guard sees it."""
        said = [{"role": "assistant", "content": text} for text in (self.why, self.rubric) if text]
        asked = self.input if isinstance(self.input, str) else json.dumps(self.input, ensure_ascii=False)
        return Example(**{**vars(self.example), "completion": (*self.example.completion, {"role": "user", "content": asked}, *said)})


def is_given(correction: JsonValue) -> bool:
    """Whether a correction says something.

    >>> is_given(" "), is_given({"team": "billing"})
    (False, True)
    """
    return bool(correction.strip() if isinstance(correction, str) else correction)


def digest(correction: JsonValue) -> str:
    """The sha256 (hex) of a correction."""
    return hashlib.sha256(canonical_json(correction).encode("utf-8", "surrogatepass")).hexdigest()


def whole(text: str) -> str:
    """The text with half characters, which no file can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def named(suite: str, case_id: str, clean: Callable[[str], str]) -> Key:
    """Suite and id as these files and the ledger have them: redacted by `clean`, with half characters as escapes."""
    return whole(clean(suite)), whole(clean(case_id))


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """The accepted corrections of a file, with the line of each."""

    file: str
    entries: Mapping[Key, tuple[int, Correction]]

    @classmethod
    def read(cls, path: Path) -> Corrections:
        """The corrections of a file; none where there is no file.

        Raises:
            ExportError: lines of it cannot be used; says where and why, all at once.
            OSError: the disk failed.
        """
        entries: dict[Key, tuple[int, Correction]] = {}
        faults: list[Fault] = []
        for line, entry in _read(path, Correction, faults):
            known = entries.get(entry.key)
            if known is not None and known[1] != entry:
                problem = f"is corrected a second time (line {known[0]} does it, too), and not in the same way"
                faults.append(Fault(file=str(path), line=line, case_id=entry.id, problem=problem, fix="keep one of the two lines"))
            elif not is_given(entry.correction):
                fault = Fault(
                    file=str(path), line=line, case_id=entry.id, field="correction", problem="is empty", fix="write it, or remove the line"
                )
                faults.append(fault)
            elif known is None:
                entries[entry.key] = line, entry
        _raise(faults)
        return cls(file=str(path), entries=entries)

    def of(self, key: Key, content_hash: str) -> JsonValue:
        """The correction of a case as it stands, None where there is none."""
        found = self.entries.get(key)
        return found[1].correction if found is not None and found[1].content_hash == content_hash else None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A correction, and how it stands to the cases of a run; `hint` is the name that may have been meant."""

    state: State
    line: int
    suite: str
    case_id: str
    hint: str = ""

    def __str__(self) -> str:
        """As a message names it."""
        return f"line {self.line} {self.suite} {self.case_id}" + (f" (did you mean {self.hint}?)" if self.hint else "")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What the corrections are held against.

    `suites` are those of the tests that were collected. `cases` are all cases of each test function (a suite without its parameters), by
    id: the content hash, and whether the case is holdout. `holdout` are the content hashes of the holdout cases of all sources, and
    `holdout_ids` their ids.
    """

    suites: Collection[str]
    cases: Mapping[str, Mapping[str, tuple[str, bool]]]
    holdout: Collection[str] = frozenset()
    holdout_ids: Collection[str] = frozenset()


def sort_out(corrections: Corrections, collected: Collected) -> list[Placed]:
    """How each correction stands to the cases of a run.

    `current`: it can be used. `stale`: its case says something else by now. `holdout`: its case is holdout, or it was made for one that is,
    whatever id it is filed under. `unknown`: its suite has no such case. `elsewhere`: its suite was not collected.
    """
    return [_placed(line, entry, collected) for line, entry in corrections.entries.values()]


def _placed(line: int, entry: Correction, collected: Collected) -> Placed:
    cases = collected.cases.get(entry.suite.partition("[")[0], {})
    case = cases.get(entry.id)
    is_here = entry.suite in collected.suites
    state: State = "current"
    hint: str | None = None
    if entry.content_hash in collected.holdout or (is_here and (entry.id in collected.holdout_ids if case is None else case[1])):
        state = "holdout"
    elif not is_here:
        state, hint = "elsewhere", did_you_mean(entry.suite, collected.suites)
    elif case is None:
        state, hint = "unknown", did_you_mean(entry.id, cases)
    elif case[0] != entry.content_hash:
        state = "stale"
    return Placed(state=state, line=line, suite=entry.suite, case_id=entry.id, hint=hint or "")


def read_needed(path: Path) -> dict[Key, Needed]:
    """The cases that a list names; none where there is no list.

    Raises:
        ExportError: lines of it cannot be used; says where and why, all at once.
        OSError: the disk failed.
    """
    faults: list[Fault] = []
    needed: dict[Key, Needed] = {}
    for line, entry in _read(path, Needed, faults):
        if entry.key in needed:
            faults.append(
                Fault(file=str(path), line=line, case_id=entry.id, problem="is named a second time", fix="remove one of the lines")
            )
        needed[entry.key] = entry
    _raise(faults)
    return needed


def accept_filled(folder: Path, path: Path) -> int:
    """Move every correction that was filled into the list of `folder` to the file of accepted ones, `path`; returns how many.

    Raises:
        ExportError: one of the two files cannot be used; both are as they were.
        OSError: the disk failed; each correction is in one of the files, or in both.
    """
    filled = [entry for entry in read_needed(folder / NEEDS_FILE).values() if entry.is_filled]
    if not filled:
        Corrections.read(path)
        return 0
    accept(path, [Correction(**entry.model_dump(include=set(Correction.model_fields))) for entry in filled])
    take_off(folder, filled)
    return len(filled)


def accept(path: Path, corrections: Iterable[Correction]) -> None:
    """Add corrections to the file of accepted ones; one for a case that has one takes its place.

    The file is replaced whole, and nobody else's correction of the same moment is lost.

    Raises:
        ExportError: the file cannot be used as it is; it stays.
        OSError: the disk failed; the file is the old one or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        known = {key: entry for key, (_, entry) in Corrections.read(path).entries.items()}
        known |= {entry.key: entry for entry in corrections}
        lines = (canonical_json(known[key].model_dump()).translate(_ESCAPES) for key in sorted(known))
        replace_file(path, b"".join(line.encode() + b"\n" for line in lines))


def take_off(folder: Path, done: Iterable[Needed]) -> None:
    """Take cases off the list of `folder`; what somebody has written there since stays."""
    off = {entry.key: entry for entry in done}
    with _locked(folder):
        listed = read_needed(folder / NEEDS_FILE)
        _write_needed(folder, [entry for key, entry in listed.items() if off.get(key) != entry])


def write_needed(folder: Path, needed: Iterable[Needed]) -> None:
    """Make these cases the list of `folder`, sorted; where nothing is needed, there is no file."""
    with _locked(folder):
        _write_needed(folder, needed)


def _write_needed(folder: Path, needed: Iterable[Needed]) -> None:
    lines = {entry.key: _needed_line(entry) for entry in needed}
    if lines:
        replace_file(folder / NEEDS_FILE, b"".join(lines[key] for key in sorted(lines)))
    else:
        (folder / NEEDS_FILE).unlink(missing_ok=True)


# What an editor or a terminal may break a line at or act on, and JSON leaves as it is.
_ESCAPES: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_FIRST: Final = ("id", "suite", "source", "content_hash", "why", "rubric", "input", "output")


def _needed_line(entry: Needed) -> bytes:
    fields = entry.model_dump()
    ordered = {name: fields[name] for name in (*_FIRST, "correction")}
    return json.dumps(ordered, ensure_ascii=False).translate(_ESCAPES).encode() + b"\n"


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Inside, no other process changes the folder's files of corrections."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


L = TypeVar("L", bound=_Line)


def _read(path: Path, kind: type[L], faults: list[Fault]) -> Iterable[tuple[int, L]]:
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = _fields(line)
            yield number, kind.model_validate(fields)
        except _NotALine as error:
            fix = "write one JSON object a line; in a merge, keep the lines of both sides"
            faults.append(Fault(file=str(path), line=number, problem=str(error), fix=fix))
        except ValidationError as error:
            case_id = fields.get("id")
            for details in error.errors(include_url=False):
                fault = _fault(details, kind)
                name = case_id if isinstance(case_id, str) else None
                faults.append(Fault(file=str(path), line=number, case_id=name, **fault))
        if len(faults) >= MAX_FAULTS:
            return


class _NotALine(ValueError):
    """The line is no JSON object that says each thing once."""


def _fields(line: bytes) -> dict[str, Any]:
    try:
        value: object = json.loads(line, object_pairs_hook=_unique)
    except _NotALine:
        raise
    except (ValueError, RecursionError):
        problem = "is no JSON"
        raise _NotALine(problem) from None
    if not isinstance(value, dict):
        problem = f"is {describe(value)}"
        raise _NotALine(problem)
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        problem = f"says {shown_name(twice)} twice"
        raise _NotALine(problem)
    return value


def _fault(details: ErrorDetails, kind: type[_Line]) -> dict[str, Any]:
    name, value = details["loc"][0], details["input"]
    field = shown_name(name) if isinstance(name, str) else shown(name)
    match details["type"]:
        case "missing":
            return {"field": field, "problem": "is missing", "fix": "add it, as an export or touchstone correct writes it"}
        case "extra_forbidden":
            close = did_you_mean(str(name), kind.model_fields)
            fix = f"did you mean {close!r}?" if close else f"keep only {', '.join(kind.model_fields)}"
            return {"field": field, "problem": "is no field here", "fix": fix}
        case "value_error":
            return {"field": field, "problem": str(details["ctx"]["error"]), "fix": "give text, an object or a list"}
        case _:
            return {"field": field, "problem": f"is {describe(value)}", "fix": "give text (quote it)"}


def _raise(faults: Sequence[Fault]) -> None:
    if faults:
        more = [f"{faults[0].file}: and more faults"] if len(faults) >= MAX_FAULTS else []
        raise ExportError("\n".join([*map(str, faults[:MAX_FAULTS]), *more]))
