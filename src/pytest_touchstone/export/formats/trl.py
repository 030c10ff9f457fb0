"""TRL's conversational formats, one JSON object a line, checked against how TRL and `datasets` read them.

Prompt/completion (`{"prompt": [...], "completion": [...]}`), language modelling (`{"messages": [...]}`) and preference
(`{"prompt": [...], "chosen": [...], "rejected": [...]}`), and in a file where any example has tools, `"tools"`. The rows are shaped by
their two readers.

TRL 1.14 (`SFTTrainer`, `DPOTrainer`) puts `prompt` and `prompt + completion` through the chat template and trains what was added; of
`messages` it trains everything, or with `assistant_only_loss` every assistant turn, so prompt/completion is what fits examples best.
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

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.export.chat import chat_messages
from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.format import TRAIN_FILE, Files, NotHeldError, json_line, json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.format import Row

TRL_FORMAT: Final = "trl-prompt-completion"
COLUMNS: Final = ("prompt", "completion")
FIRST_CHUNK: Final = 10 << 20  # bytes; datasets.packaged_modules.json: JsonConfig.chunksize
MAX_LINE: Final = 4 << 20  # bytes; more than a million tokens, and short enough that the first chunk always holds two rows
ANCHOR: Final = "refusal"
NO_TOOLS: Final = "null"

DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[\d\s:.TZ+-]*")  # a superset of what Arrow takes for a timestamp


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The lines of a file, without their newlines and in the order of the rows, and the columns that had to be anchored."""

    lines: tuple[bytes, ...]
    anchored: tuple[str, ...] = ()


class Messages:
    """Language modelling: the whole conversation as one list."""

    files = (TRAIN_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        return _sized({"messages": chat_messages((*example.prompt, *example.completion)), **_tools(example)})

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """As `Format.encode`."""
        return _file(rows, ("messages",))


class Preference:
    """Preference: the target is chosen, the answer that failed is rejected."""

    files = (TRAIN_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        rejected = rejected_answer(example)
        columns = {"prompt": example.prompt, "chosen": example.completion, "rejected": rejected}
        return _sized({**{column: chat_messages(messages) for column, messages in columns.items()}, **_tools(example)})

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """As `Format.encode`."""
        return _file(rows, ("prompt", "chosen", "rejected"))


def trl_row(example: Example) -> Row | LeftOut:
    """The example as prompt/completion, or why it cannot be written in this format."""
    try:
        return _sized({column: chat_messages(getattr(example, column)) for column in COLUMNS} | _tools(example))
    except NotHeldError as error:
        return LeftOut(reason=str(error))


def encode_trl(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> Encoded | LeftOut:
    """The rows as lines that `datasets` reads back exactly, or why it cannot (a lone row whose text is nothing but a date)."""
    tools: Row = {"tools": NO_TOOLS} if any("tools" in row for row in rows) else {}
    complete: list[Row] = [{**tools, **row} for row in rows]
    chunk = first_chunk(complete)
    anchored: list[str] = []
    for column in columns:
        if not _at_risk(column, complete, chunk):
            continue
        if sum(len(row[column]) for row in chunk) < 2:
            return LeftOut(reason=f"too small: the only {column} is nothing but a date, which `datasets` would read as a timestamp")
        first, *others = complete[0][column]
        complete[0][column] = [{**first, ANCHOR: None}, *others]
        anchored.append(column)
    lines = (json_line({column: row[column] for column in (*columns, "tools") if column in row}) for row in complete)
    return Encoded(lines=tuple(lines), anchored=tuple(anchored))


def rejected_answer(example: Example) -> tuple[Any, ...]:
    """The answer that failed, for the formats that take pairs.

    Raises:
        NotHeldError: there is none, or it says the same as the target.
    """
    if not example.rejected:
        why = "nothing failed, so there is only a good one" if example.kind == "replay" else "the trial left no text that failed"
        msg = f"no pair of answers: {why}"
        raise NotHeldError(msg)
    chosen, rejected = (chat_messages(messages) for messages in (example.completion, example.rejected))
    if [_said(message) for message in chosen] == [_said(message) for message in rejected]:
        msg = "no pair of answers: the one that failed says the same as the target"
        raise NotHeldError(msg)
    return example.rejected


def first_chunk(rows: Sequence[Row]) -> list[Row]:
    """The rows that surely lie in the first chunk from which `datasets` takes the types, the anchor's few bytes included."""
    chunk: list[Row] = []
    size = 256
    for row in rows:
        size += len(json_text(row).encode()) + 1
        if size > FIRST_CHUNK:
            break
        chunk.append(row)
    return chunk


def _said(message: dict[str, Any]) -> tuple[str, str]:
    return (message["content"] or "").strip(), json_text(message.get("tool_calls"))


def _sized(row: Row) -> Row:
    size = len(json_text(row).encode())
    if size > MAX_LINE:
        msg = f"too long: {size:,} bytes, and {MAX_LINE:,} is the most for one example"
        raise NotHeldError(msg)
    return row


def _tools(example: Example) -> Row:
    return {"tools": json_text(list(example.tools))} if example.tools else {}


def _file(rows: Sequence[Row], columns: Sequence[str]) -> Files | LeftOut:
    encoded = encode_trl(rows, columns)
    if isinstance(encoded, LeftOut):
        return encoded
    return Files(content={TRAIN_FILE: b"".join(line + b"\n" for line in encoded.lines)}, anchored=encoded.anchored)


def _at_risk(column: str, rows: Sequence[Row], chunk: Sequence[Row]) -> bool:
    seen = [message for row in chunk for message in row[column]]
    if not seen or any(message.keys() != seen[0].keys() for message in seen):
        return False
    if len(seen) == 1:
        return any(DATE.fullmatch(text) for text in _texts(seen[0]))
    plain = all(message.keys() == {"role", "content"} for row in rows for message in row[column])
    return not (plain and any(not DATE.fullmatch(message["content"]) for message in seen))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in cast("dict[str, object]", value).values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in cast("list[object]", value):
            yield from _texts(part)
