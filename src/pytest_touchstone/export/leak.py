"""The leak guard: a holdout case never reaches a training file, by any path."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.cases import canonical_json
from pytest_touchstone.export.example import text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_touchstone.export.example import Example

# A piece of a longer text counts as a holdout input from this length on (normalised characters): apps wrap inputs in templates,
# while short lines ("Hello", "Thank you") stand in many prompts for reasons of their own.
MIN_EMBEDDED: Final = 20
_MAX_LABEL: Final = 40
_QUOTES: Final = " \t\"'`*_-\u201c\u201d\u00ab\u00bb"


def input_fingerprint(value: object) -> str:
    r"""The sha256 (hex) of an input, blind to how it is written: case, Unicode form, invisible characters, white space, key order.

    A JSON object counts as its text does. Of a list of messages the system prompt does not count, and one user message counts as
    its text does. So wrapping an input does not hide its twin.

    >>> input_fingerprint("Where is  my ORDER?\n") == input_fingerprint([{"role": "user", "content": "where is my order?"}])
    True
    >>> input_fingerprint({"a": "X", "b": 1.0}) == input_fingerprint('{"b": 1, "a": "x"}')
    True
    """
    return hashlib.sha256(canonical_json(_normal_input(value)).encode("utf-8", "surrogatepass")).hexdigest()


def leaks(example: Example, holdout_fingerprints: Collection[str]) -> str | None:
    """Why the example may not be written beside these holdout inputs, None where it may.

    Compared are the case's input, the conversation, every message (the completion, the rejected answer and tool-call arguments too), and
    the pieces of at least 20 characters that a template may have put around an input: lines, paragraphs, what stands between tags,
    after a label or in quotes, and the texts of a JSON message. The reason never quotes the text.
    """
    if not holdout_fingerprints:
        return None
    if example.input_fingerprint in holdout_fingerprints:
        return "leak: the input of the case is a holdout input"
    if input_fingerprint(example.prompt) in holdout_fingerprints:
        return "leak: the prompt is a holdout input"
    for where, messages in (("prompt", example.prompt), ("completion", example.completion), ("rejected", example.rejected)):
        for index, message in enumerate(messages):
            if any(input_fingerprint(text) in holdout_fingerprints for text in _texts(message)):
                return f"leak: {where}[{index}] ({message['role']}) holds a holdout input"
    return None


def normal_text(text: str) -> str:
    """The text without what does not change its meaning: NFKC, case folded, invisible characters removed, white space folded."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_invisible()).split())


@functools.cache
def _invisible() -> dict[int, None]:
    characters = map(chr, range(sys.maxunicode + 1))
    return {ord(char): None for char in characters if unicodedata.category(char) in {"Cc", "Cf"} and not char.isspace()}


def _normal_input(value: object) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        parsed = _json_object(value)
        return normal_text(value) if parsed is None else _normal_json(parsed)
    messages = _messages(value)
    if messages is None:
        return _normal_json(value)
    turns = [message for message in messages if message["role"] not in {"system", "developer"}] or messages
    if len(turns) == 1 and turns[0]["role"] == "user":
        return _normal_input(text_of(turns[0].get("content")))
    return [_normal_message(message) for message in turns]


def _normal_message(message: Mapping[str, object]) -> Any:  # noqa: ANN401 - a JSON value
    calls = message.get("tool_calls")
    said = [str(message["role"]), normal_text(text_of(message.get("content")))]
    return said if not calls else [*said, _normal_json(calls)]


def _normal_json(value: object) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return normal_text(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _normal_json(part) for key, part in cast("Mapping[str, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_normal_json(part) for part in cast("Sequence[object]", value)]
    return value


def _messages(value: object) -> list[Mapping[str, object]] | None:
    if not isinstance(value, (list, tuple)):
        return None
    items = cast("Sequence[object]", value)
    messages = [cast("Mapping[str, object]", item) for item in items if isinstance(item, Mapping) and "role" in item]
    return messages if messages and len(messages) == len(items) else None


def _json_object(text: str) -> object | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    whole = [text_of(message.get("content"))]
    for call in message.get("tool_calls") or ():
        function: object = call.get("function")
        arguments = cast("Mapping[str, object]", function).get("arguments") if isinstance(function, Mapping) else None
        whole += [arguments] if isinstance(arguments, str) else []
    for text in whole:
        yield text
        yield from (piece for piece in _pieces(text) if len(piece) >= MIN_EMBEDDED and len(normal_text(piece)) >= MIN_EMBEDDED)


def _pieces(text: str) -> set[str]:
    blocks = {text, *text.splitlines(), *re.split(r"\n\s*\n", text), *re.split(r"<[^<>]{1,40}>", text), *_json_texts(text)}
    labelled = (block.partition(":") for block in blocks)
    blocks |= {rest for label, _, rest in labelled if len(label) <= _MAX_LABEL}
    return blocks | {block.strip(_QUOTES) for block in blocks}


def _json_texts(text: str) -> Iterator[str]:
    parsed = _json_object(text)
    waiting: list[object] = [] if parsed is None else [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(cast("dict[str, object]", value).values())
        elif isinstance(value, list):
            waiting.extend(cast("list[object]", value))
