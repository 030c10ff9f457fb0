"""LLaMA-Factory's sharegpt format, held to the rules of its loader; the loader itself reads it in tests/consumers."""

from __future__ import annotations

import json

import pytest
from export_samples import WEATHER, assistant, example, tool_call, user
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.format import NotHeldError
from pytest_touchstone.export.formats.llamafactory import ShareGPT, ShareGPTPreference

BRIEF = {"role": "system", "content": "Be brief."}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
CALLED = assistant(None, tool_calls=[tool_call('{"city":  "Oslo", "exact": 0.10}')])


def loader_drops(row, *, ranking=False):
    """Why LLaMA-Factory 0.9.5 would drop or misread a row (its SharegptDatasetConverter and FunctionFormatter); nothing where it would not."""
    turns = row["conversations"]
    turns = turns[1:] if turns and turns[0]["from"] == "system" else turns
    rules = {
        "turns": all(turn["from"] in (("human", "observation"), ("gpt", "function_call"))[n % 2] for n, turn in enumerate(turns)),
        "count": len(turns) % 2 == ranking and turns,
        "texts": all(set(turn) == {"from", "value"} and isinstance(turn["value"], str) for turn in row["conversations"]),
        "tools": isinstance(row["tools"], str)
        and all(tool["function"]["parameters"]["properties"] for tool in json.loads(row["tools"] or "[]")),
        "answers": not ranking or {row["chosen"]["from"], row["rejected"]["from"]} <= {"gpt", "function_call"},
    }
    for turn in turns:
        if turn["from"] == "function_call":
            calls = json.loads(turn["value"])
            rules["calls"] = all(set(call) == {"name", "arguments"} for call in (calls if isinstance(calls, list) else [calls]))
    return [name for name, kept in rules.items() if not kept]


def why(format_=None, **fields):
    with pytest.raises(NotHeldError) as raised:
        (format_ or ShareGPT()).row(example(**fields))
    return str(raised.value)


class TestConversation:
    def test_turns_and_tools(self):
        row = ShareGPT().row(example(prompt=(BRIEF, user("Weather?"), CALLED, RESULT), tools=(WEATHER,)))
        assert row == {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city":  "Oslo", "exact": 0.10}}'},
                {"from": "observation", "value": "4"},
                {"from": "gpt", "value": "On its way."},
            ],
            "tools": json.dumps([WEATHER]),
        }
        assert loader_drops(row) == []
        assert ShareGPT().row(example())["tools"] == ""

    def test_several_calls_are_a_list(self):
        both = assistant("", tool_calls=[tool_call("{}"), tool_call('{"a": 1}', name="g")])
        row = ShareGPT().row(example(completion=(both,)))
        assert json.loads(row["conversations"][-1]["value"]) == [{"name": "weather", "arguments": {}}, {"name": "g", "arguments": {"a": 1}}]

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"prompt": (user("a"), user("b"))}, "the sides do not take turns, which LLaMA-Factory asks for"),
            ({"prompt": (assistant("a"), user("b"))}, "the sides do not take turns, which LLaMA-Factory asks for"),
            ({"prompt": (BRIEF,)}, "the sides do not take turns, which LLaMA-Factory asks for"),
            ({"prompt": (user("a"), BRIEF)}, "a system message stands elsewhere than at the start"),
            ({"prompt": (BRIEF, BRIEF, user("a"))}, "a system message stands elsewhere than at the start"),
            ({"prompt": (user("a"), CALLED, RESULT, RESULT)}, "several results of tools in a row, and LLaMA-Factory takes one"),
            ({"prompt": (user("a"), CALLED | {"content": "Hm."}, RESULT)}, "a message holds a text beside its tool calls"),
            ({"prompt": (user("What is <image>?"),)}, "a text holds <image>, which LLaMA-Factory takes for the place of a medium"),
            ({"completion": (assistant(None, tool_calls=[tool_call("[1]")]),)}, "the arguments of a call of 'weather' are no JSON object"),
            ({"completion": (assistant(None, tool_calls=[tool_call("}{")]),)}, "the arguments of a call of 'weather' are no JSON object"),
            ({"tools": ({"type": "web"},)}, "a tool is no function whose parameters have properties, which LLaMA-Factory's templates read"),
            ({"tools": ({"type": "function", "function": {"name": "f"}},)}, "a tool is no function whose parameters have properties, which LLaMA-Factory's templates read"),
            ({"tools": ({"type": "function", "function": None},)}, "a tool is no function whose parameters have properties, which LLaMA-Factory's templates read"),
        ],
    )  # fmt: skip
    def test_what_it_cannot_hold(self, fields, reason):
        assert why(**fields) == f"not in this format: {reason}"

    def test_the_index_names_the_file_and_its_columns(self):
        made = ShareGPT().encode([ShareGPT().row(example())])
        assert json.loads(made.content["dataset_info.json"]) == {
            "touchstone": {"file_name": "train.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}}
        }
        assert list(made.content) == ["train.jsonl", "dataset_info.json"]

    def test_dates_alone_would_become_timestamps(self):
        row = ShareGPT().row(example(prompt=(user("2026-10-03"),), completion=(assistant("2026-10-04"),)))
        assert ShareGPT().encode([row]) == LeftOut(
            reason="only dates: every text of conversations is one, and LLaMA-Factory's reader would make timestamps of them"
        )


class TestPreference:
    def test_a_pair(self):
        row = ShareGPTPreference().row(example(prompt=(BRIEF, user("a")), rejected=(assistant("No."),)))
        assert row == {
            "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "On its way."},
            "rejected": {"from": "gpt", "value": "No."},
            "tools": "",
        }
        assert loader_drops(row, ranking=True) == []
        made = ShareGPTPreference().encode([row])
        assert json.loads(made.content["dataset_info.json"]) == {
            "touchstone_preference": {
                "file_name": "train.jsonl",
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {"messages": "conversations", "tools": "tools", "chosen": "chosen", "rejected": "rejected"},
            }
        }

    def test_what_it_cannot_hold(self):
        assert why(ShareGPTPreference()) == "no pair of answers: the trial left no text that failed"
        taking_turns = "not in this format: the sides do not take turns, which LLaMA-Factory asks for"
        assert why(ShareGPTPreference(), prompt=(BRIEF,), rejected=(assistant("No."),)) == taking_turns

    def test_dates_alone_would_become_timestamps(self):
        row = ShareGPTPreference().row(example(completion=(assistant("2026-10-03"),), rejected=(assistant("2026-10-04"),)))
        assert ShareGPTPreference().encode([row]) == LeftOut(
            reason="only dates: every text of chosen is one, and LLaMA-Factory's reader would make timestamps of them"
        )


@settings(max_examples=100)
@given(data=st.data())
def test_whatever_is_written_is_not_dropped(data):
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(str.strip)
    values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2), max_leaves=4)  # fmt: skip
    arguments = st.dictionaries(text, values, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False))
    calling = st.lists(arguments.map(tool_call), min_size=1, max_size=2).map(lambda calls: assistant(None, tool_calls=calls))
    turn = st.one_of(text.map(user), text.map(assistant), calling, st.just(BRIEF), st.just(RESULT))
    prompt = (*data.draw(st.lists(turn, max_size=4)), user(data.draw(text)))
    made = example(prompt=prompt, completion=(data.draw(text.map(assistant) | calling),), rejected=(assistant(data.draw(text)),))
    for format_, ranking in ((ShareGPT(), False), (ShareGPTPreference(), True)):
        try:
            row = format_.row(made)
        except NotHeldError as error:
            assert str(error).startswith(("not in this format: ", "no pair of answers: "))
            continue
        assert loader_drops(row, ranking=ranking) == []
        wire = [call["function"] for message in (*made.prompt, *made.completion) for call in message.get("tool_calls") or ()]
        turns = row["conversations"] + ([row["chosen"]] if ranking else [])
        read = [json.loads(turn["value"]) for turn in turns if turn["from"] == "function_call"]
        flat = [call for calls in read for call in (calls if isinstance(calls, list) else [calls])]
        assert flat == [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in wire]
