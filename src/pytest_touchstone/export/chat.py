"""Chat messages as every training format starts from them: texts only, and calls of functions with their arguments as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.export.example import text_of
from pytest_touchstone.export.format import NotHeldError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Message = dict[str, Any]

_TEXT_KEYS: Final = ("name", "tool_call_id", "reasoning_content")
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})


def chat_messages(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The messages with the keys that some consumer reads: `role`, `content`, `name`, `tool_call_id`, `reasoning_content`, `tool_calls`.

    `developer` becomes `system`, which all of them know. Text parts are joined by newlines. `content` is always there, null beside tool
    calls only.

    Raises:
        NotHeldError: a message holds anything else.
    """
    return [_message(message) for message in messages]


def called_with(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a tool call as the JSON object that they are.

    Raises:
        NotHeldError: they are none.
    """
    try:
        arguments = json.loads(call["function"]["arguments"], parse_constant=_no_constant)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        msg = f"not in this format: the arguments of a call of {call['function']['name']!r} are no JSON object"
        raise NotHeldError(msg)
    return cast("dict[str, Any]", arguments)


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _message(message: Mapping[str, Any]) -> Message:
    role = "system" if message["role"] == "developer" else message["role"]
    kept: Message = {"role": role, "content": _content(message.get("content"))}
    kept |= {key: message[key] for key in _TEXT_KEYS if isinstance(message.get(key), str)}
    if message.get("tool_calls"):
        kept["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return kept


def _content(content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    for part in cast("Sequence[Mapping[str, object]]", content):
        if part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            msg = f"not in this format: a message holds a part of type {part.get('type')!r}; only text can be trained on here"
            raise NotHeldError(msg)
    return text_of(content)


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function: object = call.get("function")
    fields: Mapping[str, object] = cast("Mapping[str, object]", function) if isinstance(function, Mapping) else {}
    name, arguments = fields.get("name"), fields.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str):
        msg = f"not in this format: a tool call of type {call.get('type')!r} has no function name with arguments as JSON text"
        raise NotHeldError(msg)
    called = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": call["id"], **called} if isinstance(call.get("id"), str) else called
