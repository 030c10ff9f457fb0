"""What an app makes of its model's answer: its output as it stands, one field of it, or something that cannot be undone.

A target is what the app should have put out; it is a target for the model only where the way back from the one to the other is known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from pytest_touchstone.cases import canonical_json
from pytest_touchstone.scoring.structured import find_json
from pytest_touchstone.scoring.values import NotJsonError, json_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

_AROUND: Final = " .,;:!?\"'`*_"


def is_answer(output: object, answer: str, *, exactly: bool = False) -> bool:
    r"""Whether the output is what the model answered, but for space, case and the punctuation around it, or the JSON in it.

    With `exactly`, nothing may differ but the space around a text, or the layout of an answer that is nothing but JSON.

    >>> is_answer("returns", " Returns.\n"), is_answer({"queue": "returns"}, '```json\n{"queue": "returns"}\n```')
    (True, True)
    >>> is_answer("returns", " Returns.\n", exactly=True), is_answer("returns", " returns\n", exactly=True)
    (False, True)
    >>> is_answer("42", "Six times seven is 42."), is_answer("returns", '{"queue": "returns"}')
    (False, False)
    """
    if isinstance(output, str):
        return output.strip() == answer.strip() or (not exactly and _words(output) == _words(answer))
    try:
        value = json_value(output)
        found = json.loads(answer) if exactly or isinstance(value, (int, float)) else _json_in(answer, value)
        return canonical_json(found) == canonical_json(value)
    except (TypeError, ValueError, RecursionError, NotJsonError):
        return False


def only_field(output: object, answer: str) -> str | None:
    """The field whose value is the output, where the model answers with an object of this one field; None elsewhere.

    >>> only_field("returns", '{"queue": "returns"}')
    'queue'
    >>> only_field("returns", '{"queue": "returns", "why": "It came broken."}')
    """
    said = _object_in(answer)
    if len(said) != 1:
        return None
    [(field, value)] = said.items()
    return field if is_answer(output, value if isinstance(value, str) else json.dumps(value)) else None


def missing_fields(target: Mapping[str, JsonValue], answer: str) -> dict[str, JsonValue]:
    """What the model's answer says beside the fields of a target; nothing where the answer is no object.

    >>> missing_fields({"queue": "sales"}, '{"queue": "returns", "why": "It came broken."}')
    {'why': 'It came broken.'}
    """
    return {field: value for field, value in _object_in(answer).items() if field not in target}


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_AROUND) or text


def _object_in(answer: str) -> dict[str, JsonValue]:
    try:
        said = _json_in(answer, {})
    except (ValueError, RecursionError, NotJsonError):
        return {}
    return said if isinstance(said, dict) else {}


def _json_in(answer: str, like: object) -> JsonValue:
    try:
        return cast("JsonValue", json.loads(answer))
    except ValueError:
        return cast("JsonValue", find_json(answer, like=like)[0])
