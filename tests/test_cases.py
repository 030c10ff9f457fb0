"""Cases: what they hold, what they refuse in plain words, and what their hash and split depend on."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pytest_touchstone.cases import (
    MAX_DEPTH,
    Case,
    Message,
    Problem,
    Quarantine,
    ValueFault,
    canonical_json,
    content_hash,
    default_split,
    describe,
    did_you_mean,
    problems_of,
    shown,
    shown_name,
)

SURROGATE = "\ud800"
HELD = {"reason": "the vendor answers at random", "until": "2099-12-31"}
DAY = "give a day as year-month-day, such as 2026-12-31"


def problems(**fields):
    with pytest.raises(ValidationError) as caught:
        Case(**{"id": "a", "input": "Hi", **fields})
    return [str(problem) for problem in problems_of(caught.value)]


def nested(levels):
    value = "deep"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": True}, "input: is true; give text (quote it), an object, or a list of messages"),
        ({"input": 42}, "input: is the number 42; give text (quote it), an object, or a list of messages"),
        ({"input": None}, "input: is null; give text (quote it), an object, or a list of messages"),
        ({"input": []}, "input: is an empty list; give text, an object, or at least one message"),
        ({"input": ["Hi"]}, "input[0]: is text 'Hi'; give an object with 'role' and 'content'"),
        ({"input": {"n": math.nan}}, "input.n: is nan, which is no JSON number; use null for a missing number, or write it as text"),
        ({"expected": -math.inf}, "expected: is -inf, which is no JSON number; use null for a missing number, or write it as text"),
        ({"expected": 10**1000}, "expected: is an integer of more than 990 digits; write it as text"),
        ({"expected": [1, (2,)]}, "expected[1]: is a Python tuple; use text, numbers, true/false, null, lists and objects (dict)"),
        ({"expected": {"a": {1: 2}}}, "expected.a: has the key the number 1; keys are text; quote it"),
        ({"expected": nested(MAX_DEPTH + 1)}, "expected: is nested more than 100 levels deep; flatten it, or keep it as text"),
        (
            {"input": "ab" + SURROGATE},
            "input: holds half a character (the surrogate U+D800 at position 2); write the whole character, or remove it",
        ),
        (
            {"metadata": {"a": ["x", SURROGATE]}},
            "metadata.a[1]: holds half a character (the surrogate U+D800 at position 0); write the whole character, or remove it",
        ),
        (
            {"metadata": {SURROGATE: 1}},
            "metadata: has a key that holds half a character (the surrogate U+D800 at position 0); write the whole character, or remove it",
        ),
        (
            {"rubric": SURROGATE},
            "rubric: holds half a character (the surrogate U+D800 at position 0); write the whole character, or remove it",
        ),
        ({"id": SURROGATE}, "id: holds half a character (a lone surrogate); write the whole character, or remove it"),
        ({"metadata": "x"}, "metadata: is text 'x'; give an object"),
        ({"reference": 3}, "reference: is the number 3; give text (quote it)"),
        ({"id": 7}, "id: is the number 7; give text (quote it)"),
        ({"id": ""}, "id: is empty; give at least one character"),
        ({"id": "x" * 513}, "id: has 513 characters; use at most 512"),
        ({"id": "a\x00b"}, "id: holds the control character U+0000 at position 1; use letters, digits, spaces and punctuation"),
        ({"id": "a\u202e"}, "id: holds the control character U+202E at position 1; use letters, digits, spaces and punctuation"),
        ({"id": "two\nlines"}, "id: holds the control character U+000A at position 3; use letters, digits, spaces and punctuation"),
        ({"tags": "a,b"}, "tags: is text 'a,b'; give a list of texts"),
        ({"tags": ["a", ""]}, "tags[1]: is empty; give at least one character"),
        ({"split": "tset"}, "split: is text 'tset'; use 'train' or 'holdout'"),
        ({"split": ["train"]}, "split: is a list; use 'train' or 'holdout'"),
        ({"must_pass": "yes"}, "must_pass: is text 'yes'; use true or false"),
        ({"quarantine": "flaky"}, "quarantine: is text 'flaky'; give an object with 'reason' and 'until'"),
        ({"quarantine": {"until": "2099-12-31"}}, "quarantine.reason: is missing; add it"),
        ({"quarantine": {"reason": "x", "until": None}}, "quarantine.until: is missing; add it"),
        ({"quarantine": {**HELD, "reason": " \n"}}, "quarantine.reason: is empty; say why the case is flaky"),
        ({"quarantine": {**HELD, "reason": 3}}, "quarantine.reason: is the number 3; give text (quote it)"),
        (
            {"quarantine": {**HELD, "reason": "a \x1b[2J"}},
            "quarantine.reason: holds the control character U+001B at position 2; use letters, digits, spaces and punctuation",
        ),
        ({"quarantine": {**HELD, "until": "soon"}}, f"quarantine.until: is text 'soon'; {DAY}"),
        ({"quarantine": {**HELD, "until": "2099-02-30"}}, f"quarantine.until: is text '2099-02-30'; {DAY}"),
        ({"quarantine": {**HELD, "until": "20991231"}}, f"quarantine.until: is text '20991231'; {DAY}"),
        ({"quarantine": {**HELD, "until": 2099}}, f"quarantine.until: is the number 2099; {DAY}"),
        (
            {"quarantine": {**HELD, "until": datetime(2099, 12, 31, tzinfo=UTC)}},
            f"quarantine.until: is a Python datetime; {DAY}",
        ),
        ({"quarantine": {**HELD, "untill": 1}}, "quarantine.untill: is no field of a quarantine; did you mean 'until'?"),
        ({"quarantine": {**HELD, "a\x1b": 1}}, "quarantine.'a\\x1b': is no field of a quarantine; keep only 'reason' and 'until'"),
        ({"quarantine": {**HELD, 1: 1}}, "quarantine.'1': is no field of a quarantine; keep only 'reason' and 'until'"),
        ({"expcted": 1}, "expcted: is no field of a case; correct its name, or put it under 'metadata'"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(fields, expected):
    assert problems(**fields) == [expected]


def test_every_fault_of_every_message_is_told():
    messages = [{"role": "usr", "content": 3}, {"content": "Hi"}, {"role": "user", "content": {"text": "x"}}]
    assert problems(input=messages, split="x") == [
        "input[0].role: is text 'usr'; use 'system', 'developer', 'user', 'assistant' or 'tool'",
        "input[0].content: is the number 3; give text (quote it) or a list of content parts",
        "input[1].role: is missing; add it",
        "input[2].content: is an object; give text (quote it) or a list of content parts",
        "split: is text 'x'; use 'train' or 'holdout'",
    ]


def test_every_fault_of_a_quarantine_is_told():
    assert problems(quarantine={"untill": "2099-12-31", "reason": ""}, split="x") == [
        "split: is text 'x'; use 'train' or 'holdout'",
        "quarantine.untill: is no field of a quarantine; did you mean 'until'?",
        "quarantine.reason: is empty; say why the case is flaky",
        "quarantine.until: is missing; add it",
    ]


@pytest.mark.parametrize("until", ["2099-12-31", date(2099, 12, 31)])
def test_a_quarantine_is_a_reason_in_one_line_and_a_last_day(until):
    case = Case(id="a", input="x", quarantine={"reason": " slow\n  vendor\u2028", "until": until})
    assert case.quarantine == Quarantine(reason="slow vendor", until=date(2099, 12, 31))
    assert Case(id="a", input="x", quarantine=case.quarantine).quarantine is case.quarantine
    assert Case(id="a", input="x", quarantine=None).quarantine is Case(id="a", input="x").quarantine is None
    with pytest.raises(ValidationError, match="frozen"):
        case.quarantine.reason = "other"


def test_a_quarantine_holds_through_its_last_day():
    quarantine = Quarantine(reason="x", until=date(2026, 12, 31))
    assert not quarantine.is_over(date(2026, 12, 31))
    assert quarantine.is_over(date(2027, 1, 1))


def test_a_missing_input_is_told():
    with pytest.raises(ValidationError) as caught:
        Case(id="a")
    assert [str(problem) for problem in problems_of(caught.value)] == ["input: is missing; add it"]


def test_pydantics_own_message_holds_ours():
    with pytest.raises(ValidationError, match=re.escape(".a: is nan, which is no JSON number; use null for a missing number")):
        Case(id="a", input="x", metadata={"a": math.nan})


def test_what_pydantic_may_say_one_day_is_passed_on():
    error = ValidationError.from_exception_data("Case", [{"type": "int_type", "loc": ("id",), "input": "x"}])
    assert str(problems_of(error)[0]) == "id: is text 'x'; Input should be a valid integer"


def test_a_list_that_holds_itself_is_refused():
    endless = []
    endless.append(endless)
    assert problems(expected=endless) == ["expected: is nested more than 100 levels deep; flatten it, or keep it as text"]


def test_messages_are_kept_with_their_further_keys_and_may_be_message_objects():
    messages = [
        Message(role="system", content="Be kind."),
        {"role": "assistant", "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": [{}]},
    ]
    case = Case(id="a", input=messages)
    assert case.input == [
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": [{}]},
    ]


def test_a_case_does_not_share_values_with_its_maker():
    value = {"a": [1]}
    case = Case(id="a", input=value, expected=value, metadata=value)
    value["a"].append(2)
    assert case.input == case.expected == case.metadata == {"a": [1]}


def test_a_case_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Case(id="a", input="x").input = "y"


def test_validating_what_is_no_object_is_refused():
    with pytest.raises(ValidationError, match="dictionary"):
        Case.model_validate(["a"])


def test_depth_up_to_the_limit_is_fine():
    assert Case(id="a", input="x", expected=nested(MAX_DEPTH)).expected == nested(MAX_DEPTH)


def test_the_content_hash_is_the_meaning_alone():
    case = Case(id="a", input={"b": 1, "a": 2}, expected="é")
    same = Case(id="b", input={"a": 2, "b": 1}, expected="é", tags=["x"], split="holdout", must_pass=True, metadata={"m": 1}, source="y:1")
    assert case.content_hash == same.content_hash
    assert case.content_hash == Case(**{**case.model_dump(), "quarantine": HELD}).content_hash
    assert case.content_hash == "bd8ab3b59cf7cd47d2274d00d707cb660e7ef1a718d2051e09472646fd552c19"
    assert case.content_hash != Case(id="a", input={"b": 1, "a": 2}, reference="é").content_hash


def test_hashes_of_odd_texts_are_stable():
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'
    assert content_hash(a=None) == content_hash()
    assert len(content_hash(a=SURROGATE)) == 64
    assert default_split(SURROGATE) in {"train", "holdout"}


def test_the_default_split_is_a_fifth_and_never_moves():
    splits = [default_split(f"case-{number}") for number in range(1000)]
    assert splits.count("holdout") == 196
    assert splits[:8] == ["holdout", "train", "holdout", "train", "train", "train", "train", "holdout"]


def test_an_explicit_split_wins():
    held = next(f"case-{number}" for number in range(100) if default_split(f"case-{number}") == "holdout")
    assert Case(id=held, input="x").split == "holdout"
    assert Case(id=held, input="x", split="train").split == "train"
    assert Case(id=held, input="x", split=None).split == "holdout"


@given(st.text(st.characters(codec="utf-8")))
def test_any_whole_text_may_be_an_input(text):
    assert Case(id="a", input=text, expected=[text], rubric=text).expected == [text]


@given(st.text())
def test_shown_is_short_printable_and_quoted(text):
    result = shown(text)
    assert len(result) <= 83
    assert result.isprintable()
    assert result[0] in "'\""


def test_a_name_is_quoted_where_it_is_no_plain_one():
    assert [shown_name(name) for name in ("input", "ünï", "a b", "x" * 81)] == ["input", "ünï", "'a b'", shown("x" * 81)]


def test_shown_takes_what_is_no_text_by_its_text():
    assert shown(12) == "'12'"
    assert shown("\x1b" * 60) == "'" + r"\x1b" * 19 + r"\x1" + "..."


@pytest.mark.parametrize(
    ("value", "expected"),
    [(10**30, "a huge number"), (1.5, "the number 1.5"), ({}, "an object"), (b"x", "a Python bytes"), (False, "false")],
)
def test_describe(value, expected):
    assert describe(value) == expected


def test_did_you_mean_only_what_is_close():
    assert did_you_mean("Inptu", ["input", "id"]) == "input"
    assert did_you_mean("question", ["input", "id"]) is None


def test_a_value_fault_joins_its_problems():
    fault = ValueFault(Problem(problem="is bad", fix="mend it"), Problem(at="[1]", problem="is worse", fix="drop it"))
    assert str(fault) == "is bad; mend it; [1]: is worse; drop it"
