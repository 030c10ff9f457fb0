"""Golden files to records: each reader yields the records of one file with their lines, and a fault for whatever it cannot read.

Files are data from anywhere: nothing in them is executed, sizes and nesting are bounded, and no reader raises anything but OSError.
"""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, cast

from pytest_touchstone.cases import describe, did_you_mean, shown
from pytest_touchstone.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pytest_touchstone.golden_yaml import Lines

MIB = 2**20
MAX_YAML_BYTES = 16 * MIB  # a YAML tree takes about a hundred times its file in memory
MAX_JSON_BYTES = 256 * MIB
MAX_LINE_BYTES = 16 * MIB  # of JSONL, CSV and TSV, which are streamed and may be any size
_JSON_CELLS = ("metadata", "quarantine")  # of CSV and TSV


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One record as a source holds it, unchecked.

    `place` is the file as shown, with the row or index where the source has no lines; `line` counts from 1;
    `lines` are the lines of its fields, where known.
    """

    place: str
    line: int | None = None
    data: object
    lines: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults(Record):
    """Case fields for the records that follow it in the same source and lack them."""


Item: TypeAlias = Record | Fault


# --- JSON Lines, CSV, TSV: streamed line by line ---


def _jsonl(path: Path, place: str) -> Iterator[Item]:
    parser = _Json()
    for line in _lines(path, place):
        if isinstance(line, Fault):
            yield line
            continue
        number, text = line
        if text.strip(" \t\r\n"):
            try:
                data = parser.decoder.decode(text)
            except (ValueError, RecursionError) as error:
                parser.notes.clear()
                problem, _, column = _json_problem(error)
                at = f" (column {column})" if column else ""
                yield Fault(file=place, line=number, problem=f"is not JSON: {problem}{at}", fix="write one JSON object per line")
            else:
                yield from parser.faults(place, number)
                yield Record(place=place, line=number, data=data)


def _lines(path: Path, place: str) -> Iterator[tuple[int, str] | Fault]:
    offset = number = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                yield Fault(file=place, line=number, problem="is a line of more than 16 MiB", fix="write one record per line")
                return
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                yield _not_utf8(place, number, offset + error.start, raw[error.start])
            else:
                yield number, text.removeprefix("\ufeff") if number == 1 else text
            offset += len(raw)


def _not_utf8(place: str, line: int, offset: int, byte: int) -> Fault:
    return Fault(file=place, line=line, problem=f"is not UTF-8 at byte {offset} (0x{byte:02x})", fix="save the file as UTF-8")


def _csv(path: Path, place: str) -> Iterator[Item]:
    yield from _table(path, place, ",")


def _tsv(path: Path, place: str) -> Iterator[Item]:
    yield from _table(path, place, "\t")


def _table(path: Path, place: str, delimiter: str) -> Iterator[Item]:
    faults: list[Fault] = []

    def texts() -> Iterator[str]:
        for line in _lines(path, place):
            if isinstance(line, Fault):
                faults.append(line)
                return
            yield line[1]

    rows = csv.reader(texts(), delimiter=delimiter, strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(rows, list[str]())]
        twice = sorted({name for name in header if header.count(name) > 1})
        problem, fix = "is the name of two columns", "give each column its own"
        faults += [Fault(file=place, line=1, field=shown(name), problem=problem, fix=fix) for name in twice]
        if faults:  # without a trustworthy header every row would be wrong
            yield from faults
            return
        line = rows.line_num + 1
        for row in rows:
            if row:
                yield from _row(header, row, place, line)
            line = rows.line_num + 1
    except csv.Error as error:
        yield Fault(file=place, line=line, problem=f"is not valid CSV: {error}", fix=_csv_fix(str(error)))
        return
    yield from faults


def _csv_fix(error: str) -> str:
    return "use JSONL for texts this long" if "field limit" in error else "quote cells that hold quotes, delimiters or line breaks"


def _row(header: list[str], row: list[str], place: str, line: int) -> Iterator[Item]:
    if len(row) != len(header):
        problem = f"has {len(row)} cells where the header has {len(header)}"
        yield Fault(file=place, line=line, problem=problem, fix="quote cells that hold the delimiter, and leave none out")
        return
    data: dict[str, object] = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    if isinstance(tags := data.get("tags"), str):
        data["tags"] = [tag.strip() for tag in re.split("[,;]", tags) if tag.strip()]
    if isinstance(must_pass := data.get("must_pass"), str):
        data["must_pass"] = {"true": True, "false": False}.get(must_pass.strip().lower(), must_pass)
    for name in _JSON_CELLS:
        if isinstance(cell := data.get(name), str):
            parser = _Json()
            try:
                data[name] = parser.decoder.decode(cell)
            except (ValueError, RecursionError) as error:
                problem = f"is not JSON: {_json_problem(error)[0]}"
                yield Fault(file=place, line=line, case_id=row_id(data), field=name, problem=problem, fix="write a JSON object")
                del data[name]
            yield from parser.faults(place, line)
    yield Record(place=place, line=line, data=data)


def row_id(data: Mapping[str, object]) -> str | None:
    """The `id` of an unchecked record, cut to a length that fits a message, None where it has none."""
    case_id = data.get("id")
    return case_id[:80] if isinstance(case_id, str) else None


# --- JSON and YAML: whole documents ---


def _json(path: Path, place: str) -> Iterator[Item]:
    text = read_text(path, place, MAX_JSON_BYTES, "JSON")
    if isinstance(text, Fault):
        yield text
        return
    if not text.strip(" \t\r\n"):
        return
    document = _JsonDocument(text, place)
    try:
        root = document.read()
    except (ValueError, RecursionError) as error:
        problem, line, column = _json_problem(error)
        problem += f" (column {column})" if column else ""
        fault = Fault(file=place, line=line or document.line, problem=f"is not JSON: {problem}", fix="correct the syntax")
        yield from (*document.faults, fault)
        return
    yield from _in_line_order(document.faults, _document(place, root, document.lines))


def _yaml(path: Path, place: str) -> Iterator[Item]:
    text = read_text(path, place, MAX_YAML_BYTES, "YAML")
    if isinstance(text, Fault):
        yield text
        return
    from pytest_touchstone.golden_yaml import YamlTree  # PyYAML takes its time to import

    tree = YamlTree(place)
    root = tree.read(text)
    yield from tree.faults if tree.broken else _in_line_order(tree.faults, _document(place, root, tree.lines))


def read_text(path: Path, place: str, limit: int, name: str) -> str | Fault:
    """The text of a file of at most `limit` bytes, a byte order mark removed; a fault where it is larger or not UTF-8."""
    with path.open("rb") as file:
        raw = file.read(limit + 1) if path.stat().st_size <= limit else None
    if raw is None or len(raw) > limit:
        problem = f"is larger than the {limit // MIB} MiB that a {name} file may have"
        return Fault(file=place, problem=problem, fix="use JSONL (one case per line), which is streamed")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return _not_utf8(place, raw.count(b"\n", 0, error.start) + 1, error.start, raw[error.start])


def _document(place: str, root: object, lines: Lines) -> Iterator[Item]:
    cases = root
    where: dict[str, int] = {}
    if isinstance(root, dict):
        fields = cast("dict[str, object]", root)
        where = cast("dict[str, int]", lines[id(fields)])
        yield from _header(place, fields, where, lines)
        cases = fields.get("cases")
        if "cases" not in fields:
            return
    if isinstance(cases, list):
        items = cast("list[object]", cases)
        for item, line in zip(items, cast("list[int]", lines[id(items)]), strict=True):
            yield Record(place=place, line=line, data=item, lines=_field_lines(item, lines))
    elif cases is not None:
        name = "cases" if where else None
        yield Fault(file=place, line=where.get("cases", 1), field=name, problem=f"is {describe(cases)}", fix="give a list of cases")


def _in_line_order(faults: list[Fault], items: Iterator[Item]) -> Iterator[Item]:
    """Faults that reading found put between the items, so that all faults of a file come in its order."""
    waiting = deque(faults)
    for item in items:
        while waiting and (waiting[0].line or 0) < (item.line or 0):
            yield waiting.popleft()
        yield item
    yield from waiting


def _header(place: str, fields: dict[str, object], where: dict[str, int], lines: Lines) -> Iterator[Item]:
    for name in fields:
        if name not in {"cases", "defaults"}:
            close = did_you_mean(name, ("cases", "defaults"))
            fix = f"did you mean {close!r}?" if close else "keep only 'defaults' and 'cases' at the top level"
            yield Fault(file=place, line=where.get(name), field=shown(name), problem="is neither 'defaults' nor 'cases'", fix=fix)
    if "cases" not in fields:
        yield Fault(file=place, line=1, problem="has no 'cases'", fix="write 'cases:' with a list of cases below it, or just a list")
    defaults = fields.get("defaults")
    if isinstance(defaults, dict):
        data = cast("dict[str, object]", defaults)
        yield Defaults(place=place, line=where.get("defaults"), data=data, lines=_field_lines(data, lines))
    elif defaults is not None:
        problem, fix = f"is {describe(defaults)}", "give an object with the fields that all cases share"
        yield Fault(file=place, line=where.get("defaults"), field="defaults", problem=problem, fix=fix)


def _field_lines(item: object, lines: Lines) -> dict[str, int]:
    return cast("dict[str, int]", lines.get(id(cast("object", item)), {})) if isinstance(item, dict) else {}


def _json_problem(error: Exception) -> tuple[str, int | None, int | None]:
    """What is wrong, and the line and column where known."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg, error.lineno, error.colno
    if isinstance(error, RecursionError):
        return "it is nested too deeply", None, None
    return "it holds a number of more than 4,300 digits", None, None


class _Json:
    """A JSON decoder that notes what JSON forbids and Python's reader lets pass."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for index, name in enumerate(names) if name in names[:index])
            self.notes.append((f"has the key {shown(repeated)} twice", "remove one of the two"))
        return fields

    def _constant(self, name: str) -> None:
        self.notes.append((f"holds {name}, which is no JSON number", "use null for a missing number, or write it as text"))

    def faults(self, place: str, line: int) -> list[Fault]:
        """The notes taken so far, as faults of that line."""
        if not self.notes:
            return []
        found = [Fault(file=place, line=line, problem=problem, fix=fix) for problem, fix in self.notes]
        self.notes.clear()
        return found


_SPACE = re.compile(r"[ \t\n\r]*")


class _JsonDocument:
    """A JSON text whose top-level cases and keys are read one by one, to know the line of each."""

    def __init__(self, text: str, place: str) -> None:
        self.faults: list[Fault] = []
        self.lines: Lines = {}
        self.line = 1
        self._text, self._place = text, place
        self._position = self._counted = 0
        self._parser = _Json()

    def read(self) -> object:
        """The whole document.

        Raises:
            ValueError: it is not JSON, or holds a number that is too long.
            RecursionError: it is nested too deeply.
        """
        opening = self._peek()
        root = self._list() if opening == "[" else self._object() if opening == "{" else self._value()
        if self._peek():
            self._fail("Extra data")
        return root

    def _object(self) -> dict[str, object]:
        fields: dict[str, object] = {}
        lines: dict[str, int] = {}
        for _ in self._members("}"):
            if self._peek() != '"':
                self._fail("Expecting property name enclosed in double quotes")
            line = self.line
            name = cast("str", self._value())
            self._take(":")
            if name in fields:
                problem, fix = f"has the key {shown(name)} twice", "remove one of the two"
                self.faults.append(Fault(file=self._place, line=line, problem=problem, fix=fix))
            fields[name] = self._list() if name == "cases" and self._peek() == "[" else self._value()
            lines[name] = line
        self.lines[id(fields)] = lines
        return fields

    def _list(self) -> list[object]:
        items: list[object] = []
        lines: list[int] = []
        for _ in self._members("]"):
            self._peek()
            lines.append(self.line)
            items.append(self._value())
        self.lines[id(items)] = lines
        return items

    def _members(self, closing: str) -> Iterator[None]:
        self._position += 1
        if self._peek() == closing:
            self._position += 1
            return
        while True:
            yield
            if self._peek() == closing:
                self._position += 1
                return
            self._take(",")

    def _take(self, character: str) -> None:
        if self._peek() != character:
            self._fail(f"Expecting {character!r} delimiter")
        self._position += 1

    def _value(self) -> object:
        self._peek()
        try:
            value, self._position = self._parser.decoder.raw_decode(self._text, self._position)
        finally:
            self.faults += self._parser.faults(self._place, self.line)
        return cast("object", value)

    def _peek(self) -> str:
        """The next character that is no white space, empty at the end; moves there and keeps count of the lines."""
        space = _SPACE.match(self._text, self._position)
        self._position = self._position if space is None else space.end()
        self.line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._text[self._position : self._position + 1]

    def _fail(self, problem: str) -> None:
        raise json.JSONDecodeError(problem, self._text, self._position)


READERS: dict[str, Callable[[Path, str], Iterator[Item]]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
}
