"""OpenAI's fine-tuning formats: chat examples, and pairs for direct preference optimisation.

The rules are those of OpenAI's guides on supervised and preference fine-tuning, of the schemas `FineTuneChatRequestInput` and
`FineTunePreferenceRequestInput` in its API description, and of the checks in its cookbook ("Data preparation and analysis for chat
model fine-tuning"): roles, keys, one assistant message at least, 10 examples at least, 512 MB a file, tools as functions only, and each
call of a tool answered by its result. Assistant messages of the prompt carry `"weight": 0`, because without it all of them are trained.
How many tokens an example may have depends on the model, and is not checked here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pytest_touchstone.export.chat import called_with, chat_messages
from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.format import TRAIN_FILE, Files, NotHeldError, json_lines
from pytest_touchstone.export.formats.trl import rejected_answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_touchstone.export.chat import Message
    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.format import Row

MIN_EXAMPLES: Final = 10
MAX_BYTES: Final = 512 * 10**6
MAX_TOOLS: Final = 128
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FUNCTION_KEYS: Final = frozenset({"name", "description", "parameters", "strict"})


class OpenAIChat:
    """Chat examples of which the last message is trained."""

    files = (TRAIN_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        messages = [*_messages(example, weight=0), *map(_message, chat_messages(example.completion))]
        return {"messages": messages, **_tools(example)}

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """As `Format.encode`."""
        return _file(rows)


class OpenAIPreference:
    """Pairs of a preferred and a non-preferred answer to one conversation."""

    files = (TRAIN_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        rejected = rejected_answer(example)
        given = {"messages": _messages(example), **_tools(example)}
        answers = [[_message(message) for message in chat_messages(messages)] for messages in (example.completion, rejected)]
        return {"input": given, "preferred_output": answers[0], "non_preferred_output": answers[1]}

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """As `Format.encode`."""
        return _file(rows)


def _file(rows: Sequence[Row]) -> Files | LeftOut:
    if len(rows) < MIN_EXAMPLES:
        return LeftOut(reason=f"too few: OpenAI takes {MIN_EXAMPLES} examples or more, and there would be {len(rows)}")
    data = json_lines(rows)
    if len(data) > MAX_BYTES:
        return LeftOut(reason=f"too much: OpenAI takes files of up to {MAX_BYTES:,} bytes, and this would have {len(data):,}")
    return Files(content={TRAIN_FILE: data})


def _messages(example: Example, *, weight: int | None = None) -> list[Message]:
    messages = chat_messages(example.prompt)
    _check_results(messages)
    return [_message(message, weight=weight) for message in messages]


def _message(message: Message, *, weight: int | None = None) -> Message:
    """The message with the keys that its role may have; without content where there is none, as in OpenAI's own examples."""
    role, calls = message["role"], message.get("tool_calls")
    kept: Message = {"role": role}
    if message["content"] is not None:
        kept["content"] = message["content"]
    if "name" in message and role != "tool":
        kept["name"] = _name(message["name"], "a message's name")
    if role == "tool":
        kept["tool_call_id"] = message["tool_call_id"]
    if calls:
        kept["tool_calls"] = [_call(call) for call in calls]
    if role == "assistant" and weight is not None:
        kept["weight"] = weight
    return kept


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    _name(call["function"]["name"], "a function's name")
    called_with(call)
    if not call.get("id"):
        msg = f"not in this format: a call of {call['function']['name']!r} has no id"
        raise NotHeldError(msg)
    return dict(call)


def _check_results(messages: Sequence[Message]) -> None:
    """Each call is answered by one result, right behind it, and each result answers a call."""
    open_calls: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                msg = "not in this format: a tool's result answers no call before it"
                raise NotHeldError(msg)
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            break
        open_calls = {call.get("id", "") for call in message.get("tool_calls", ())}
    if open_calls:
        msg = "not in this format: a tool call has no result right behind it"
        raise NotHeldError(msg)


def _tools(example: Example) -> Row:
    if len(example.tools) > MAX_TOOLS:
        msg = f"not in this format: {len(example.tools)} tools, and OpenAI takes {MAX_TOOLS}"
        raise NotHeldError(msg)
    return {"tools": [_tool(tool) for tool in example.tools]} if example.tools else {}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):  # pyright: ignore[reportUnknownMemberType]
        msg = f"not in this format: a tool of type {tool.get('type')!r} is no function"
        raise NotHeldError(msg)
    _name(function["name"], "a function's name")  # pyright: ignore[reportUnknownArgumentType]
    return {"type": "function", "function": {key: value for key, value in function.items() if key in _FUNCTION_KEYS}}  # pyright: ignore[reportUnknownVariableType]


def _name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        msg = f"not in this format: {what} is {name!r}; OpenAI takes up to 64 letters, digits, '_' and '-'"
        raise NotHeldError(msg)
    return name
