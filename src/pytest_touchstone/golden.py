"""Golden sources to cases: files, globs, saved datasets, callables and lists become validated, selected cases, or every fault at once."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from pytest_touchstone.cases import (
    MAX_DEPTH,
    MAX_INT_BITS,
    SHOWN_CHARACTERS,
    Case,
    Problem,
    default_split,
    describe,
    did_you_mean,
    problems_of,
    shown,
    shown_name,
)
from pytest_touchstone.errors import Fault, GoldenError
from pytest_touchstone.golden_arrow import is_dataset, read_dataset, read_parquet
from pytest_touchstone.golden_formats import READERS, Defaults, Item, Record
from pytest_touchstone.golden_paths import MAGIC, Places, no_dataset, unreadable
from pytest_touchstone.settings import SPLITS, Split

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

MAX_FAULTS = 100
MARKER = "@pytest.mark.golden"
FIELDS = tuple(name for name in Case.model_fields if name != "source")
_KNOWN = frozenset(FIELDS)
ENDINGS = {**READERS, ".parquet": read_parquet}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which field of a record holds what, to use an existing data set as it is; dotted paths reach into objects (`question.text`).

    Where any of them is given, fields of a record that a case does not know go into its `metadata`, as does a field that is
    called `input`, `expected`, `id`, `split` or `group` where another one is named here.
    """

    input: str | None = None
    expected: str | None = None
    id: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What golden sources hold: the selected `cases` in file order, and every `holdout` case where `complete` asked for them."""

    cases: tuple[Case, ...]
    holdout: tuple[Case, ...] = ()


_NO_FIELDS = Fields()


def load(
    sources: Sequence[object],
    *,
    base: Path,
    rootdir: Path,
    fields: Fields = _NO_FIELDS,
    where: Callable[[Case], object] | None = None,
    split: Split | None = None,
    limit: int | None = None,
    complete: bool = False,
    today: date | None = None,
) -> Golden:
    """Read every source, in order, and select: first by `where`, then by `split`, then the first `limit`.

    A source is a path or glob (relative to the folder `base`; `**` goes into subfolders; results are sorted), a folder saved by
    Hugging Face `datasets`, a callable without arguments that returns an iterable of dicts or Cases, one dict or Case, or a
    list of any of these. Formats go by the file's ending:

    - `.yaml`, `.yml` (at most 16 MiB), `.json` (at most 256 MiB): a list of cases, or an object with `cases` and `defaults`
      (case fields for every case that lacks them; `metadata` is merged key by key). In YAML only `true` and `false` are
      booleans; `no`, dates and numbers with leading zeros stay text.
    - `.jsonl`, `.ndjson`: one case per line. `.csv`, `.tsv`: a header row, then one case per row; an empty cell is absent,
      `tags` are separated by `,` or `;`, `must_pass` is true or false, `metadata` and `quarantine` are JSON objects, and every
      other cell is text.
      `.parquet`: one case per row. These are streamed and may be any size; without `where`, `split` and `complete` reading
      stops at `limit`, and what comes after it is not checked.

    null is absent everywhere. A case without id is called `case-` and ten hex digits of its content hash; ids are unique within
    one load. A case without split has the stable default of its group, or else of its id, except in the parts of a saved
    DatasetDict: parts other than `train` are holdout. The cases of a group that one load reads have one split. `Case.source` is
    `file:line` (the file relative to `rootdir` where it lies inside), `file row n`, or `name[index]`.
    A file inside `rootdir` must not lead out of it through a symbolic link. A quarantine that is over is a fault; `today` is what it
    is held against, without it the local date.

    Raises:
        GoldenError: at least one source or case is at fault; lists all faults, of which at most 100 in full.

    >>> from pathlib import Path
    >>> golden = load([[{"id": "gift", "input": "Can I swap it?"}]], base=Path(), rootdir=Path())
    >>> golden.cases[0].source
    'list[0]'
    """
    _check_arguments(sources, fields, where, split, limit)
    reading = _Reading(base=base, rootdir=rootdir, fields=fields, today=today or datetime.now(UTC).astimezone().date())
    early = limit if where is None and split is None and not complete else None
    with closing(reading.cases(sources)) as cases:
        read = list(islice(cases, early))
    reading.faults.raise_any()
    selected = read if where is None else _filtered(read, where)
    selected = [case for case in selected if split is None or case.split == split]
    holdout = tuple(case for case in read if case.split == "holdout") if complete else ()
    return Golden(cases=tuple(selected[:limit]), holdout=holdout)


class _Faults:
    """The faults of one load: all are counted, the first 100 are kept."""

    def __init__(self) -> None:
        self._kept: list[Fault] = []
        self._more = 0
        self._next: Fault | None = None
        self.cause: BaseException | None = None

    def add(self, fault: Fault) -> None:
        if len(self._kept) < MAX_FAULTS:
            self._kept.append(fault)
        else:
            self._next = self._next or fault
            self._more += 1

    def raise_any(self) -> None:
        if self._next is not None:
            problem = f"{self._more:,} more fault{'s' if self._more > 1 else ''} from here on"
            self._kept.append(Fault(file=self._next.file, line=self._next.line, problem=problem, fix="correct those above first"))
        if self._kept:
            raise GoldenError(self._kept) from self.cause


def _check_arguments(sources: Sequence[object], fields: Fields, where: object, split: object, limit: object) -> None:
    faults = _Faults()

    def fault(field: str | None, problem: str, fix: str) -> None:
        faults.add(Fault(file=MARKER, field=field, problem=problem, fix=fix))

    if not sources:
        fault(None, "names no source", "give a file, a glob, a callable or a list of cases")
    for name, path in asdict(fields).items():
        if path is not None and not (isinstance(path, str) and path):
            fault(name, f"is {describe(path)}", "give the name of a field")
    if where is not None and (not callable(where) or inspect.iscoroutinefunction(where)):
        fault(
            "where", "is an async function" if callable(where) else f"is {describe(where)}", "give a function of a case that returns a bool"
        )
    if split is not None and split not in SPLITS:
        fault("split", f"is {describe(split)}", "use 'train' or 'holdout'")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        fault("limit", f"is {describe(limit)}", "give a whole number from 0 up")
    faults.raise_any()


def _filtered(cases: list[Case], where: Callable[[Case], object]) -> list[Case]:
    kept: list[Case] = []
    for case in cases:
        try:
            if where(case):
                kept.append(case)
        except Exception as error:
            fix = "correct the function; it is called with each Case"
            raise GoldenError(
                [Fault(file=case.source, case_id=case.id, field="where", problem=f"{_name(where)} raised {_raised(error)}", fix=fix)]
            ) from error
    return kept


class _Reading:
    """One pass over all sources: knows where files may lie, which ids have been seen, and what day it is."""

    def __init__(self, *, base: Path, rootdir: Path, fields: Fields, today: date) -> None:
        self.faults = _Faults()
        self._places = Places(base=base, rootdir=rootdir)
        self._mapping = {name: path for name, path in asdict(fields).items() if path is not None}
        self._seen: dict[str, tuple[str, str | None]] = {}
        self._groups: dict[str, Case] = {}
        self._today = today

    def cases(self, sources: Iterable[object]) -> Generator[Case, None, None]:
        """Every valid case; faults are gathered on the way."""
        for index, source in enumerate(sources):
            yield from self._source(source, f"argument[{index}]")

    def _source(self, source: object, place: str) -> Iterator[Case]:
        if isinstance(source, (str, os.PathLike)):
            yield from self._path(cast("str | os.PathLike[str]", source))
        elif isinstance(source, (Mapping, Case)):
            yield from self._checked([Record(place=place, data=cast("object", source))], place)
        elif callable(source):
            yield from self._checked(self._called(source), _name(source))
        elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
            yield from self._listed(cast("Iterable[object]", source))
        else:
            fix = "give a path, a callable, a dict, a Case, or a list of these"
            self.faults.add(Fault(file=MARKER, field=place, problem=f"is {describe(source)}", fix=fix))

    # Python objects

    def _listed(self, source: Iterable[object]) -> Iterator[Case]:
        name = type(source).__name__
        used_up = "; an iterator can be read only once, so give a list or a function" if isinstance(source, Iterator) else ""
        index = -1
        for index, item in enumerate(self._safely(source, name)):
            if isinstance(item, Fault):
                self.faults.add(item)
            else:
                yield from self._source(item, f"{name}[{index}]")
        if index < 0:
            self.faults.add(Fault(file=name, problem=f"holds no cases{used_up}", fix="add a case"))

    def _called(self, function: Callable[..., object]) -> Iterator[Item]:
        name = _name(function)
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is reported with the other faults
            yield self._raised(name, error)
            return
        returned = describe(result)
        if inspect.iscoroutine(result):
            result.close()
            yield Fault(file=name, problem="is an async function", fix="give a plain one, which may call asyncio.run")
        elif not isinstance(result, Iterable) or isinstance(result, (str, bytes, Mapping, Case)):
            yield Fault(file=name, problem=f"returned {returned}", fix="return a list of dicts or Cases")
        else:
            for index, item in enumerate(self._safely(cast("Iterable[object]", result), name)):
                yield item if isinstance(item, Fault) else Record(place=f"{name}[{index}]", data=item)

    def _safely(self, source: Iterable[object], name: str) -> Iterator[object]:
        try:
            yield from source
        except Exception as error:  # noqa: BLE001 - as above
            yield self._raised(name, error)

    def _raised(self, name: str, error: Exception) -> Fault:
        self.faults.cause = self.faults.cause or error
        return Fault(file=name, problem=f"raised {_raised(error)}", fix="correct the function; it returns the cases")

    # Files

    def _path(self, source: str | os.PathLike[str]) -> Iterator[Case]:
        text = os.fsdecode(source)
        place = self._places.shown_path(text)
        try:
            paths = self._places.expanded(text)
        except (OSError, ValueError) as error:  # pathlib refuses some globs, such as '**x'
            self.faults.add(Fault(file=place, problem=f"is no usable path: {_raised(error)}", fix="correct the path"))
            return
        if not paths:
            what = "matches no file" if MAGIC & set(text) else "does not exist"
            self.faults.add(Fault(file=place, problem=what, fix=f"correct the path; it is relative to {str(self._places.base)!r}"))
        for path in paths:
            name = place if len(paths) == 1 and path == self._places.base / text else self._places.shown_path(path)
            yield from self._checked(self._file(path, name), name)

    def _file(self, path: Path, place: str) -> Iterator[Item]:
        try:
            folder = path.is_dir()
            fault = self._places.leaves_root(path, place) if folder else self._places.guard(path, place)
            if fault is not None:
                yield fault
            elif folder:
                yield from read_dataset(path, place, self._places.guard) if is_dataset(path) else [no_dataset(place)]
            elif (reader := ENDINGS.get(path.suffix.lower())) is None:
                problem = f"has the ending {shown(path.suffix)}, which is no golden format" if path.suffix else "has no ending"
                yield Fault(file=place, problem=problem, fix=f"use one of {', '.join(ENDINGS)}")
            else:
                yield from reader(path, place)
        except OSError as error:
            yield unreadable(place, error)

    # Records to cases

    def _checked(self, items: Iterable[Item], place: str) -> Iterator[Case]:
        defaults: dict[str, object] = {}
        empty = True
        for item in items:
            if isinstance(item, Defaults):
                defaults = self._checked_defaults(item)
                continue
            empty = False
            if isinstance(item, Fault):
                self.faults.add(item)
            elif (case := self._case(item, defaults)) is not None:
                yield case
        if empty:
            self.faults.add(Fault(file=place, problem="holds no cases", fix="add a case, or leave it out"))

    def _checked_defaults(self, item: Defaults) -> dict[str, object]:
        given = cast("dict[str, object]", item.data)
        known = {name: value for name, value in given.items() if name in FIELDS and name != "id" and value is not None}
        for name in [name for name in given if name not in known]:
            if name in {"id", "source"}:
                self._fault(item, Problem(at=name, problem="cannot be shared by all cases", fix="remove it from 'defaults'"))
            elif given[name] is not None or name not in FIELDS:
                self._fault(item, _unknown_field(name))
        case, problems = _validated({"id": "defaults", "input": "", **known})
        for problem in [*problems, *self._over(case)]:
            self._fault(item, problem)
            known.pop(_root(problem.at), None)
        return known

    def _case(self, record: Record, defaults: dict[str, object]) -> Case | None:
        if isinstance(record.data, Case):
            case = record.data
            source = case.source if case.source != "<python>" else _source(record)
            for problem in self._over(case):
                self._fault(record, problem, case.id)
            return self._unique(case.model_copy(update={"source": source}), record, derived=False)
        data = _as_dict(record.data)
        if data is None:
            self._fault(record, Problem(problem=f"is {describe(record.data)}", fix="give an object with the fields of a case"))
            return None
        if odd := [name for name in data if not isinstance(name, str)]:
            self._fault(record, Problem(problem=f"has the field name {describe(odd[0])}", fix="use text as field names"))
            return None
        return self._from_fields(record, cast("dict[str, object]", data), defaults)

    def _from_fields(self, record: Record, data: dict[str, object], defaults: dict[str, object]) -> Case | None:
        own, unknown = self._mapped(data) if self._mapping else _as_named(data)
        if defaults:
            own = _with_defaults(own, defaults)
        case_id = own.get("id")
        if isinstance(case_id, int) and not isinstance(case_id, bool) and case_id.bit_length() <= MAX_INT_BITS:
            case_id = own["id"] = str(case_id)
        derived = case_id is None
        case, problems = _validated({**own, "id": "derived" if derived else case_id, "source": _source(record)})
        problems = [*(_unknown_field(name) for name in unknown), *(self._in_file(problem, data) for problem in problems), *self._over(case)]
        for problem in problems:
            self._fault(record, problem, case_id)
        if case is not None and derived:
            case_id = f"case-{case.content_hash[:10]}"
            case = case.model_copy(update={"id": case_id, "split": own.get("split") or default_split(case.group or case_id)})
        if case is not None:
            case = self._unique(case, record, derived=derived)
        return None if problems else case

    def _mapped(self, data: dict[str, object]) -> tuple[dict[str, object], list[str]]:
        """The fields of a case by the mapping, everything else as metadata."""
        sources = set(self._mapping.values())
        direct = [name for name in FIELDS if name not in self._mapping and name not in sources]
        found = {name: data.get(name) for name in direct} | {name: _reach(data, path) for name, path in self._mapping.items()}
        own = {name: value for name, value in found.items() if value is not None}
        taken = {*direct, *sources}
        metadata = own.get("metadata", {})
        if isinstance(metadata, Mapping):
            others = {name: _jsonable(value) for name, value in data.items() if name not in taken}
            own["metadata"] = {**others, **cast("Mapping[str, object]", metadata)}
        return own, []

    def _in_file(self, problem: Problem, data: Mapping[str, object]) -> Problem:
        """A problem in the words of a mapped data set: its own field names."""
        root = _root(problem.at)
        path = self._mapping.get(root)
        if path is None:
            return problem
        if problem.problem == "is missing" and problem.at == root:
            close = did_you_mean(path, data)
            hint = f"did you mean {shown(close)}?" if close else f"it has {', '.join(shown(name) for name in list(data)[:10]) or 'none'}"
            return Problem(at=root, problem=f"has no field {shown(path)} to take it from", fix=f"correct {root}=...; {hint}")
        return Problem(at=path + problem.at.removeprefix(root), problem=problem.problem, fix=problem.fix)

    def _over(self, case: Case | None) -> list[Problem]:
        if case is None or case.quarantine is None or not case.quarantine.is_over(self._today):
            return []
        fix = "mend the case, remove the field, or give it a new date"
        return [Problem(at="quarantine", problem=f"its quarantine ended on {case.quarantine.until}", fix=fix)]

    def _unique(self, case: Case, record: Record, *, derived: bool) -> Case | None:
        content = case.content_hash if derived else None
        if case.id not in self._seen:
            self._seen[case.id] = case.source, content
            return case if self._keeps_together(case, record) else None
        other, other_content = self._seen[case.id]
        if content is not None and content == other_content:
            problem = Problem(problem=f"has no id and the same content as {other}", fix="remove one of the two, or give both an id")
        else:
            problem = Problem(at="id", problem=f"is already the id of {other}", fix="give each case an id of its own")
        self._fault(record, problem, case.id)
        return None

    def _keeps_together(self, case: Case, record: Record) -> bool:
        if case.group is None:
            return True
        first = self._groups.setdefault(case.group, case)
        if first.split != case.split:
            problem = f"is {shown(case.group)}, which is {first.split} at {first.source}; this case is {case.split}"
            fix = "give all cases of a group the same split, or this one another group"
            self._fault(record, Problem(at="group", problem=problem, fix=fix), case.id)
        return first.split == case.split

    def _fault(self, record: Record, problem: Problem, case_id: object = None) -> None:
        name = case_id[:SHOWN_CHARACTERS] if isinstance(case_id, str) else None
        line = record.lines.get(_root(problem.at), record.line)
        self.faults.add(
            Fault(file=record.place, line=line, case_id=name, field=problem.at or None, problem=problem.problem, fix=problem.fix)
        )


def _as_dict(data: object) -> dict[object, object] | None:
    return dict(cast("Mapping[object, object]", data)) if isinstance(data, Mapping) else None


def _validated(fields: dict[str, object]) -> tuple[Case | None, list[Problem]]:
    try:
        return Case.model_validate(fields), []
    except ValidationError as error:
        return None, problems_of(error)


def _as_named(data: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    unknown = [] if data.keys() <= _KNOWN else [name for name in data if name not in _KNOWN]
    return {name: value for name, value in data.items() if value is not None and name in _KNOWN}, unknown


def _with_defaults(own: dict[str, object], defaults: dict[str, object]) -> dict[str, object]:
    merged = {**defaults, **own}
    mine, shared = own.get("metadata"), defaults.get("metadata")
    if isinstance(mine, Mapping) and isinstance(shared, Mapping):
        merged["metadata"] = {**cast("Mapping[str, object]", shared), **cast("Mapping[str, object]", mine)}
    return merged


def _unknown_field(name: str) -> Problem:
    at = shown_name(name)
    if name == "source":
        return Problem(at=at, problem="is set by the loader", fix="put it under 'metadata'")
    close = did_you_mean(name, FIELDS)
    if close:
        return Problem(at=at, problem="is no field of a case", fix=f"did you mean {close!r}?")
    return Problem(
        at=at, problem="is no field of a case", fix="put it under 'metadata', or map fields of a data set as it is with input='...'"
    )


def _reach(data: Mapping[str, object], path: str) -> object:
    """What a dotted path leads to, None where it ends early; a field whose name is the whole path wins."""
    if path in data:
        return data[path]
    value: object = data
    for step in path.split("."):
        fields = _as_dict(value)
        if fields is None:
            return None
        value = fields.get(step)
    return value


def _jsonable(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - whatever a data set holds
    """A foreign value as metadata can hold it: dates and the like as text, no number for NaN, no bytes."""
    if value is None or isinstance(value, (str, bool, int)) or depth > MAX_DEPTH:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _jsonable(item, depth + 1) for name, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item, depth + 1) for item in cast("Iterable[object]", value)]
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _root(at: str) -> str:
    return at.partition("[")[0].partition(".")[0]


def _source(record: Record) -> str:
    return record.place if record.line is None else f"{record.place}:{record.line}"


def _name(function: object) -> str:
    function = getattr(function, "func", function)  # functools.partial
    name = getattr(function, "__qualname__", None)
    return name.rpartition(".<locals>.")[2] if isinstance(name, str) else type(function).__name__


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"
