"""Bedrock's fine-tuning formats, held to the rules of its user guide."""

from __future__ import annotations

import json

import pytest
from export_samples import WEATHER, assistant, example, tool_call, user

from pytest_touchstone.export.format import NotHeldError
from pytest_touchstone.export.formats.bedrock import Bedrock, BedrockClaude

BRIEF = {"role": "system", "content": "Be brief."}


def why(format_, **fields):
    with pytest.raises(NotHeldError) as raised:
        format_.row(example(**fields))
    return str(raised.value)


def test_a_conversation_in_blocks():
    prompt = ({"role": "developer", "content": "Be brief."}, BRIEF, user([{"type": "text", "text": "a"}]), assistant("b"), user("c"))
    assert Bedrock().row(example(prompt=prompt)) == {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": "Be brief."}, {"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "a"}]},
            {"role": "assistant", "content": [{"text": "b"}]},
            {"role": "user", "content": [{"text": "c"}]},
            {"role": "assistant", "content": [{"text": "On its way."}]},
        ],
    }
    assert "system" not in Bedrock().row(example())


def test_a_conversation_as_claude_reads_it():
    assert BedrockClaude().row(example(prompt=(BRIEF, user("a")))) == {
        "system": "Be brief.",
        "messages": [user("a"), assistant("On its way.")],
    }
    assert set(BedrockClaude().row(example())) == {"messages"}
    assert why(BedrockClaude(), prompt=(BRIEF, BRIEF, user("a"))) == "not in this format: 2 system messages, and there is a place for one"


@pytest.mark.parametrize("format_", [Bedrock(), BedrockClaude()])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tools": (WEATHER,)}, "the conversation has tools, and Bedrock's fine-tuning takes none"),
        ({"completion": (assistant(None, tool_calls=[tool_call()]),)}, "the conversation has tools, and Bedrock's fine-tuning takes none"),
        ({"prompt": (user("a"), {"role": "tool", "content": "4"})}, "the conversation has tools, and Bedrock's fine-tuning takes none"),
        ({"prompt": (user("a"), user("b"))}, "user and assistant do not take turns, which Bedrock asks for"),
        ({"prompt": (assistant("a"), user("b"))}, "user and assistant do not take turns, which Bedrock asks for"),
        ({"prompt": (user("a"), BRIEF)}, "user and assistant do not take turns, which Bedrock asks for"),
        ({"prompt": (BRIEF,)}, "user and assistant do not take turns, which Bedrock asks for"),
        ({"prompt": (user(" \n"),)}, "a message is empty"),
        ({"prompt": ({"role": "system", "content": ""}, user("a"))}, "a message is empty"),
    ],
)
def test_what_it_cannot_hold(format_, fields, reason):
    assert why(format_, **fields) == f"not in this format: {reason}"


@pytest.mark.parametrize("word", ["User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]"])
def test_words_that_novas_prompt_is_made_of(word):
    reason = f"not in this format: a prompt holds {word!r}, a word that Bedrock keeps for itself"
    assert why(Bedrock(), prompt=(user(f"Why {word} ?"),)) == reason
    assert why(Bedrock(), prompt=({"role": "system", "content": word}, user("a"))) == reason
    assert Bedrock().row(example(completion=(assistant(word),)))
    assert BedrockClaude().row(example(prompt=(user(word),)))


@pytest.mark.parametrize("format_", [Bedrock(), BedrockClaude()])
def test_one_json_object_a_line(format_):
    rows = [format_.row(example(prompt=(user(f"{number} \u2028\n é"),))) for number in range(3)]
    data = format_.encode(rows).content["train.jsonl"]
    assert [json.loads(line) for line in data.decode().splitlines()] == rows
