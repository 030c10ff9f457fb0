"""`json_match`: the output is JSON with the expected structure."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.scorer import failed, passed
from pytest_touchstone.scoring.values import (
    UNSET,
    NotJsonError,
    Unset,
    check_tolerance,
    expected_of,
    is_list,
    is_object,
    json_value,
    kind,
    place,
)
from pytest_touchstone.text import quote, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_touchstone.trial import Score, Trial

MAX_DIFFERENCES = 10
MAX_LISTED = 100
MAX_DEPTH = 64
MAX_STARTS = 10_000
SHOWN_WIDTH = 80

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]

# An index that only a `*` in a path pattern matches.
ANY_INDEX = -1


@dataclass(frozen=True)
class Key:
    """One step of a path pattern: a key, an index, or None for any of them."""

    step: Step | None


PathPattern: TypeAlias = tuple[Key, ...]


@dataclass(frozen=True, kw_only=True)
class JsonMatch:
    """The scorer that `json_match` makes."""

    name: str = "json_match"
    expected: Any = UNSET
    ignore: tuple[PathPattern, ...] = ()
    unordered: tuple[PathPattern, ...] | bool = ()
    abs_tol: float = 0.0
    rel_tol: float = 0.0
    loose: bool = False
    subset: bool = False

    def __call__(self, trial: Trial) -> Score:
        """Compare `trial.output` with the expected structure.

        Raises:
            ScorerError: there is no expected value, or it is text that is not JSON.
        """
        expected = self._expected(trial)
        try:
            output, note = self._read(trial.output, expected)
            _check_comparable(output)
        except NotJsonError as error:
            return failed(self.name, f"the output {error}")
        differences = list(itertools.islice(self._differences(expected, output, ()), MAX_LISTED + 1))
        if not differences:
            return passed(self.name, note)
        lines = [note] if note else []
        lines += differences[:MAX_DIFFERENCES]
        left = len(differences) - MAX_DIFFERENCES
        if left > 0:
            lines.append(f"and {'at least ' if len(differences) > MAX_LISTED else ''}{left} more")
        return failed(self.name, "\n".join(lines))

    def _expected(self, trial: Trial) -> Any:  # noqa: ANN401 - any JSON value
        given = expected_of(trial, "json_match()") if isinstance(self.expected, Unset) else self.expected
        try:
            value = parse_json(given) if isinstance(given, str) else json_value(given)
            _check_comparable(value)
        except NotJsonError as error:
            where = f"{place(trial)}: `expected`" if isinstance(self.expected, Unset) else "json_match(expected=...):"
            msg = f"{where} {error}; give a JSON value or JSON text, or use exact_match()"
            raise ScorerError(msg) from error
        return value

    def _read(self, output: object, expected: object) -> tuple[Any, str]:
        """The output's JSON value, and a note for the reason where it had to be looked for."""
        if not isinstance(output, str):
            return json_value(output), ""
        try:
            return parse_json(output), ""
        except NotJsonError:
            if not self.loose:
                raise
        return find_json(output, like=expected)

    def _differences(self, expected: object, output: object, path: Path, *, detailed: bool = True) -> Iterator[str]:
        """What differs, path by path; if not `detailed`, whether anything does is all that can be told from it."""
        if _matches_any(self.ignore, path):
            return
        if is_object(expected) and is_object(output):
            yield from self._object_differences(expected, output, path, detailed=detailed)
        elif is_list(expected) and is_list(output):
            compare = self._unordered_differences if self._is_unordered(path) else self._list_differences
            yield from compare(expected, output, path, detailed=detailed)
        elif not self._same_leaf(expected, output):
            yield f"{shown_path(path)}: expected {quote(expected, SHOWN_WIDTH)}, got {quote(output, SHOWN_WIDTH)}"

    def _object_differences(self, expected: dict[str, Any], output: dict[str, Any], path: Path, *, detailed: bool) -> Iterator[str]:
        for key, value in expected.items():
            if key in output:
                yield from self._differences(value, output[key], (*path, key), detailed=detailed)
            else:
                yield from self._missing(value, (*path, key))
        if not self.subset:
            for key, value in output.items():
                if key not in expected:
                    yield from self._extra(value, (*path, key))

    def _list_differences(self, expected: list[Any], output: list[Any], path: Path, *, detailed: bool) -> Iterator[str]:
        for index, (one, other) in enumerate(zip(expected, output, strict=False)):
            yield from self._differences(one, other, (*path, index), detailed=detailed)
        common = min(len(expected), len(output))
        for index, value in enumerate(expected[common:], common):
            yield from self._missing(value, (*path, index))
        for index, value in enumerate(output[common:], common):
            yield from self._extra(value, (*path, index))

    def _missing(self, value: object, path: Path) -> Iterator[str]:
        if not _matches_any(self.ignore, path):
            yield f"{shown_path(path)}: expected {quote(value, SHOWN_WIDTH)}, but it is missing"

    def _extra(self, value: object, path: Path) -> Iterator[str]:
        if not _matches_any(self.ignore, path):
            yield f"{shown_path(path)}: not expected, got {quote(value, SHOWN_WIDTH)}"

    def _unordered_differences(self, expected: list[Any], output: list[Any], path: Path, *, detailed: bool) -> Iterator[str]:
        if _matches_any(self.ignore, (*path, ANY_INDEX)):
            return

        def same(one: int, other: int) -> bool:
            return next(self._differences(expected[one], output[other], (*path, one), detailed=False), None) is None

        partner = pair_up(len(expected), len(output), same)
        missing = [index for index in range(len(expected)) if index not in partner]
        extra = [] if self.subset else sorted(set(range(len(output))) - set(partner.values()))
        if detailed and len(missing) == len(extra) == 1:
            # Nothing else is left to pair, so the difference itself can be shown. Only where it is asked for: done again at every
            # level of nested lists, it would take exponential time.
            yield from self._differences(expected[missing[0]], output[extra[0]], (*path, missing[0]))
            return
        for index in missing:
            yield f"{shown_path((*path, index))}: expected {quote(expected[index], SHOWN_WIDTH)} in any place, but nothing left equals it"
        for index in extra:
            yield f"{shown_path((*path, index))}: not expected, got {quote(output[index], SHOWN_WIDTH)}"

    def _is_unordered(self, path: Path) -> bool:
        return self.unordered if isinstance(self.unordered, bool) else _matches_any(self.unordered, path)

    def _same_leaf(self, expected: object, output: object) -> bool:
        if isinstance(expected, bool) or isinstance(output, bool):
            return expected is output
        if isinstance(expected, (int, float)) and isinstance(output, (int, float)):
            return expected == output or self._is_close(expected, output)
        return type(expected) is type(output) and expected == output

    def _is_close(self, expected: float, output: float) -> bool:
        if not (self.abs_tol or self.rel_tol):
            return False
        # Decimals of what was written: as floats, 1.1 and 1.0 differ by more than 0.1.
        wanted = Decimal(repr(expected))
        tolerance = max(Decimal(repr(self.abs_tol)), Decimal(repr(self.rel_tol)) * abs(wanted))
        return abs(wanted - Decimal(repr(output))) <= tolerance


def json_match(
    expected: Any = UNSET,  # noqa: ANN401 - any JSON value
    *,
    ignore: str | Iterable[str] = (),
    unordered: str | Iterable[str] | bool = (),
    abs_tol: float = 0.0,
    rel_tol: float = 0.0,
    loose: bool = False,
    subset: bool = False,
) -> JsonMatch:
    """Pass when the output is JSON with the expected structure, 1.0 or 0.0; the reason lists the paths that differ.

    Output text is read as JSON; dicts, lists, pydantic models and dataclasses are taken as they are. `expected` (else
    `case.expected`) is a JSON value; text there is read as JSON too. Objects are equal in any order of keys, 1 equals 1.0, True
    is not 1. Repeated keys, NaN, Infinity and more than 64 levels are no JSON: the output fails.

    Args:
        expected: what to compare with; None means JSON null. Default: `case.expected`.
        ignore: paths that are not compared, be they there or not: `items[*].id`, `$.meta.at`, `totals.*`, `["a key"][0]`.
            `*` stands for any key or index.
        unordered: paths of lists whose order does not matter, or True for all of them. Elements are paired one to one, as many as
            can be. To ignore a part of their elements write `[*]`, as they have no fixed index.
        abs_tol: numbers may differ by this much (>= 0) ...
        rel_tol: ... or by this share (>= 0) of the expected number, whichever is more.
        loose: where the output is not JSON, take the last fenced code block that is; if none is, the last object or list in the
            text. Where `expected` is an object, only objects count; where it is a list, only lists. The reason says where it was
            found.
        subset: objects may hold further keys and unordered lists further elements, at any depth; ordered lists may not.

    Raises:
        ScorerError: a path or tolerance cannot be used; or, when scoring, the expected value is missing or not JSON.

    >>> from pytest_touchstone import Case, Trial
    >>> trial = Trial(Case(id="t", input="VPN down", expected={"team": "net", "priority": "high"}))
    >>> trial.output = '{"priority": "low", "team": "net"}'
    >>> trial.score(json_match()).reason
    '$.priority: expected "high", got "low"'
    """
    check_tolerance("json_match()", "abs_tol", abs_tol)
    check_tolerance("json_match()", "rel_tol", rel_tol)
    return JsonMatch(
        expected=expected,
        ignore=_parse_paths("ignore", ignore),
        unordered=unordered if isinstance(unordered, bool) else _parse_paths("unordered", unordered),
        abs_tol=abs_tol,
        rel_tol=rel_tol,
        loose=loose,
        subset=subset,
    )


# Reading


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Strict JSON: no repeated keys, no NaN or Infinity, no number beyond a float.

    Raises:
        NotJsonError: it is something else; the message says what and where.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        msg = f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}: {quote(text)}"
    except RecursionError:
        msg = f"is not JSON that can be compared: it nests more than {MAX_DEPTH} levels: {quote(text)}"
    except ValueError as error:  # from the hooks below, or an integer with thousands of digits
        msg = f"is not JSON that can be compared: {error}: {quote(text)}"
    raise NotJsonError(msg)


def find_json(text: str, *, like: object = None) -> tuple[Any, str]:
    """The JSON value inside prose, and where it was found: the last fenced block that is JSON, else the last object or list.

    Where `like` is an object or a list, only values of its kind count.

    Raises:
        NotJsonError: there is none, or what stands there has repeated keys or numbers that are none.
    """
    wanted, named = _kind_like(like)
    for block in reversed(_fenced_blocks(text)):
        with contextlib.suppress(NotJsonError):
            value = parse_json(block)
            if wanted(value):
                return value, "compared the JSON found in a fenced block"
    found = deque(filter(wanted, _values_in(text)), maxlen=1)
    if not found:
        msg = f"holds no JSON {named}: {quote(text)}"
        raise NotJsonError(msg)
    return found[0], "compared the JSON found inside the text"


def _kind_like(value: object) -> tuple[Callable[[object], bool], str]:
    if is_object(value):
        return is_object, "object"
    return (is_list, "list") if is_list(value) else (lambda _: True, "object or list")


def _values_in(text: str) -> Iterator[object]:
    """Every object or list that starts outside of those before it; a start that leads nowhere is stepped over."""
    position = 0
    # Bounded, as an output of nothing but brackets would otherwise take quadratic time.
    for _ in range(MAX_STARTS):
        start = _START.search(text, position)
        if start is None:
            return
        try:
            value, position = _DECODER.raw_decode(text, start.start())
        except json.JSONDecodeError:
            position = start.start() + 1
        except RecursionError:
            msg = f"is not JSON that can be compared: it nests more than {MAX_DEPTH} levels: {quote(text)}"
            raise NotJsonError(msg) from None
        except ValueError as error:
            # It is JSON but for what the hooks refuse, and a part of it must not pass for the whole.
            msg = f"is not JSON that can be compared: {error}: {quote(text)}"
            raise NotJsonError(msg) from None
        else:
            yield value


_START = re.compile(r"[\[{]")
_FENCE = re.compile(r"^[ \t]{0,8}(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)$", re.MULTILINE)


def _fenced_blocks(text: str) -> list[str]:
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence["fence"].startswith(opened["fence"]) and not fence["info"].strip():
            blocks.append(text[opened.end() : fence.start()])
            opened = None
    return blocks


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            msg = f"the key {quote(key, SHOWN_WIDTH)} is repeated"
            raise ValueError(msg)
        value[key] = item
    return value


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        msg = f"the number {shorten(number, SHOWN_WIDTH)} is out of range"
        raise ValueError(msg)
    return value


def _no_constant(name: str) -> float:
    msg = f"{name} is not a JSON number"
    raise ValueError(msg)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_no_constant)


def _check_comparable(value: object) -> None:
    """Refuse what is nested too deeply to be compared by recursion, and numbers that are none."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            msg = "is not JSON that can be compared: NaN and Infinity are not JSON numbers"
            raise NotJsonError(msg)
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    msg = f"is not JSON that can be compared: it nests more than {MAX_DEPTH} levels"
    raise NotJsonError(msg)


def _children(value: object) -> Iterable[object]:
    if is_object(value):
        return value.values()
    return value if is_list(value) else ()


# Paths


_STEP = re.compile(
    r"""
    \.?(?P<name>[^\s.\[\]"'$*]+)
    | \.?\*
    | \[(?: (?P<index>\d{1,9}) | \* | (?P<quoted>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*") )\]
    """,
    re.VERBOSE,
)
_PLAIN_NAME = re.compile(r"\w{1,80}")


def parse_path(path: object, option: str) -> PathPattern:
    """A path such as `$.items[*].id`, `a.*` or `["a key"][0]` as steps.

    Raises:
        ScorerError: it is something else; the message says where it goes wrong.
    """
    if not isinstance(path, str):
        msg = f"json_match({option}=...): {quote(path)} is {kind(path)}; give paths such as 'items[*].id'"
        raise ScorerError(msg)
    if not path:
        msg = f"json_match({option}=...): a path is empty; write '$' for the whole value"
        raise ScorerError(msg)
    steps: list[Key] = []
    position = 1 if path.startswith("$") else 0
    while position < len(path):
        match = _STEP.match(path, position)
        # A dot stands between steps: none before the first one, unless `$` is.
        if match is None or (match[0].startswith(".") if position == 0 else match[0][0] not in ".["):
            where = f"json_match({option}=...): {quote(path)} is no path at position {position}"
            msg = f"{where}; write it like 'items[*].id' or '$[\"a key\"][0]'"
            raise ScorerError(msg)
        steps.append(Key(_step(match)))
        position = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> Step | None:
    if match["index"] is not None:
        return int(match["index"])
    if match["quoted"] is not None:
        return str(json.loads(match["quoted"]))
    return match["name"]


def _parse_paths(option: str, paths: str | Iterable[object]) -> tuple[PathPattern, ...]:
    if isinstance(paths, str):
        return (parse_path(paths, option),)
    try:
        given = list(paths)
    except TypeError:
        msg = f"json_match({option}=...): {quote(paths)} is {kind(paths)}; give a path or a list of paths"
        raise ScorerError(msg) from None
    return tuple(parse_path(path, option) for path in given)


def _matches_any(patterns: tuple[PathPattern, ...], path: Path) -> bool:
    return any(len(pattern) == len(path) and all(map(_matches, pattern, path)) for pattern in patterns)


def _matches(key: Key, step: Step) -> bool:
    return key.step is None or key.step == step


def shown_path(path: Path) -> str:
    """A path as reasons show it.

    >>> shown_path(("items", 0, "a key"))
    '$.items[0]["a key"]'
    """
    return visible("$" + "".join(map(_shown_step, path)))


def _shown_step(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _PLAIN_NAME.fullmatch(step) else f"[{quote(step, SHOWN_WIDTH)}]"


# Pairing


def pair_up(left: int, right: int, same: Callable[[int, int], bool]) -> dict[int, int]:
    """As many pairs (left index -> right index) as possible, each index used once: augmenting paths, breadth first.

    Taking the first that fits would be wrong: with a tolerance, one element may fit several others.
    """
    known: dict[tuple[int, int], bool] = {}

    def fits(one: int, other: int) -> bool:
        if (one, other) not in known:
            known[one, other] = same(one, other)
        return known[one, other]

    partner: dict[int, int] = {}
    owner: dict[int, int] = {}
    for start in range(left):
        # Lists are often in order after all.
        if start < right and start not in owner and fits(start, start):
            partner[start], owner[start] = start, start
        else:
            _augment(start, right, fits, partner, owner)
    return partner


def _augment(start: int, right: int, fits: Callable[[int, int], bool], partner: dict[int, int], owner: dict[int, int]) -> None:
    """Find a free partner for `start`, moving others on where that makes room."""
    reached_from: dict[int, int] = {}
    waiting = deque([start])
    while waiting:
        one = waiting.popleft()
        for other in range(right):
            if other in reached_from or not fits(one, other):
                continue
            reached_from[other] = one
            if other not in owner:
                _take(other, reached_from, partner, owner)
                return
            waiting.append(owner[other])


def _take(free: int, reached_from: dict[int, int], partner: dict[int, int], owner: dict[int, int]) -> None:
    """Give the free element to the one it was reached from, what that one had to the one before, and so on."""
    given: int | None = free
    while given is not None:
        one = reached_from[given]
        owner[given] = one
        had = partner.get(one)
        partner[one] = given
        given = had
