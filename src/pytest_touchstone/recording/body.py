"""Response bodies as they are stored: JSON as JSON, server-sent events by column, other text as text, bytes in base64.

What is stored is redacted, and decodes to the very bytes it was made of wherever nothing was redacted. (The one exception: JSON whose
white space follows none of the usual layouts comes back in the compact one.)
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.redact import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pytest_touchstone.recording.redact import Redactor

    Scalar = str | int | float | bool | None

EVENT_STREAM = "text/event-stream"
MAX_BODY = 64 * 1024 * 1024
MAX_DEPTH = 100
# Fields in which token endpoints answer with a credential.
HANDED_OUT = frozenset({"access_token", "refresh_token", "id_token", "client_secret", "api_key"})

# The layouts of providers' JSON; a stored body names its own by number, so entries are only ever added at the end.
_LAYOUTS: tuple[Callable[[object], str], ...] = (
    json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode,
    json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode,
    json.JSONEncoder(ensure_ascii=False).encode,
    json.JSONEncoder(ensure_ascii=True).encode,
    json.JSONEncoder(ensure_ascii=False, indent=2).encode,
    json.JSONEncoder(ensure_ascii=True, indent=2).encode,
    lambda value: json.dumps(value, ensure_ascii=False, indent=2) + "\n",
    lambda value: json.dumps(value, ensure_ascii=True, indent=2) + "\n",
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n",
)
_LINE_LAYOUTS = range(4)
_BLOCK = re.compile(r"(?:event: ([^\r\n]*)\n)?data: ([^\r\n]*)")
_DATA = re.compile(r"^data: ?(.*?)\r?$", re.MULTILINE)


def encode_body(data: bytes, content_type: str, redactor: Redactor) -> dict[str, JsonValue]:
    """The stored form of a body.

    Raises:
        RecordingError: the body holds a secret that cannot be taken out.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        if redactor.leaks(data.decode("latin-1")) or redactor.leaks(data.decode(errors="replace")):
            msg = "the response body holds a secret inside binary data, which cannot be redacted"
            raise RecordingError(msg) from None
        return {"base64": base64.b64encode(data).decode()}
    if is_event_stream(content_type):
        return _encode_stream(text, redactor)
    value = parse_json(text)
    if isinstance(value, (dict, list)):
        return _encode_json(text, cast("JsonValue", value), redactor)
    return {"text": redactor.redact(text)}


def _without_credentials(value: JsonValue) -> JsonValue:
    """The value without what token endpoints hand out, which nobody has told the redactor of."""
    if not isinstance(value, dict) or not HANDED_OUT & value.keys():
        return value
    return {name: REDACTED if name in HANDED_OUT and isinstance(field, str) else field for name, field in value.items()}


def decode_body(body: Mapping[str, Any]) -> bytes:
    """The bytes of a stored body.

    Raises:
        RecordingError: it is none of the known forms.
    """
    try:
        if "json" in body:
            return _layout(body)(body["json"]).encode()
        if "sse" in body:
            sse: dict[str, Any] = body["sse"]
            return (_render(_rows(sse["shapes"], sse["order"]), _layout(sse)) + str(sse["tail"])).encode()
        if "text" in body:
            text: str = body["text"]
            return text.encode("utf-8", "surrogatepass")
        if "base64" in body:
            return base64.b64decode(body["base64"], validate=True)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        msg = f"the stored response body cannot be decoded ({error})"
        raise RecordingError(msg) from error
    msg = "the stored response body is in no known form (json, sse, text, base64)"
    raise RecordingError(msg)


def _layout(stored: Mapping[str, Any]) -> Callable[[object], str]:
    number: int = stored.get("layout", 0)
    return _LAYOUTS[number]


def body_json(body: Mapping[str, Any]) -> JsonValue:
    """The JSON value of a stored body, None where it is not JSON."""
    return cast("JsonValue", body.get("json"))


def body_text(body: Mapping[str, Any]) -> str:
    """A stored body for people to read; empty where it is binary."""
    return "" if "base64" in body else decode_body(body).decode("utf-8", "replace")


def body_events(body: Mapping[str, Any]) -> list[JsonValue]:
    """The JSON values of the events of a stored stream, in order; empty where it is no stream."""
    if "sse" in body:
        sse = body["sse"]
        return [row[1] for row in _rows(sse["shapes"], sse["order"]) if row[1] is not None]
    if "text" not in body:
        return []
    return [value for value in map(parse_json, _DATA.findall(body["text"])) if isinstance(value, (dict, list))]


def is_event_stream(content_type: str) -> bool:
    """Whether a response of this content type is a stream of server-sent events."""
    return content_type.strip().lower().startswith(EVENT_STREAM)


def parse_json(text: str | bytes) -> JsonValue:
    """The JSON value of a text, None where it is not JSON, is nested over 100 deep, or would not survive being written again."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject)
    except (ValueError, RecursionError):
        return None
    characters = text if isinstance(text, str) else text.decode("latin-1")
    # With few brackets it is shallow, whatever they hold.
    few = characters.count("{") + characters.count("[") < MAX_DEPTH
    return cast("JsonValue", value) if few or _is_shallow(value) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        msg = "a name occurs twice"
        raise ValueError(msg)
    return result


def _reject(constant: str) -> None:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _is_shallow(value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level if isinstance(node, (dict, list)) for child in _children(cast("Any", node))]
        if not level:
            return True
    return False


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node


def _encode_json(text: str, value: JsonValue, redactor: Redactor) -> dict[str, JsonValue]:
    layout = next((number for number, dump in enumerate(_LAYOUTS) if dump(value) == text), 0)
    value = _without_credentials(value)
    escaped = "\\u" in text
    stored = redactor.redact_json(value) if escaped or redactor.leaks(text) else value
    if escaped and not _is_encodable(stored):
        return {"text": redactor.redact(text)}
    return {"json": stored, "layout": layout} if layout else {"json": stored}


def _is_encodable(value: object) -> bool:
    """Whether the value can be written as UTF-8: lone surrogates, legal as escapes in JSON, cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


# A stream is a list of rows: (event name, JSON value, None) for an event, (None, None, text) for anything else.
Row = tuple["str | None", "JsonValue", "str | None"]


def _encode_stream(text: str, redactor: Redactor) -> dict[str, JsonValue]:
    clean = redactor.redact(text)
    layout = _stream_layout(clean)
    *blocks, tail = clean.split("\n\n")
    rows = _scrub([_parse_block(block, _LAYOUTS[layout]) for block in blocks], redactor)
    shapes, order = _columns(rows)
    body: dict[str, JsonValue] = {"sse": {"layout": layout, "shapes": shapes, "order": order, "tail": tail}}
    rendered = _render(rows, _LAYOUTS[layout]) + tail
    if _is_encodable(body) and decode_body(body) == rendered.encode():
        _refuse_split_secret(rendered, redactor)
        return body
    _refuse_split_secret(clean, redactor)
    return {"text": clean}


def _refuse_split_secret(text: str, redactor: Redactor) -> None:
    """Catch what scrubbing by column cannot reach: events in an unusual layout."""
    columns: dict[str, list[str]] = {}
    for value in map(parse_json, _DATA.findall(text)):
        for pointer, leaf in _leaves(value):
            if isinstance(leaf, str):
                columns.setdefault(pointer, []).append(leaf)
    if any(redactor.leaks("".join(pieces)) for pieces in columns.values()):
        msg = "the response holds a secret that is split over stream events in a layout that cannot be redacted"
        raise RecordingError(msg)


def _stream_layout(text: str) -> int:
    """The layout that writes most of the first few events exactly as they came."""
    samples = [match.group(2) for match in _BLOCK.finditer(text[:20_000])][:50]
    values = [(sample, parse_json(sample)) for sample in samples]
    return max(_LINE_LAYOUTS, key=lambda number: (sum(_LAYOUTS[number](value) == sample for sample, value in values), -number))


def _parse_block(block: str, dump: Callable[[object], str]) -> Row:
    match = _BLOCK.fullmatch(block)
    if match is not None:
        value = parse_json(match.group(2))
        if isinstance(value, (dict, list)) and dump(value) == match.group(2):
            return match.group(1), value, None
    return None, None, block


def _scrub(rows: list[Row], redactor: Redactor) -> list[Row]:
    """Take out secrets that run over several events: texts in the same place of successive events are one text."""
    columns: dict[str, list[tuple[int, str]]] = {}
    for number, (_, value, _) in enumerate(rows):
        for pointer, leaf in _leaves(value):
            if isinstance(leaf, str):
                columns.setdefault(pointer, []).append((number, leaf))
    changes: dict[int, dict[str, Any]] = {}
    for pointer, column in columns.items():
        pieces = [leaf for _, leaf in column]
        for (number, before), after in zip(column, redactor.redact_pieces(pieces), strict=True):
            if before != after:
                changes.setdefault(number, {})[pointer] = after
    return [(name, _fill(value, changes.get(number, {})), raw) for number, (name, value, raw) in enumerate(rows)] if changes else rows


def _leaves(value: JsonValue, pointer: str = "") -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, f"{pointer}/{_escape(key)}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _leaves(child, f"{pointer}/{number}")
    else:
        yield pointer, value


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _fill(value: JsonValue, leaves: Mapping[str, Any], pointer: str = "") -> JsonValue:
    """The value with the leaves at these pointers replaced."""
    if isinstance(value, dict):
        return {key: _fill(child, leaves, f"{pointer}/{_escape(key)}") for key, child in value.items()}
    if isinstance(value, list):
        return [_fill(child, leaves, f"{pointer}/{number}") for number, child in enumerate(value)]
    return cast("JsonValue", leaves.get(pointer, value))


def _blank(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _blank(child) for key, child in value.items()}
    return [_blank(child) for child in value] if isinstance(value, list) else None


def _columns(rows: list[Row]) -> tuple[list[JsonValue], list[JsonValue]]:
    """Rows of one shape share a template; only the leaves that differ between them are stored for each row."""
    numbers: dict[str, int] = {}
    members: list[list[Row]] = []
    order: list[int] = []
    for row in rows:
        name, value, raw = row
        shape = f"raw {raw}" if raw is not None else f"event {name!r} {_LAYOUTS[1](_blank(value))}"
        number = numbers.setdefault(shape, len(numbers))
        if number == len(members):
            members.append([])
        members[number].append(row)
        order.append(number)
    return [_shape(group) for group in members], _run_lengths(order)


def _shape(group: list[Row]) -> JsonValue:
    name, first, raw = group[0]
    if raw is not None:
        return {"raw": raw}
    columns: dict[str, list[Scalar]] = {}
    for _, value, _ in group:
        for pointer, leaf in _leaves(value):
            columns.setdefault(pointer, []).append(leaf)
    varying: dict[str, Any] = {pointer: column for pointer, column in columns.items() if len({_exact(leaf) for leaf in column}) > 1}
    shape: dict[str, JsonValue] = {} if name is None else {"event": name}
    shape["data"] = _fill(first, dict.fromkeys(varying))
    if varying:
        shape["vary"] = varying
    return shape


def _exact(leaf: Scalar) -> str:
    """A text by which leaves are equal only if they are written alike: 1, 1.0 and true are three leaves."""
    return f"{type(leaf).__name__} {leaf!r}"


def _run_lengths(order: list[int]) -> list[JsonValue]:
    runs: list[list[int]] = []
    for number in order:
        if runs and runs[-1][0] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    return [number if count == 1 else [number, count] for number, count in runs]


def _rows(shapes: list[Any], order: list[Any]) -> Iterator[Row]:
    used = [0] * len(shapes)
    for entry in order:
        number, count = (entry, 1) if isinstance(entry, int) else (entry[0], entry[1])
        if not 0 <= number < len(shapes) or not 0 < count <= MAX_BODY:
            msg = f"the order of events names shape {number}, {count} times"
            raise ValueError(msg)
        for _ in range(count):
            yield _row(shapes[number], used[number])
            used[number] += 1


def _row(shape: Any, number: int) -> Row:  # noqa: ANN401 - stored data, checked here
    if "raw" in shape:
        return None, None, str(shape["raw"])
    leaves = {pointer: column[number] for pointer, column in shape.get("vary", {}).items()}
    name = shape.get("event")
    return (None if name is None else str(name)), _fill(shape["data"], leaves), None


def _render(rows: Iterator[Row] | list[Row], dump: Callable[[object], str]) -> str:
    parts: list[str] = []
    size = 0
    for name, value, raw in rows:
        event = "" if name is None else f"event: {name}\n"
        part = f"{event}data: {dump(value)}\n\n" if raw is None else f"{raw}\n\n"
        size += len(part)
        if size > MAX_BODY:
            msg = f"it is larger than {MAX_BODY} bytes"
            raise ValueError(msg)
        parts.append(part)
    return "".join(parts)
