"""The example: what it holds, what it refuses, and how it travels between processes."""

from __future__ import annotations

import dataclasses
import json
from types import MappingProxyType

import pytest
from export_samples import WEATHER, assistant, example, tool_call, user

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.example import Example, LeftOut, plain, problem_of, text_of, validate_example

CYCLE: list = []
CYCLE.append(CYCLE)


class TestJourney:
    def test_survives_another_process(self):
        made = example(
            prompt=(
                user("Weather?"),
                assistant(None, tool_calls=[tool_call()]),
                {"role": "tool", "tool_call_id": "call_1", "content": "4"},
            ),
            tools=(WEATHER,),
            checks=("exact_match",),
        )
        assert Example.from_dict(json.loads(json.dumps(made.to_dict()))) == made

    def test_to_dict_is_a_deep_copy_in_plain_types(self):
        made = example(prompt=(MappingProxyType({"role": "user", "content": "Hi"}),))
        data = made.to_dict()
        assert data["prompt"] == [{"role": "user", "content": "Hi"}]
        data["prompt"][0]["content"] = "changed"
        assert made.prompt[0]["content"] == "Hi"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"colour": "red"}, "got an unexpected keyword argument 'colour'"),
            ({"prompt": None}, "'NoneType' object is not iterable"),
        ],
    )
    def test_from_dict_refuses_what_is_no_example(self, change, message):
        with pytest.raises(ExportError) as raised:
            Example.from_dict(example().to_dict() | change)
        assert str(raised.value).startswith("case 'order': this is no example: ")
        assert message in str(raised.value)
        assert str(raised.value).endswith("; build it with Example(...) or Example.to_dict()")

    def test_from_dict_validates(self):
        with pytest.raises(ExportError, match=r"^case 'order': the example cannot be exported: the completion is empty$"):
            Example.from_dict(example().to_dict() | {"completion": [assistant("  \n")]})

    def test_a_reason_counts_by_what_stands_before_its_details(self):
        assert LeftOut(reason="leak: x: y").category == "leak"
        assert LeftOut(reason="holdout").category == "holdout"


class TestProblems:
    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"case_id": 7, "input_fingerprint": ""}, "case_id is int; give text"),
            ({"kind": "praise"}, "kind is 'praise'; use 'fix' or 'replay'"),
            ({"trial": 0}, "trial is 0; count from 1"),
            ({"trial": True}, "trial is True; count from 1"),
            ({"tags": ("a", 1)}, "tags and checks must be texts"),
            ({"prompt": (user("a\ud800b"),)}, "a text holds a lone surrogate (U+D800), which UTF-8 cannot"),
            ({"prompt": (user("a", at={1}),)}, "it is not JSON: set is no JSON value"),
            ({"prompt": (user("a", at=CYCLE),)}, "it is not JSON: Circular reference detected"),
            ({"prompt": ("Hi",)}, "prompt[0] is str; give a chat message"),
            ({"prompt": (user("a"), {"content": "b"})}, "prompt[1] has the role None; use one of assistant, developer, system, tool, user"),
            ({"prompt": ({"role": "user"},)}, "prompt[0] has neither content nor tool_calls"),
            ({"prompt": (user(4),)}, "prompt[0] has content of type int; give text or a list of parts"),
            ({"prompt": (user(["a"]),)}, "prompt[0] has content of type list; give text or a list of parts"),
            ({"prompt": (user("a", tool_calls=[tool_call()]),)}, "prompt[0] has tool_calls that are no list of tool calls by the assistant"),
            ({"completion": (assistant(None, tool_calls="f()"),)}, "completion[0] has tool_calls that are no list of tool calls by the assistant"),
            ({"tools": ("weather",)}, "a tool is no object; give tool definitions as they are sent"),
            ({"prompt": ()}, "the prompt is empty"),
            ({"prompt": (user("a"), assistant("Sure,"))}, "the prompt ends with an assistant message, so the completion would not be an answer"),
            ({"completion": ()}, "the completion must be exactly one assistant message"),
            ({"completion": (assistant("a"), assistant("b"))}, "the completion must be exactly one assistant message"),
            ({"completion": (user("a"),)}, "the completion must be exactly one assistant message"),
            ({"completion": (assistant(""),)}, "the completion is empty"),
            ({"completion": (assistant([{"type": "text", "text": " "}]),)}, "the completion is empty"),
        ],
    )  # fmt: skip
    def test_each_is_named(self, fields, problem):
        made = example(**fields)
        assert problem_of(made) == problem
        with pytest.raises(ExportError) as raised:
            validate_example(made)
        assert str(raised.value) == f"case {made.case_id!r}: the example cannot be exported: {problem}"

    def test_a_number_that_json_lacks(self):
        assert problem_of(example(prompt=(user("a", at=float("nan")),))).startswith("it is not JSON: Out of range float")

    @pytest.mark.parametrize(
        "fields",
        [
            {"completion": (assistant(None, tool_calls=[tool_call()]),)},
            {"completion": (assistant([{"type": "text", "text": "Hi"}]),)},
            {"prompt": ({"role": "developer", "content": "Be brief."}, user([{"type": "image_url", "image_url": {"url": "x"}}]))},
            {"prompt": (user("a"), assistant("b", tool_calls=[]), user("c"))},
        ],
    )
    def test_what_providers_send_is_fine(self, fields):
        made = example(**fields)
        assert problem_of(made) is None
        assert validate_example(made) is made

    def test_deep_json_is_a_problem_not_a_crash(self):
        deep = {}
        for _ in range(100_000):
            deep = {"a": deep}
        assert problem_of(example(prompt=(user("a", deep=deep),))).startswith("it is not JSON: ")
        while deep:  # taken apart by hand: freeing it in one go recurses as deep
            deep = deep["a"]


class TestHooks:
    def test_may_change_the_conversation_and_tags(self):
        offered = example()
        changed = dataclasses.replace(offered, prompt=(user("Other words"),), completion=(assistant("Yes."),), tags=())
        assert validate_example(changed, offered=offered) is changed

    def test_may_not_pass_an_example_off_as_another_case(self):
        offered = example()
        changed = dataclasses.replace(offered, case_id="other", input_fingerprint="0" * 64)
        with pytest.raises(ExportError) as raised:
            validate_example(changed, offered=offered)
        assert str(raised.value) == (
            "case 'order': pytest_llm_example changed case_id, input_fingerprint; change prompt, completion, tools, rejected or tags only"
        )

    def test_must_return_an_example(self):
        with pytest.raises(ExportError) as raised:
            validate_example({"prompt": []}, offered=example())
        assert str(raised.value) == (
            "case 'order': pytest_llm_example returned dict; return an Example (dataclasses.replace makes one)"
        )  # fmt: skip


def test_plain_keeps_values_and_drops_wrappers():
    assert plain({"a": (1, 2.5, None, MappingProxyType({"b": True}))}) == {"a": [1, 2.5, None, {"b": True}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}, "c"], "a\nb"),
        (None, ""),
        (5, ""),
    ],
)
def test_text_of_content(content, text):
    assert text_of(content) == text
