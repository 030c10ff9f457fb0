"""What a judge decides, and how votes are counted."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.judging.verdict import Grading, Unusable, Verdict
from pytest_touchstone.models.client import Answer

BINARY = Grading()
FIVE = Grading(scale=(1, 5))
PASS = Verdict(passed=True, value=1.0, reason="good")
FAIL = Verdict(passed=False, value=0.0, reason="bad")
LOST = Unusable(reason="refused")


def read(grading, text=None, **fields):
    return grading.read(Answer(**({"text": text} if text is not None else {}), **fields), max_tokens=40)


def grade(number):
    return FIVE.verdict({"reason": f"worth {number}", "grade": number})


@pytest.mark.parametrize(
    ("scale", "threshold"), [((1, 5), 4), ((1, 10), 8), ((0, 1), 1), ((1, 3), 3), ((1, 4), 4), ((0, 4), 3), ((-2, 2), 1), ((0, 100), 75)]
)
def test_the_default_threshold_is_the_lowest_grade_worth_three_quarters(scale, threshold):
    assert Grading(scale=scale).threshold == threshold


def test_a_threshold_is_a_grade_and_may_lie_between_two():
    assert Grading(scale=(1, 5), threshold=5).threshold == 5
    assert Grading(scale=(1, 5), threshold=3.5).threshold == 3.5
    assert Grading().threshold is None


@pytest.mark.parametrize("scale", ["grades", None, (1,), (1, 2, 3), (5, 1), (1, 1), (1.0, 5), (True, 5), [1, 5], (0, 101)], ids=str)
def test_a_scale_that_is_none_says_so(scale):
    message = f"judge scale is {scale!r}; give 'binary', or the lowest and highest grade, at most 101 grades, as in scale=(1, 5)"
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        Grading(scale=scale)


@pytest.mark.parametrize("threshold", [1, 0, 6, 0.75, True, "4", float("nan")])
def test_a_threshold_off_the_scale_says_so(threshold):
    message = f"judge threshold is {threshold!r}; on the scale (1, 5) give a grade above 1, and 5 at most"
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        Grading(scale=(1, 5), threshold=threshold)


def test_a_binary_scale_takes_no_threshold():
    message = "judge threshold is 0.5, but the binary scale has none; leave it out, or give a scale such as (1, 5)"
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        Grading(threshold=0.5)


def test_the_schema_asks_for_the_reason_first_and_forbids_the_rest():
    assert BINARY.schema == {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": ["pass", "fail"]}},
        "required": ["reason", "verdict"],
        "additionalProperties": False,
    }
    assert list(BINARY.schema["properties"]) == ["reason", "verdict"]
    assert FIVE.schema["properties"]["grade"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}


@pytest.mark.parametrize(
    "text",
    [
        '{"reason": "good", "verdict": "pass"}',
        ' \n{"reason": "good", "verdict": " PASS "}\n',
        '```json\n{"reason": "good", "verdict": "pass"}\n```',
        '```\n{"reason": "good", "verdict": "pass"}```',
        '<think>It says {"verdict": "fail"}</think>\n{"reason": "good", "verdict": "pass"}',
        '{"reason": "good", "verdict": "pass", "confidence": 1}',
    ],
)
def test_text_that_is_a_verdict(text):
    assert read(BINARY, text) == PASS
    assert read(BINARY, text, stop="other") == PASS


def test_data_from_a_tool_is_a_verdict():
    assert read(BINARY, data={"reason": "bad", "verdict": "fail"}) == FAIL
    assert read(FIVE, data={"reason": "so so", "grade": 3}) == Verdict(passed=False, value=0.5, grade=3, reason="so so")
    assert read(FIVE, data={"reason": "fine", "grade": 4}) == Verdict(passed=True, value=0.75, grade=4, reason="fine")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(stop="refusal", detail="I cannot."), "refused: I cannot."),
        (Answer(stop="refusal", text="I will\x1b not."), r"refused: I will\x1b not."),
        (Answer(stop="refusal"), "refused"),
        (Answer(stop="content_filter", text='{"reason": "", "verdict": "pass"}'), "was stopped by the provider's content filter"),
        (Answer(stop="length", text='{"reason": "", "verdict": "pass"}'), "was cut off at 40 tokens"),
        (Answer(), "answered with nothing"),
        (Answer(text=" \n", stop="other"), "answered with nothing"),
    ],
)
def test_a_model_that_stopped_short_gave_no_verdict(answer, reason):
    assert BINARY.read(answer, max_tokens=40) == Unusable(reason=reason)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "pass",
        'It quotes {"reason": "x", "verdict": "pass"}, yet fails.',
        '{"reason": "x", "verdict": "fail"} {"reason": "x", "verdict": "pass"}',
        '{"reason": "x", "verdict": "fail", "verdict": "pass"}',
        '<think>{"reason": "x", "verdict": "pass"}',
        "[" * 5000,
        '{"grade": ' + "1" * 5000 + "}",
        "```",
    ],
    ids=lambda text: text[:12],
)
def test_text_that_is_not_one_json_object_gave_no_verdict(text):
    said = read(BINARY, text)
    assert isinstance(said, Unusable)
    assert said.reason.startswith("answered with something other than one JSON object: ")
    assert len(said.reason) < 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"verdict": "pass"}, "reason: Field required"),
        ({"reason": "x"}, "verdict: Field required"),
        ({"reason": "x", "verdict": "maybe"}, "verdict: Input should be 'pass' or 'fail'"),
        ({"reason": "x", "verdict": True}, "verdict: Input should be 'pass' or 'fail'"),
        ({"reason": 1, "verdict": "pass"}, "reason: Input should be a valid string"),
        ([], "not an object"),
    ],
)
def test_json_of_another_shape_gave_no_verdict(data, reason):
    assert BINARY.verdict(data) == Unusable(reason=f"answered with JSON of another shape: {reason}")


@pytest.mark.parametrize(("number", "shown"), [(0, "0"), (6, "6"), (10**30, str(10**30))])
def test_a_grade_off_the_scale_gave_no_verdict(number, shown):
    assert grade(number) == Unusable(reason=f"answered with a grade off the scale (1, 5): {shown}")


@pytest.mark.parametrize("value", ["4", 4.0, True, None])
def test_a_grade_is_a_whole_number(value):
    assert grade(value) == Unusable(reason="answered with JSON of another shape: grade: Input should be a valid integer")


def test_reasons_are_untrusted_text():
    said = BINARY.verdict({"reason": "\x1b[2J\u202eok\n" + "x" * 1000, "verdict": "pass"})
    assert isinstance(said, Verdict)
    assert said.reason.startswith(r"\x1b[2J\u202eok x")
    assert len(said.reason) == 500


@given(st.text())
def test_any_text_is_a_verdict_or_a_reason(text):
    for grading in (BINARY, FIVE):
        said = read(grading, text)
        assert isinstance(said, Verdict) or said.reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["reason", "verdict", "grade"]) | st.text(), inner),
)


@given(json_values)
def test_any_json_is_a_verdict_or_a_reason_and_text_says_what_data_says(value):
    for grading in (BINARY, FIVE):
        said = grading.verdict(value)
        assert isinstance(said, Verdict) or said.reason
        if value is not None:
            assert read(grading, data=value) == said
            assert read(grading, json.dumps(value)) == said


def test_one_vote_speaks_for_itself():
    assert BINARY.settle([PASS]) == PASS
    assert BINARY.settle([LOST]) == LOST
    assert BINARY.settle([Verdict(passed=False, value=0.0, reason="")]) == Verdict(passed=False, value=0.0, reason="no reason given")
    assert FIVE.settle([grade(4)]) == Verdict(passed=True, value=0.75, reason="grade 4 on 1 to 5, passing from 4: worth 4")


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([FAIL, PASS, PASS], Verdict(passed=True, value=1.0, reason="2 of 3 votes pass: good")),
        ([PASS, FAIL, FAIL], Verdict(passed=False, value=0.0, reason="1 of 3 votes pass: bad")),
        ([LOST, PASS, PASS], Verdict(passed=True, value=1.0, reason="2 of 3 votes pass, 0 fail, 1 gave no verdict: good")),
        ([FAIL, LOST, FAIL], Verdict(passed=False, value=0.0, reason="0 of 3 votes pass, 2 fail, 1 gave no verdict: bad")),
        ([PASS, FAIL, LOST], Unusable(reason="1 of 3 votes pass, 1 fail, 1 gave no verdict: refused")),
        ([PASS, LOST, LOST], Unusable(reason="1 of 3 votes pass, 0 fail, 2 gave no verdict: refused")),
        ([PASS, PASS, LOST, LOST, LOST], Unusable(reason="2 of 5 votes pass, 0 fail, 3 gave no verdict: refused")),
        ([LOST, LOST, LOST], Unusable(reason="0 of 3 votes pass, 0 fail, 3 gave no verdict: refused")),
    ],
)
def test_more_than_half_of_all_votes_decide(votes, said):
    assert BINARY.settle(votes) == said


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        (
            [grade(5), grade(2), grade(4)],
            Verdict(passed=True, value=0.75, reason="2 of 3 votes pass, grades 5, 2, 4 on 1 to 5, passing from 4: worth 5"),
        ),
        (
            [grade(1), grade(5), grade(3)],
            Verdict(passed=False, value=0.5, reason="1 of 3 votes pass, grades 1, 5, 3 on 1 to 5, passing from 4: worth 1"),
        ),
        (
            [grade(5), LOST, grade(4)],
            Verdict(
                passed=True,
                value=0.875,
                reason="2 of 3 votes pass, 0 fail, 1 gave no verdict, grades 5, none, 4 on 1 to 5, passing from 4: worth 5",
            ),
        ),
        ([grade(5), LOST, grade(1)], Unusable(reason="1 of 3 votes pass, 1 fail, 1 gave no verdict: refused")),
    ],
)
def test_grades_count_by_their_median(votes, said):
    assert FIVE.settle(votes) == said


@pytest.mark.parametrize("votes", [1, 3, 5])
def test_the_value_never_contradicts_the_decision(votes):
    line = (FIVE.threshold - 1) / 4
    for combination in itertools.product([grade(number) for number in (1, 3, 4, 5)] + [LOST], repeat=votes):
        said = FIVE.settle(combination)
        if isinstance(said, Verdict):
            assert said.passed == (said.value >= line)
