"""Amazon Bedrock's fine-tuning formats: `bedrock-conversation-2024`, and the one of Anthropic's models.

The first is that of Amazon Nova (Bedrock user guide and Nova user guide, "Preparing data for fine-tuning"; "Supervised fine-tuning on
Amazon Nova 2.0"): `user` and `assistant` take turns, beginning with `user` and ending with `assistant`; the system prompt stands apart;
content is a list of blocks. Its fine-tuning takes no tools, though the format has a place for them, and refuses some words that its own
prompt is made of.

The second is that of Claude 3 Haiku, the only model of Anthropic for which Bedrock documents fine-tuning (user guide, "Prepare data for
fine-tuning text-to-text models"; Anthropic's cookbook, "Finetuning Claude 3 Haiku on Bedrock"): the same turns, contents as plain texts,
and no other key than `system` and `messages`. Anthropic's own API has no fine-tuning.

How many records and tokens a job takes is a quota of the model and the account, and is not checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_touchstone.export.chat import chat_messages
from pytest_touchstone.export.format import TRAIN_FILE, Files, NotHeldError, json_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_touchstone.export.chat import Message
    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.format import Row

SCHEMA: Final = "bedrock-conversation-2024"
RESERVED: Final = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")


class Bedrock:
    """`bedrock-conversation-2024`."""

    files = (TRAIN_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        system, turns = _conversation(example)
        for message in (*system, *turns):
            word = None if message["role"] == "assistant" else next((word for word in RESERVED if word in message["content"]), None)
            if word is not None:
                msg = f"not in this format: a prompt holds {word!r}, a word that Bedrock keeps for itself"
                raise NotHeldError(msg)
        return {
            "schemaVersion": SCHEMA,
            **({"system": [{"text": message["content"]} for message in system]} if system else {}),
            "messages": [{"role": message["role"], "content": [{"text": message["content"]}]} for message in turns],
        }

    def encode(self, rows: Sequence[Row]) -> Files:
        """As `Format.encode`."""
        return Files(content={TRAIN_FILE: json_lines(rows)})


class BedrockClaude:
    """The format of Claude 3 Haiku."""

    files = (TRAIN_FILE,)

    def row(self, example: Example) -> Row:
        """As `Format.row`."""
        system, turns = _conversation(example)
        if len(system) > 1:
            msg = f"not in this format: {len(system)} system messages, and there is a place for one"
            raise NotHeldError(msg)
        return {
            **({"system": system[0]["content"]} if system else {}),
            "messages": [{"role": message["role"], "content": message["content"]} for message in turns],
        }

    def encode(self, rows: Sequence[Row]) -> Files:
        """As `Format.encode`."""
        return Files(content={TRAIN_FILE: json_lines(rows)})


def _conversation(example: Example) -> tuple[list[Message], list[Message]]:
    """The system messages at the start, and the turns behind them."""
    messages = chat_messages((*example.prompt, *example.completion))
    if example.tools or any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        msg = "not in this format: the conversation has tools, and Bedrock's fine-tuning takes none"
        raise NotHeldError(msg)
    start = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    system, turns = messages[:start], messages[start:]
    if any(message["role"] != ("user", "assistant")[number % 2] for number, message in enumerate(turns)):
        msg = "not in this format: user and assistant do not take turns, which Bedrock asks for"
        raise NotHeldError(msg)
    if not all(message["content"].strip() for message in messages):
        msg = "not in this format: a message is empty"
        raise NotHeldError(msg)
    return system, turns
