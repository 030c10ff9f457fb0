"""Training formats: what each consumer reads as it is, checked against how that consumer reads it.

TRL's conversational prompt/completion, one JSON object a line: `{"prompt": [...], "completion": [...]}`, and in a file where any
example has tools, `"tools"`. The rows are shaped by their two readers.

TRL 1.14 (`SFTTrainer`, `DPOTrainer`) puts `prompt` and `prompt + completion` through the chat template and trains what was added.
Templates of text models read `content` as one text: text parts are joined by newlines, and an example with any other part is not
written. They know no `developer`: it becomes `system`. Only keys that templates read are kept (`role`, `content`, `name`,
`tool_calls`, `tool_call_id`, `reasoning_content`); `content` is always there, null beside tool calls. `tools` may be a list or JSON
text; the text is used, because Arrow would give every tool the keys of all others. Rows without tools then hold the text `null`,
which TRL reads as no tools.

Tool-call arguments stay the JSON text that was on the wire, because objects do not come back exactly: `datasets` parses numbers in its
JSON type with a parser of its own, and 0.3 becomes 0.30000000000000004. Of the chat templates in TRL 1.14 those of Qwen3,
Qwen3-VL and Gemma 4 read the text as it is; those of Llama 3.1, Llama 3.2 and Qwen2.5 would quote it once more, and those of Qwen3.5,
GLM-4 MoE and Nemotron refuse it: for these, decode the arguments (`json.loads`) in the step that applies the template.

`datasets` (5.x) fixes a column's type from the first 10 MiB: messages with one set of keys become a struct, messages with several
become its JSON type, which gives every message back exactly. A struct spoils what it cannot foresee: texts that are all dates turn
into timestamps, and a key that first appears after 10 MiB stops the load. Where a column is at risk, the first message of the first
row carries one more key, `"refusal": null` (OpenAI sends it with every answer, and templates ignore it): that makes the column
JSON. The manifest calls such a column anchored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from pytest_touchstone.export.example import LeftOut, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_touchstone.export.example import Example

Column = Literal["prompt", "completion"]
Row = dict[str, Any]

TRL_FORMAT: Final = "trl-prompt-completion"
COLUMNS: Final[tuple[Column, ...]] = ("prompt", "completion")
FIRST_CHUNK: Final = 10 << 20  # bytes; datasets.packaged_modules.json: JsonConfig.chunksize
MAX_LINE: Final = 4 << 20  # bytes; more than a million tokens, and short enough that the first chunk always holds two rows
ANCHOR: Final = "refusal"
NO_TOOLS: Final = "null"

_TEXT_KEYS: Final = ("name", "tool_call_id", "reasoning_content")
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_LINE_ENDS: Final = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}  # `str.splitlines` breaks a line at these, too
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[\d\s:.TZ+-]*")  # a superset of what Arrow takes for a timestamp


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The lines of a file, without their newlines and in the order of the rows, and the columns that had to be anchored."""

    lines: tuple[bytes, ...]
    anchored: tuple[Column, ...] = ()


def trl_row(example: Example) -> Row | LeftOut:
    """The example as TRL reads it, or why it cannot be written in this format."""
    try:
        row: Row = {column: [_message(message) for message in getattr(example, column)] for column in COLUMNS}
    except _UnsupportedError as error:
        return LeftOut(reason=f"not in this format: {error}")
    if example.tools:
        row["tools"] = _json(list(example.tools))
    size = len(_json(row).encode())
    return row if size <= MAX_LINE else LeftOut(reason=f"too long: {size:,} bytes, and {MAX_LINE:,} is the most for one example")


def encode_trl(rows: Sequence[Row]) -> Encoded | LeftOut:
    """The rows as lines that `datasets` reads back exactly, or why it cannot (a lone row whose text is nothing but a date)."""
    tools: Row = {"tools": NO_TOOLS} if any("tools" in row for row in rows) else {}
    complete: list[Row] = [{**tools, **row} for row in rows]
    chunk = _first_chunk(complete)
    anchored: list[Column] = []
    for column in COLUMNS:
        if not _at_risk(column, complete, chunk):
            continue
        if sum(len(row[column]) for row in chunk) < 2:
            return LeftOut(reason=f"too small: the only {column} is nothing but a date, which `datasets` would read as a timestamp")
        first, *others = complete[0][column]
        complete[0][column] = [{**first, ANCHOR: None}, *others]
        anchored.append(column)
    lines = (_json({column: row[column] for column in (*COLUMNS, "tools") if column in row}) for row in complete)
    return Encoded(lines=tuple(line.translate(_LINE_ENDS).encode() for line in lines), anchored=tuple(anchored))


class _UnsupportedError(Exception):
    """A message holds what this format has no place for."""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = "system" if message["role"] == "developer" else message["role"]
    kept: dict[str, Any] = {"role": role, "content": _content(message.get("content"))}
    kept |= {key: message[key] for key in _TEXT_KEYS if isinstance(message.get(key), str)}
    if message.get("tool_calls"):
        kept["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return kept


def _content(content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    for part in cast("Sequence[Mapping[str, object]]", content):
        if part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            msg = f"a message holds a part of type {part.get('type')!r}; only text can be trained on here"
            raise _UnsupportedError(msg)
    return text_of(content)


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function: object = call.get("function")
    fields: Mapping[str, object] = cast("Mapping[str, object]", function) if isinstance(function, Mapping) else {}
    name, arguments = fields.get("name"), fields.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str):
        msg = f"a tool call of type {call.get('type')!r} has no function name with arguments as JSON text"
        raise _UnsupportedError(msg)
    called = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": call["id"], **called} if isinstance(call.get("id"), str) else called


def _first_chunk(rows: Sequence[Row]) -> list[Row]:
    """The rows that surely lie in the first chunk, the anchor's few bytes included."""
    chunk: list[Row] = []
    size = 256
    for row in rows:
        size += len(_json(row).encode()) + 1
        if size > FIRST_CHUNK:
            break
        chunk.append(row)
    return chunk


def _at_risk(column: Column, rows: Sequence[Row], chunk: Sequence[Row]) -> bool:
    seen = [message for row in chunk for message in row[column]]
    if not seen or any(message.keys() != seen[0].keys() for message in seen):
        return False
    if len(seen) == 1:
        return any(_DATE.fullmatch(text) for text in _texts(seen[0]))
    plain = all(message.keys() == {"role", "content"} for row in rows for message in row[column])
    return not (plain and any(not _DATE.fullmatch(message["content"]) for message in seen))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in cast("dict[str, object]", value).values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in cast("list[object]", value):
            yield from _texts(part)
