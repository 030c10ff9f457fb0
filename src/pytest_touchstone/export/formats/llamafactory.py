"""LLaMA-Factory's sharegpt format, with the `dataset_info.json` that makes it known.

The rules are those of its loader (0.9.5: `data/converter.py`, `data/formatter.py`, `data/processor/`): after an optional `system` turn,
`human` or `observation` turns alternate with `gpt` or `function_call` turns; an example that breaks this is dropped there with no more
than a warning, so it is left out here with the reason. Its other format for chats, `openai`, is not used: it adds a line of its own to
the system prompt, or a whole prompt where there is none.

A `function_call` turn is JSON with `name` and `arguments`, several calls are a list. The loader parses the arguments and writes them
anew, so they stand there as the JSON text that was on the wire, with all its digits. The texts of one column must not all be dates,
since `datasets`, by which the loader reads the file, would make timestamps of them.

What the loader does not read from the data, its job has to say: `mask_history: true`, since without it every turn of the model is trained,
and `default_system: ""`, since without it many templates put their maker's system prompt before a conversation that has none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.export.chat import called_with, chat_messages
from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.format import TRAIN_FILE, Files, NotHeldError, json_lines, json_text
from pytest_touchstone.export.formats.trl import DATE, first_chunk, rejected_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_touchstone.export.chat import Message
    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.format import Row

INFO_FILE: Final = "dataset_info.json"
DATASET: Final = "touchstone"
PREFERENCE_DATASET: Final = "touchstone_preference"
_MEDIA: Final = ("<image>", "<video>", "<audio>")
_ASKING: Final = ("human", "observation")
_NO_TURNS: Final = "not in this format: the sides do not take turns, which LLaMA-Factory asks for"
_FILES: Final = (TRAIN_FILE, INFO_FILE)  # the data first: what the index names is there


class ShareGPT:
    """Conversations that end in the target; the dataset `touchstone`."""

    files = _FILES

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        return {"conversations": _turns((*example.prompt, *example.completion)), "tools": _tools(example)}

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """As `Format.encode`."""
        return _encode(rows, DATASET)


class ShareGPTPreference:
    """Conversations with a chosen and a rejected answer; the dataset `touchstone_preference`."""

    files = _FILES

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        answers = {"chosen": example.completion, "rejected": rejected_answer(example)}
        given = _turns(example.prompt)
        if given[-1]["from"] not in _ASKING:
            raise NotHeldError(_NO_TURNS)
        return {
            "conversations": given,
            **{name: _turn(chat_messages(messages)[0]) for name, messages in answers.items()},
            "tools": _tools(example),
        }

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """As `Format.encode`."""
        return _encode(rows, PREFERENCE_DATASET, ranking=True)


def _encode(rows: Sequence[Row], name: str, *, ranking: bool = False) -> Files | LeftOut:
    chunk = first_chunk(rows)
    for column in ("conversations", "chosen", "rejected") if ranking else ("conversations",):
        if all(DATE.fullmatch(turn["value"]) for row in chunk for turn in _all_turns(row[column])):
            return LeftOut(reason=f"only dates: every text of {column} is one, and LLaMA-Factory's reader would make timestamps of them")
    columns = {"messages": "conversations", "tools": "tools"} | ({"chosen": "chosen", "rejected": "rejected"} if ranking else {})
    entry = {"file_name": TRAIN_FILE, "formatting": "sharegpt", **({"ranking": True} if ranking else {}), "columns": columns}
    info = json.dumps({name: entry}, indent=2) + "\n"
    return Files(content={TRAIN_FILE: json_lines(rows), INFO_FILE: info.encode()})


def _all_turns(value: object) -> Iterator[dict[str, str]]:
    yield from cast("list[dict[str, str]]", value if isinstance(value, list) else [value])


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    turns = [_turn(message) for message in chat_messages(messages)]
    said = turns[1:] if turns[0]["from"] == "system" else turns
    if any(turn["from"] == "system" for turn in said):
        msg = "not in this format: a system message stands elsewhere than at the start"
        raise NotHeldError(msg)
    for number, turn in enumerate(said):
        if (turn["from"] in _ASKING) != (number % 2 == 0):
            raise NotHeldError(_out_of_turn(said, number))
    return turns


def _out_of_turn(said: Sequence[dict[str, str]], number: int) -> str:
    if number and said[number]["from"] == said[number - 1]["from"] == "observation":
        return "not in this format: several results of tools in a row, and LLaMA-Factory takes one"
    return _NO_TURNS


def _turn(message: Message) -> dict[str, str]:
    calls = message.get("tool_calls")
    if calls and (message["content"] or "").strip():
        msg = "not in this format: a message holds a text beside its tool calls"
        raise NotHeldError(msg)
    text = _calls(calls) if calls else message["content"]
    for place in _MEDIA:
        if place in text:
            msg = f"not in this format: a text holds {place}, which LLaMA-Factory takes for the place of a medium"
            raise NotHeldError(msg)
    speaker = {"system": "system", "user": "human", "tool": "observation", "assistant": "function_call" if calls else "gpt"}
    return {"from": speaker[message["role"]], "value": text}


def _calls(calls: Sequence[Mapping[str, Any]]) -> str:
    texts: list[str] = []
    for call in calls:
        called_with(call)
        texts.append(f'{{"name": {json_text(call["function"]["name"])}, "arguments": {call["function"]["arguments"]}}}')
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _tools(example: Example) -> str:
    """The tools as JSON text; empty where there are none, which the loader takes for none."""
    for tool in example.tools:
        try:
            function = tool["function"]
            name, properties = function["name"], function["parameters"]["properties"]
        except (KeyError, TypeError):
            name = properties = None
        if tool.get("type") != "function" or not isinstance(name, str) or not isinstance(properties, dict):
            msg = "not in this format: a tool is no function whose parameters have properties, which LLaMA-Factory's templates read"
            raise NotHeldError(msg)
    return json_text(list(example.tools)) if example.tools else ""
