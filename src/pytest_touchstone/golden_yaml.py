"""YAML to plain values with the line of each, safely: built from parser events, so nothing is constructed, recursed into or blown up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import yaml

from pytest_touchstone.cases import describe, shown
from pytest_touchstone.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 120  # a case's values may be 100 deep, below the document, its list of cases and the case
_NESTED = (f"is nested more than {MAX_DEPTH} levels deep", "flatten it, or keep it as text")
MAX_ALIAS_CHARACTERS = 4 * 2**20  # what all aliases of a file may expand to: one for each value, and its characters

Lines: TypeAlias = "dict[int, dict[str, int] | list[int]]"
"""The lines of what stands in a list (in order) or an object (by key), by the id of that list or object."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What YAML 1.1 and 1.2 agree on. `no`, dates, `1e5` and `007` stay text: a golden answer must not change its type unseen.
_PLAIN = re.compile(
    r"""(?P<null>~|null|Null|NULL|)
    |(?P<true>true|True|TRUE)
    |(?P<false>false|False|FALSE)
    |(?P<int>[-+]?(?:0|[1-9][0-9]*))
    |(?P<hex>[-+]?0x[0-9a-fA-F]+)
    |(?P<float>[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?)
    |(?P<inf>[-+]?\.(?:inf|Inf|INF))
    |(?P<nan>\.(?:nan|NaN|NAN))""",
    re.VERBOSE,
)
_CORE = "tag:yaml.org,2002:"
_KINDS = {"null": "null", "true": "bool", "false": "bool", "int": "int", "hex": "int", "float": "float", "inf": "float", "nan": "float"}


class _Broken(Exception):
    """A jump out of the parse, which nobody outside sees."""


@dataclass(slots=True)
class _Open:
    """A list or object whose end has not been reached."""

    value: list[object] | dict[str, object]
    line: int
    anchor: str | None
    lines: list[int] | dict[str, int]
    size: int = 1
    key: str | None = None
    key_line: int = 0
    merging: bool = False
    merged: list[dict[str, object]] = field(default_factory=list[dict[str, object]])

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None


class YamlTree:
    """One YAML document as plain values.

    `faults` are what is wrong with it, in order; `broken` says that reading could not go on. `lines` knows the line of
    every list item and key. Scalars follow the YAML 1.2 core schema, but read a number only where YAML 1.1 sees one too.
    """

    def __init__(self, place: str) -> None:
        """Start with nothing read; `place` is the file as faults show it."""
        self.faults: list[Fault] = []
        self.lines: Lines = {}
        self.broken = False
        self._place = place
        self._root: object = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[object, int] | None] = {}
        self._expanded = 0
        self._documents = 0

    def read(self, text: str) -> object:
        """The document's value, None where it is empty; see `faults` and `broken` before using it."""
        if found := _UNPRINTABLE.search(text):
            problem = f"holds the character U+{ord(found[0]):04X}, which YAML does not allow"
            self._note(text.count("\n", 0, found.start()) + 1, problem, 'write it as an escape in double quotes ("\\u0007")')
            self.broken = True
            return None
        try:
            self._build(cast("Iterable[Any]", yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
        except yaml.YAMLError as error:
            self._syntax_fault(error)
        except _Broken:
            self.broken = True
        return self._root

    def _note(self, line: int | None, problem: str, fix: str) -> None:
        self.faults.append(Fault(file=self._place, line=line, problem=problem, fix=fix))

    def _stop(self, line: int, problem: str, fix: str) -> NoReturn:
        self._note(line, problem, fix)
        raise _Broken

    def _syntax_fault(self, error: yaml.YAMLError) -> None:
        self.broken = True
        mark = getattr(error, "problem_mark", None)
        if "maximum nesting depth" in str(getattr(error, "problem", "")):  # libyaml's own, which it reaches before its events reach us
            self._note(mark.line + 1 if mark else None, *_NESTED)
            return
        words = " ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
        at = f" (column {mark.column + 1})" if mark else ""
        fix = "correct the syntax; quote texts that hold ': ' or ' #' or begin with one of [ { & * ! | > ' \" % @ `"
        self._note(mark.line + 1 if mark else None, f"is not YAML: {words or shown(str(error))}{at}", fix)

    def _build(self, events: Iterable[Any]) -> None:
        for event in events:
            line = event.start_mark.line + 1
            match event:
                case yaml.ScalarEvent():
                    self._scalar(event, line)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._close()
                case yaml.AliasEvent():
                    self._alias(str(event.anchor), line)
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        self._stop(line, "starts a second document", "keep one document per file: one list of cases without '---'")
                case _:
                    pass

    def _scalar(self, event: Any, line: int) -> None:  # noqa: ANN401 - PyYAML's events have no types
        parent = self._stack[-1] if self._stack else None
        plain = event.tag is None and event.implicit[0]
        if parent is not None and parent.wants_key:
            self._key(parent, event.value, line, merging=plain and event.value == "<<")
            return
        value = self._resolved(event, line) if plain or event.tag not in {None, "!"} else event.value
        self._put(value, 1 + len(event.value), line, event.anchor)

    def _key(self, parent: _Open, name: str, line: int, *, merging: bool) -> None:
        parent.key, parent.key_line, parent.merging = name, line, merging
        parent.size += 1 + len(name)
        if not merging and name in parent.value:
            self._note(line, f"has the key {shown(name)} twice", "remove one of the two")

    def _resolved(self, event: Any, line: int) -> object:  # noqa: ANN401 - as above
        text: str = event.value
        found = _PLAIN.fullmatch(text)
        kind = found.lastgroup if found and found.lastgroup else "str"
        if event.tag is not None:
            kind = self._tagged(event.tag, kind, line)
        match kind:
            case "null":
                return None
            case "true" | "false":
                return kind == "true"
            case "int" | "hex":
                return self._integer(text, line, 10 if kind == "int" else 16)
            case "float" | "inf" | "nan":
                return float(text.replace(".", "")) if kind != "float" else float(text)
            case _:
                return text

    def _tagged(self, tag: str, kind: str, line: int) -> str:
        """The kind that an explicit tag asks for."""
        name = tag.removeprefix(_CORE)
        if name == "str" and tag != name:
            return "str"
        if tag == name or name not in _KINDS.values():
            self._note(line, f"has the tag {shown(tag)}, which is not allowed", "write a plain value without a tag")
        elif _KINDS.get(kind) != name:
            self._note(line, f"has the tag {shown('!!' + name)} but another kind of value", "correct the value, or remove the tag")
        return kind

    def _integer(self, text: str, line: int, base: int) -> int | None:
        try:
            return int(text, base)
        except ValueError:
            self._note(line, "is a number of more than 4,300 digits", "quote it, so that it is text")
            return None

    def _open(self, event: Any, line: int) -> None:  # noqa: ANN401 - as above
        if self._stack and self._stack[-1].wants_key:
            self._stop(line, "has a list or object as a key", "use text as keys")
        if len(self._stack) == MAX_DEPTH:
            self._stop(line, *_NESTED)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in {None, "!", _CORE + ("seq" if is_list else "map")}:
            self._note(line, f"has the tag {shown(event.tag)}, which is not allowed", "write a plain value without a tag")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Open([] if is_list else {}, line, event.anchor, [] if is_list else {}))

    def _close(self) -> None:
        done = self._stack.pop()
        for merged in done.merged:  # a key of the object itself wins, then the first merged object that has it
            value, lines = cast("dict[str, object]", done.value), cast("dict[str, int]", done.lines)
            value.update({name: item for name, item in merged.items() if name not in value})
            lines.update({name: line for name, line in cast("dict[str, int]", self.lines[id(merged)]).items() if name not in lines})
        self.lines[id(done.value)] = done.lines
        self._put(done.value, done.size, done.line, done.anchor)

    def _alias(self, anchor: str, line: int) -> None:
        if self._stack and self._stack[-1].wants_key:
            self._stop(line, "has an alias as a key", "use text as keys")
        if anchor not in self._anchors:
            self._stop(
                line, f"uses the alias {shown('*' + anchor)}, which no anchor defines", f"define it above with {shown('&' + anchor)}"
            )
        target = self._anchors[anchor]
        if target is None:
            self._stop(line, f"uses the alias {shown('*' + anchor)} inside its own anchor", "write the value out")
        value, size = target
        self._expanded += size
        if self._expanded > MAX_ALIAS_CHARACTERS:
            problem = "uses aliases that expand to more than 4 Mi characters"
            self._stop(line, problem, "write the values out, or use JSONL")
        self._put(value, size, line, None)

    def _put(self, value: object, size: int, line: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self._root = value
            return
        parent = self._stack[-1]
        parent.size += size
        if isinstance(parent.value, list):
            parent.value.append(value)
            cast("list[int]", parent.lines).append(line)
        elif parent.merging:
            self._merge(parent, value, line)
        else:
            key = cast("str", parent.key)
            parent.value[key] = value
            cast("dict[str, int]", parent.lines)[key] = parent.key_line
        parent.key = None

    def _merge(self, parent: _Open, value: object, line: int) -> None:
        parent.merging = False
        for item in cast("list[object]", value) if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                parent.merged.append(cast("dict[str, object]", item))
            else:
                self._note(line, f"merges (<<) {describe(item)}", "merge an object, such as '<<: *defaults'")
