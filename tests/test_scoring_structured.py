from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from scoring_samples import any_text, json_values, said, trial_of

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.structured import find_json, json_match, pair_up, shown_path


class Ticket(BaseModel):
    team: str


@given(json_values)
def test_every_value_matches_itself_as_value_and_as_text(value):
    assert json_match([value])(trial_of([value])).passed
    assert json_match(json.dumps(value))(trial_of(json.dumps(value))).passed
    assert json_match(json.dumps(value), unordered=True, abs_tol=0.1, rel_tol=0.1)(trial_of(json.dumps(value))).passed


@given(st.lists(json_values, max_size=5).flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_unordered_is_symmetric_in_permutations(pair):
    one, other = pair
    assert json_match(one, unordered="$")(trial_of(other)).passed
    assert json_match(other, unordered=True)(trial_of(one)).passed


@given(any_text, json_values)
def test_no_text_makes_it_raise(output, expected):
    for options in ({}, {"loose": True}, {"unordered": True, "subset": True, "rel_tol": 0.1}):
        assert json_match(json.dumps(expected), **options)(trial_of(output)).passed in {True, False}


@given(json_values, json_values)
def test_without_options_it_agrees_with_python_but_for_booleans(one, other):
    if json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True):
        assert json_match([one])(trial_of([other])).passed
    elif one != other:
        assert json_match([one])(trial_of([other])).passed is False


def test_the_reason_lists_the_paths_that_differ():
    expected = {"priority": "high", "items": [{"id": 1}, {"id": 2}], "a key": None, "gone": [1]}
    output = {"priority": "low", "items": [{"id": 1}, {"id": True}, 3], "a key": 0, "new": {}}
    assert said(json_match(), output, expected) == (
        False,
        (
            '$.priority: expected "high", got "low"\n'
            "$.items[1].id: expected 2, got true\n"
            "$.items[2]: not expected, got 3\n"
            '$["a key"]: expected null, got 0\n'
            "$.gone: expected [1], but it is missing\n"
            "$.new: not expected, got {}"
        ),
    )
    assert said(json_match([1, 2]), [1]) == (False, "$[1]: expected 2, but it is missing")
    assert said(json_match({"a": 1}), [1]) == (False, '$: expected {"a": 1}, got [1]')


def test_a_long_list_of_differences_is_cut():
    assert said(json_match(list(range(12))), [-1] * 12)[1].endswith("$[9]: expected 9, got -1\nand 2 more")
    assert said(json_match(list(range(200))), [-1] * 200)[1].endswith("\nand at least 91 more")


def test_text_and_models_are_read():
    assert said(json_match(), ' {"team": "net"}\n', {"team": "net"}) == (True, "")
    assert said(json_match(), Ticket(team="net"), '{"team": "net"}') == (True, "")
    assert said(json_match(None), "null") == (True, "")
    assert said(json_match(), '"high"', '"high"') == (True, "")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("no", 'the output is not JSON: Expecting value at line 1 column 1: "no"'),
        ('{"a": 1, "a": 2}', 'the output is not JSON that can be compared: the key "a" is repeated: "{"a": 1, "a": 2}"'),
        ("[NaN]", 'the output is not JSON that can be compared: NaN is not a JSON number: "[NaN]"'),
        ("-Infinity", 'the output is not JSON that can be compared: -Infinity is not a JSON number: "-Infinity"'),
        ("1e400", 'the output is not JSON that can be compared: the number 1e400 is out of range: "1e400"'),
        ({"a": math.nan}, "the output is not JSON that can be compared: NaN and Infinity are not JSON numbers"),
        (object(), "the output <object> has no JSON form: Unable to serialize unknown type: <class 'object'>"),
        ("[" * 65 + "1" + "]" * 65, "the output is not JSON that can be compared: it nests more than 64 levels"),
    ],
)
def test_an_output_that_is_not_json_fails(output, reason):
    assert said(json_match({}), output) == (False, reason)


def test_depth_and_size_never_raise():
    deep = "[" * 100_000
    assert said(json_match({}), deep)[1].startswith("the output is not JSON that can be compared: it nests more than 64 levels: ")
    assert said(json_match({}, loose=True), deep)[1].startswith(
        "the output is not JSON that can be compared: it nests more than 64 levels: "
    )
    assert said(json_match({}, loose=True), "[x" * 100_000)[1].startswith("the output holds no JSON object: ")
    assert said(json_match({}), "1" * 5000)[1].startswith("the output is not JSON that can be compared: Exceeds the limit (4300 digits)")
    at_limit = "[" * 64 + "]" * 64
    assert said(json_match(at_limit, unordered=True), at_limit) == (True, "")
    assert said(json_match("[" * 63 + "1" + "]" * 63, unordered=True), "[" * 63 + "2" + "]" * 63) == (
        False,
        f"${'[0]' * 63}: expected 1, got 2",
    )


def test_ignored_paths_are_not_compared():
    expected = {"id": 1, "items": [{"id": 1, "n": 1}, {"id": 2, "n": 2}], "meta": {"at": 1}, "a key": [1]}
    output = {"items": [{"id": 7, "n": 1}, {"n": 2}], "meta": {"at": 2, "by": 3}, "a key": [2, 3], "extra": 0}
    scorer = json_match(ignore=["id", "items[*].id", "$.meta.*", '["a key"][*]', "extra"])
    assert said(scorer, output, expected) == (True, "")
    assert said(json_match(ignore="items[0]"), {"items": [0, 2]}, {"items": [1, 3]}) == (False, "$.items[1]: expected 3, got 2")
    assert said(json_match(ignore="$"), [1], [2]) == (True, "")
    assert said(json_match(ignore="*"), {"a": 1}, {"b": 2}) == (True, "")


def test_order_matters_only_where_it_is_not_said_otherwise():
    expected, output = {"a": [1, 2], "b": [1, 2]}, {"a": [2, 1], "b": [2, 1]}
    assert said(json_match(unordered=["a", "b"]), output, expected) == (True, "")
    assert said(json_match(unordered=["a"]), output, expected) == (False, "$.b[0]: expected 1, got 2\n$.b[1]: expected 2, got 1")
    assert said(json_match(unordered="*"), output, expected) == (True, "")
    assert said(json_match([1, 1], unordered=True), [1, 2]) == (False, "$[1]: expected 1, got 2")
    assert said(json_match([1, 2], unordered=True), [3, 4]) == (
        False,
        (
            "$[0]: expected 1 in any place, but nothing left equals it\n"
            "$[1]: expected 2 in any place, but nothing left equals it\n"
            "$[0]: not expected, got 3\n"
            "$[1]: not expected, got 4"
        ),
    )
    assert said(json_match([1], unordered="$", ignore="[*]"), [2, 3]) == (True, "")
    assert said(json_match([{"id": 1, "n": 1}, {"id": 2, "n": 2}], unordered=True, ignore="[*].id"), [{"n": 2}, {"n": 1}]) == (True, "")


def test_unordered_elements_are_paired_as_many_as_can_be():
    # 1.0 fits both outputs, 1.1 only one of them: the first that fits would leave 1.1 alone.
    assert said(json_match([1.0, 1.2, 1.1], unordered=True, abs_tol=0.1), [1.1, 1.0, 1.2]) == (True, "")
    assert said(json_match([1.1, 1.0], unordered=True, abs_tol=0.1), [1.0, 1.2]) == (True, "")


@given(st.integers(0, 5), st.integers(0, 5), st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_pairing_is_a_maximum(left, right, edges):
    def best(one, free):
        if one == left:
            return 0
        return max([best(one + 1, free), *(1 + best(one + 1, free - {other}) for other in free if (one, other) in edges)])

    pairs = pair_up(left, right, lambda one, other: (one, other) in edges)
    assert len(set(pairs.values())) == len(pairs) == best(0, frozenset(range(right)))
    assert set(pairs.items()) <= edges


def test_tolerances_are_those_of_the_decimals_written():
    assert said(json_match({"a": 1.0}, abs_tol=0.1), {"a": 1.1}) == (True, "")
    assert said(json_match({"a": 1.0}, abs_tol=0.1), {"a": 1.11}) == (False, "$.a: expected 1.0, got 1.11")
    assert said(json_match(200, rel_tol=0.01), 202) == (True, "")
    assert said(json_match(200, rel_tol=0.01), 203)[0] is False
    assert said(json_match(10**400, rel_tol=0.1), 10**400 + 1) == (True, "")
    assert said(json_match(1, abs_tol=1), True)[0] is False
    assert said(json_match([1], abs_tol=1), ["1.5"])[0] is False
    assert said(json_match(1), 1.0) == (True, "")


def test_subset_allows_more():
    scorer = json_match({"a": {"b": 1}, "tags": ["x"]}, subset=True, unordered="tags")
    assert said(scorer, {"a": {"b": 1, "c": 2}, "tags": ["y", "x"], "d": 3}) == (True, "")
    assert said(scorer, {"a": {}, "tags": ["y"]}) == (
        False,
        '$.a.b: expected 1, but it is missing\n$.tags[0]: expected "x" in any place, but nothing left equals it',
    )
    assert said(json_match([1], subset=True), [1, 2]) == (False, "$[1]: not expected, got 2")


def test_loose_finds_json_in_fences_and_prose():
    fenced = 'First\n```json\n{"a": 0}\n```\nthen\n~~~\n{"a": 1}\n~~~\nand\n```python\nprint()\n```\n'
    loose = json_match({"a": 1}, loose=True)
    assert said(loose, fenced) == (True, "compared the JSON found in a fenced block")
    assert said(loose, 'See [1]: {"a": 2} as in [2]') == (False, "compared the JSON found inside the text\n$.a: expected 1, got 2")
    assert said(loose, '{so {"a": 1}') == (True, "compared the JSON found inside the text")
    assert said(loose, '{"a": 1}') == (True, "")
    assert said(loose, "none") == (False, 'the output holds no JSON object: "none"')
    assert said(json_match([1], loose=True), '{"a": 1} [1]') == (True, "compared the JSON found inside the text")
    assert said(json_match("3", loose=True), "x") == (False, 'the output holds no JSON object or list: "x"')
    assert said(json_match({"a": 1}), fenced)[1].startswith("the output is not JSON: Expecting value at line 1 column 1: ")


def test_loose_does_not_take_a_part_for_the_whole():
    assert said(json_match({"a": 1}, loose=True), 'so: {"b": 1, "b": {"a": 1}}') == (
        False,
        'the output is not JSON that can be compared: the key "b" is repeated: "so: {"b": 1, "b": {"a": 1}}"',
    )


def test_a_fence_ends_at_a_fence_of_its_kind():
    assert find_json("````\n[1]\n```\n````\n[2]", like=[]) == ([2], "compared the JSON found inside the text")
    assert find_json("```\n[1]\n```\n[2]") == ([1], "compared the JSON found in a fenced block")


def test_expected_must_be_json():
    with pytest.raises(ScorerError) as caught:
        json_match()(trial_of("{}"))
    assert str(caught.value) == "case 'late' (support.yaml:14) has no `expected`, which json_match() compares with; add one, or use judge()"
    with pytest.raises(ScorerError) as caught:
        json_match()(trial_of("{}", "high"))
    assert str(caught.value) == (
        "case 'late' (support.yaml:14): `expected` is not JSON: Expecting value at line 1 column 1: \"high\";"
        " give a JSON value or JSON text, or use exact_match()"
    )
    with pytest.raises(ScorerError, match=r"^json_match\(expected=\.\.\.\): <object> has no JSON form: .*; give a JSON value or JSON text"):
        json_match(object())(trial_of("{}"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a..b", "\"a..b\" is no path at position 1; write it like 'items[*].id' or '$[\"a key\"][0]'"),
        (".a", '".a" is no path at position 0; write it'),
        ("a[x]", '"a[x]" is no path at position 1; write it'),
        ("a[*]b", '"a[*]b" is no path at position 4; write it'),
        ("$a", '"$a" is no path at position 1; write it'),
        ('["\\q"]', "is no path at position 0; write it"),
        ("", "a path is empty; write '$' for the whole value"),
    ],
)
def test_bad_paths_say_where(path, message):
    with pytest.raises(ScorerError) as caught:
        json_match(ignore=path)
    assert str(caught.value).startswith("json_match(ignore=...): ")
    assert message in str(caught.value)


def test_bad_options_are_refused():
    with pytest.raises(ScorerError, match=r"^json_match\(unordered=\.\.\.\): null is None; give a path or a list of paths$"):
        json_match(unordered=None)
    with pytest.raises(ScorerError, match=r"^json_match\(ignore=\.\.\.\): 3 is a number; give paths such as 'items\[\*\]\.id'$"):
        json_match(ignore=[3])
    for tolerance, shown in ((-1, "-1"), (math.inf, "Infinity"), (True, "true"), ("1", '"1"')):
        with pytest.raises(ScorerError) as caught:
            json_match(abs_tol=tolerance)
        assert str(caught.value) == f"json_match(): abs_tol is {shown}; give a number of at least 0"


def test_paths_are_shown_without_acting():
    assert shown_path(("a\x1b", 0, "b")) == '$["a\\x1b"][0].b'


def test_a_scorer_is_a_frozen_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        json_match({}).name = "x"
