"""OpenAI's fine-tuning formats, held to an independent reading of OpenAI's own rules."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from export_samples import WEATHER, assistant, example, tool_call, user
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_touchstone.export.example import LeftOut, problem_of
from pytest_touchstone.export.format import Files, NotHeldError
from pytest_touchstone.export.formats import openai_chat
from pytest_touchstone.export.formats.openai_chat import OpenAIChat, OpenAIPreference

RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
KEYS = {
    "system": {"content", "name"},
    "user": {"content", "name"},
    "assistant": {"content", "name", "tool_calls", "weight"},
    "tool": {"content", "tool_call_id"},
}
NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")


def message_faults(message):
    """The rules of one message, as the API's description and the cookbook's checks state them."""
    role = message.get("role")
    if role not in KEYS:
        return ["unrecognized_role"]
    faults = [f"message_unrecognized_key {key}" for key in message if key not in KEYS[role] | {"role"}]
    calls = message.get("tool_calls", [])
    if not isinstance(message.get("content"), str) and not calls:
        faults.append("missing_content")
    if "weight" in message and message["weight"] not in {0, 1}:
        faults.append("weight")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        faults.append("missing tool_call_id")
    for call in calls:
        arguments = json.loads(call["function"]["arguments"])
        good = set(call) == {"id", "type", "function"} and call["id"] and call["type"] == "function" and isinstance(arguments, dict)
        faults += [] if good and NAME.match(call["function"]["name"]) else ["tool_calls"]
    return faults


def conversation_faults(messages):
    faults = [fault for message in messages for fault in message_faults(message)]
    waiting = []
    for message in messages:
        if message["role"] == "tool":
            faults += [] if message.get("tool_call_id") in waiting else ["result without call"]
            waiting = [call for call in waiting if call != message.get("tool_call_id")]
        else:
            faults += ["call without result"] if waiting else []
            waiting = [call["id"] for call in message.get("tool_calls", [])]
    return faults


def tool_faults(tools):
    named = all(set(tool) == {"type", "function"} and NAME.match(tool["function"]["name"]) for tool in tools)
    return [] if named and len(tools) <= 128 and tools else ["tools"]


def file_faults(data, *, pairs=False):
    """What OpenAI would find wrong with a file: its rules, read from its guides and cookbook, not from the code under test."""
    assert len(data) <= 512 * 10**6
    rows = [json.loads(line) for line in data.decode("utf-8").split("\n")[:-1]]
    faults = Counter() if len(rows) >= 10 else Counter(["too few examples"])
    for row in rows:
        given = row["input"] if pairs else row
        known = {"messages", "tools", "parallel_tool_calls"}
        faults.update(conversation_faults(given["messages"]) + [key for key in given if key not in known])
        faults.update(tool_faults(given["tools"]) if "tools" in given else [])
        if pairs:
            faults.update([] if set(row) == {"input", "preferred_output", "non_preferred_output"} else ["keys"])
            faults.update([] if given["messages"][-1]["role"] != "assistant" else ["input ends with an answer"])
            for answers in (row["preferred_output"], row["non_preferred_output"]):
                one = len(answers) == 1 and answers[0]["role"] == "assistant" and not message_faults(answers[0])
                faults.update([] if one and "weight" not in answers[0] else ["answer"])
        elif row["messages"][-1]["role"] != "assistant" or row["messages"][-1].get("weight") == 0:
            faults.update(["example_missing_assistant_message"])
    return dict(faults)


def chat(**fields):
    return OpenAIChat().row(example(**fields))


def why(format_, **fields):
    with pytest.raises(NotHeldError) as raised:
        format_.row(example(**fields))
    return str(raised.value)


class TestChat:
    def test_the_last_message_is_trained_and_no_other(self):
        row = chat(
            prompt=(
                {"role": "developer", "content": "Be brief."},
                user("Weather?", name="ann"),
                assistant(None, tool_calls=[tool_call(' {"city": "Oslo"}')], refusal=None, reasoning_content="Hm."),
                RESULT | {"name": "weather"},
                assistant("4"),
                user("Sure?"),
            ),
            tools=(WEATHER | {"x": 1},),
        )
        assert row == {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Weather?", "name": "ann"},
                {"role": "assistant", "tool_calls": [tool_call(' {"city": "Oslo"}')], "weight": 0},
                {"role": "tool", "content": "4", "tool_call_id": "call_1"},
                {"role": "assistant", "content": "4", "weight": 0},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": "On its way."},
            ],
            "tools": [WEATHER],
        }

    def test_a_call_may_be_what_is_learnt(self):
        row = chat(completion=(assistant("", tool_calls=[tool_call()]),), tools=(WEATHER,))
        assert row["messages"][-1] == {"role": "assistant", "content": "", "tool_calls": [tool_call()]}

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"prompt": (user("a", name="Ann B."),)}, "a message's name is 'Ann B.'; OpenAI takes up to 64 letters, digits, '_' and '-'"),
            ({"completion": (assistant(None, tool_calls=[tool_call(name="f f")]),)}, "a function's name is 'f f'; OpenAI takes up to 64 letters, digits, '_' and '-'"),
            ({"completion": (assistant(None, tool_calls=[tool_call("[1]")]),)}, "the arguments of a call of 'weather' are no JSON object"),
            ({"completion": (assistant(None, tool_calls=[tool_call('{"a": NaN}')]),)}, "the arguments of a call of 'weather' are no JSON object"),
            ({"completion": (assistant(None, tool_calls=[tool_call(call_id=None)]),)}, "a call of 'weather' has no id"),
            ({"prompt": (RESULT,)}, "a tool's result answers no call before it"),
            ({"prompt": (assistant(None, tool_calls=[tool_call()]), user("Well?"))}, "a tool call has no result right behind it"),
            ({"prompt": (assistant(None, tool_calls=[tool_call(), tool_call(call_id="2")]), RESULT)}, "a tool call has no result right behind it"),
            ({"prompt": (assistant(None, tool_calls=[tool_call()]), RESULT, RESULT)}, "a tool's result answers no call before it"),
            ({"tools": ({"type": "web_search"},)}, "a tool of type 'web_search' is no function"),
            ({"tools": (WEATHER,) * 129}, "129 tools, and OpenAI takes 128"),
            ({"prompt": (user([{"type": "image_url", "image_url": {"url": "x"}}]),)}, "a message holds a part of type 'image_url'; only text can be trained on here"),
        ],
    )  # fmt: skip
    def test_what_it_cannot_hold(self, fields, reason):
        assert why(OpenAIChat(), **fields) == f"not in this format: {reason}"

    def test_ten_examples_are_enough_and_nine_are_not(self):
        rows = [chat(prompt=(user(f"{number} \u2028 é"),)) for number in range(10)]
        made = OpenAIChat().encode(rows)
        assert isinstance(made, Files)
        assert file_faults(made.content["train.jsonl"]) == {}
        assert OpenAIChat().encode(rows[:9]) == LeftOut(reason="too few: OpenAI takes 10 examples or more, and there would be 9")

    def test_a_file_may_be_too_large(self, monkeypatch):
        monkeypatch.setattr(openai_chat, "MAX_BYTES", 1000)
        made = OpenAIChat().encode([chat()] * 12)
        assert made == LeftOut(reason="too much: OpenAI takes files of up to 1,000 bytes, and this would have 1,380")

    def test_the_checker_sees_faults(self):
        good = chat()
        bad = {"messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": None, "x": 1}], "extra": 1}
        data = b"".join(json.dumps(row).encode() + b"\n" for row in [good, bad])
        assert file_faults(data) == {
            "too few examples": 1,
            "unrecognized_role": 1,
            "message_unrecognized_key x": 1,
            "missing_content": 1,
            "extra": 1,
            "example_missing_assistant_message": 1,
        }


class TestPreference:
    def test_a_pair(self):
        row = OpenAIPreference().row(
            example(prompt=(user("a"), assistant("b"), user("c")), rejected=(assistant("No idea."),), tools=(WEATHER,))
        )
        assert row == {
            "input": {"messages": [user("a"), assistant("b"), user("c")], "tools": [WEATHER]},
            "preferred_output": [assistant("On its way.")],
            "non_preferred_output": [assistant("No idea.")],
        }
        made = OpenAIPreference().encode([row] * 10)
        assert file_faults(made.content["train.jsonl"], pairs=True) == {}

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({}, "no pair of answers: the trial left no text that failed"),
            ({"kind": "replay"}, "no pair of answers: nothing failed, so there is only a good one"),
            ({"rejected": (assistant(" On its way.\n"),)}, "no pair of answers: the one that failed says the same as the target"),
        ],
    )
    def test_without_two_answers_there_is_none(self, fields, reason):
        assert why(OpenAIPreference(), **fields) == reason


@st.composite
def any_examples(draw):
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    said = text.filter(str.strip)
    ids = st.sampled_from(["call_1", "call_2", "", "é"])
    calls = st.lists(
        st.builds(lambda arguments, call_id: tool_call(arguments, call_id=call_id), st.sampled_from(["{}", '{"a": 0.3}', "[", "1"]), ids),
        min_size=1,
        max_size=2,
    )
    turn = st.one_of(
        said.map(user),
        said.map(assistant),
        text.map(lambda content: {"role": "system", "content": content}),
        calls.map(lambda made: assistant(None, tool_calls=made)),
        ids.map(lambda call_id: {"role": "tool", "content": "4", "tool_call_id": call_id}),
    )
    prompt = (*draw(st.lists(turn, max_size=4)), user(draw(said)))
    answer = draw(said.map(assistant) | calls.map(lambda made: assistant(None, tool_calls=made)))
    return example(prompt=prompt, completion=(answer,), rejected=(assistant(draw(said)),), tools=draw(st.sampled_from([(), (WEATHER,)])))


GOOD = example(rejected=(assistant("No."),))


@settings(max_examples=100)
@given(any_examples())
def test_whatever_is_written_keeps_the_rules(drawn):
    assert problem_of(drawn) is None
    for format_, pairs in ((OpenAIChat(), False), (OpenAIPreference(), True)):
        rows = [format_.row(GOOD)] * 10
        try:
            rows.append(format_.row(drawn))
        except NotHeldError as error:
            assert str(error).startswith(("not in this format: ", "no pair of answers: "))
        data = format_.encode(rows).content["train.jsonl"]
        assert file_faults(data, pairs=pairs) == {}
        assert [json.loads(line) for line in data.decode().splitlines()] == rows
