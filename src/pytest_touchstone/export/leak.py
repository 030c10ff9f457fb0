"""The leak guard: a holdout case never reaches a training file, by any path."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.cases import canonical_json
from pytest_touchstone.export.example import text_of
from pytest_touchstone.export.near import DEFAULT_THRESHOLD, Said, near_copies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_touchstone.export.example import Example

# A piece of a longer text counts as a holdout input from this length on (normalised characters): apps wrap inputs in templates,
# while short lines ("Hello", "Thank you") stand in many prompts for reasons of their own.
MIN_EMBEDDED: Final = 20
_MAX_LABEL: Final = 40
# What tells an example's messages from its names: texts of messages that are the same words in every conversation.
_FORMAL: Final = frozenset({"role", "type", "id", "tool_call_id"})
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


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A holdout case as the guard knows it; `text` is what its input says (`input_text`) and is compared with, never shown or written.

    `suite` is the test that reads it (`evals/test_support.py::test_support`), `source` where it stands (`support.yaml:14`).
    """

    suite: str
    case_id: str
    source: str
    fingerprint: str
    text: str

    @classmethod
    def of(cls, value: object, *, suite: str, case_id: str, source: str) -> HeldOut:
        """What the guard has to know of a case with this input."""
        return cls(suite=suite, case_id=case_id, source=source, fingerprint=input_fingerprint(value), text=input_text(value))


@dataclass(frozen=True, kw_only=True)
class NearCopy:
    """A holdout case, and the example (by its number) that nearly says its input; `where` is the place in it: `input`, `prompt[1]`, ..."""

    example: int
    where: str
    held: HeldOut
    similarity: float


def input_text(value: object) -> str:
    r"""What an input says, normalised: the text, what was said in a conversation but for the system prompt, or the texts of an object.

    >>> input_text([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where  is it?"}])
    'where is it?'
    >>> input_text({"question": "Where?", "order": 17})
    'where? 17'
    """
    if isinstance(value, str):
        return normal_text(value)
    messages = _messages(value)
    if messages is None:
        return normal_text("\n".join(_leaves(value)))
    turns = [message for message in messages if message["role"] not in {"system", "developer"}] or messages
    return normal_text("\n".join(text for message in turns for text in _leaves(message)))


def near_holdout(examples: Sequence[Example], held: Sequence[HeldOut], *, threshold: float = DEFAULT_THRESHOLD) -> tuple[NearCopy, ...]:
    """Which examples nearly say what a holdout input says (`near` has the measure), anywhere: in their case's input or in what they teach.

    Of each pair, the nearest place. Sorted by example, then by holdout case.
    """
    if not held or not examples:
        return ()
    places = [list(_places(example)) for example in examples]
    taught = [
        Said(suite=_base(example.suite), texts=tuple(text for _, text in texts)) for example, texts in zip(examples, places, strict=True)
    ]
    kept = [Said(suite=_base(case.suite), texts=(case.text,)) for case in held]
    found = near_copies(taught, kept, threshold=threshold)
    return tuple(
        NearCopy(example=match.train, where=places[match.train][match.text][0], held=held[match.holdout], similarity=match.similarity)
        for match in found
    )


def leaks(example: Example, holdout_fingerprints: Collection[str]) -> str | None:
    """Why the example may not be written beside these holdout inputs, None where it may.

    Compared are the case's input, the conversation, every message that is taught or shown (whatever field of the example holds it, and
    tool-call arguments too), the texts of tools, and the pieces of at least 20 characters that a template may have put around an
    input: lines, paragraphs, what stands between tags, after a label or in quotes, and the texts of a JSON message. The reason never
    quotes the text.
    """
    if not holdout_fingerprints:
        return None
    if example.input_fingerprint in holdout_fingerprints:
        return "leak: the input of the case is a holdout input"
    if input_fingerprint(example.prompt) in holdout_fingerprints:
        return "leak: the prompt is a holdout input"
    for where, said in _said(example):
        role = f" ({said['role']})" if "role" in said else ""
        if any(input_fingerprint(text) in holdout_fingerprints for text in _texts(said)):
            return f"leak: {where}{role} holds a holdout input"
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


def _said(example: Example) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every message and tool of an example with its place, whatever the fields are called that hold them."""
    for field in dataclasses.fields(example):
        value: object = getattr(example, field.name)
        if isinstance(value, (list, tuple)):
            for index, item in enumerate(cast("Sequence[object]", value)):
                if isinstance(item, Mapping):
                    yield f"{field.name}[{index}]", cast("Mapping[str, Any]", item)


def _places(example: Example) -> Iterator[tuple[str, str]]:
    """The texts of an example that are compared with holdout inputs, normalised, each once, with its place."""
    whole = [("input", normal_text(example.input_text)), ("prompt", input_text(example.prompt))]
    said = [(where, normal_text("\n".join(_leaves(item)))) for where, item in _said(example)]
    seen: set[str] = set()
    # The places that say it best come first: a text that is the input and a message is reported as the input.
    for where, text in (whole[0], *said, whole[1]):
        if text and text not in seen:
            seen.add(text)
            yield where, text


def _base(suite: str) -> str:
    """The suite without the parameters of its test, which read the same cases."""
    return suite.partition("[")[0]


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    for text in [text_of(message.get("content")), *_leaves({name: part for name, part in message.items() if name != "content"})]:
        yield text
        yield from (piece for piece in _pieces(text) if len(piece) >= MIN_EMBEDDED and len(normal_text(piece)) >= MIN_EMBEDDED)


def _leaves(value: object) -> Iterator[str]:
    """The texts and numbers inside a JSON value, in order; of messages, not what every conversation says (roles, types, ids of calls)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in cast("Mapping[str, object]", value).items():
            if not (name in _FORMAL and isinstance(part, str)):
                yield from _leaves(part)
    elif isinstance(value, (list, tuple)):
        for part in cast("Sequence[object]", value):
            yield from _leaves(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)


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
