from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from pydantic import BaseModel
from scoring_samples import any_text, json_values, said, trial_of

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring import patterns
from pytest_touchstone.scoring.exact import exact_match


class Answer(BaseModel):
    team: str
    priority: int


@dataclasses.dataclass
class Reply:
    team: str


@given(json_values)
def test_every_value_matches_itself(value):
    if value is not None:
        assert exact_match()(trial_of(value, value)).passed


@given(any_text, any_text)
def test_no_text_makes_it_raise(output, expected):
    for scorer in (exact_match(), exact_match(unicode="NFKC", casefold=True, normalize_whitespace=True, extract=r"a(.)?", remove=",")):
        try:
            assert scorer(trial_of(output, expected)).passed in {True, False}
        except ScorerError as error:
            assert "nothing of `expected`" in str(error)


def test_outer_white_space_is_ignored_unless_it_matters():
    assert said(exact_match(), " No.\n", "No.") == (True, "")
    assert said(exact_match(strip=False), "No.\n", "No.") == (False, 'expected "No.", got "No.\\n"')


@pytest.mark.parametrize(
    ("options", "output", "expected"),
    [
        ({"casefold": True}, "STRASSE", "straße"),
        ({"normalize_whitespace": True}, "a \n\t b", "a b"),
        ({"unicode": "NFC"}, "e\u0301", "é"),
        ({"unicode": "NFKC"}, "１２", "12"),
        ({"unicode": "NFC", "casefold": True}, "\u0130", "i\u0307"),
        ({"remove": r"[,$]|\.$"}, "$1,200. ", "1200"),
    ],
)
def test_each_normalisation_is_asked_for(options, output, expected):
    assert said(exact_match(**options), output, expected) == (True, "")
    assert exact_match()(trial_of(output, expected)).passed is False


def test_the_reason_shows_both_sides_and_what_was_compared():
    assert said(exact_match(casefold=True), "Yes\x1b[0m", "NO") == (
        False,
        'expected "NO", got "Yes\\x1b[0m" (compared as "no" and "yes\\x1b[0m")',
    )
    assert said(exact_match(), "Yes", "No") == (False, 'expected "No", got "Yes"')


def test_extract_takes_the_last_match():
    final = exact_match(extract=r"(?m)^A:\s*(.*)$")
    assert said(final, "A: 3\nso\nA: 4", "4") == (True, "")
    assert said(final, "four", "4") == (False, 'nothing matched the pattern "(?m)^A:\\s*(.*)$" in "four"')
    assert said(final, {"a": 1}, "4") == (False, "the output is an object, and a pattern can only extract from text")
    assert said(exact_match(extract=re.compile(r"\d+", re.ASCII)), "1 then 22", "22") == (True, "")
    assert said(exact_match(extract=r"a|b(\d)"), "b7 a", "7") == (True, "")


def test_extract_may_be_a_callable():
    scorer = exact_match(extract=lambda output: output.get("answer"))
    assert said(scorer, {"answer": "4"}, "4") == (True, "")
    assert said(scorer, {"other": 1}, "4") == (False, '`extract` found nothing in {"other": 1}')
    assert said(exact_match(extract=lambda output: None), object(), "4") == (False, "`extract` found nothing in <object>")


def test_other_values_are_equal_as_json():
    scorer = exact_match()
    assert said(scorer, {"b": [1.0], "a": None}, {"a": None, "b": [1]}) == (True, "")
    assert said(scorer, Answer(team="net", priority=1), {"team": "net", "priority": 1}) == (True, "")
    assert said(scorer, Reply("net"), {"team": "net"}) == (True, "")
    assert said(scorer, [2, 1], [1, 2]) == (False, "expected [1, 2], got [2, 1]")
    assert said(scorer, [1], [1, 2]) == (False, "expected [1, 2], got [1]")
    assert said(scorer, {"a": 1}, {"b": 1}) == (False, 'expected {"b": 1}, got {"a": 1}')
    assert said(scorer, True, 1) == (False, "expected 1, got true: true or false is never a number")
    assert said(scorer, 18, "18") == (False, 'expected "18", got 18: a number is never text')
    assert said(scorer, "18", 18) == (
        False,
        'expected 18, got "18": text is never a number; quote `expected` in the golden file, or use numeric_match()',
    )
    assert said(scorer, "{}", {}) == (False, 'expected {}, got "{}": text is never an object; json_match() reads JSON out of text')
    assert said(scorer, None, "x") == (False, 'expected "x", got null: None is never text')


def test_an_output_without_json_form_fails():
    passed, reason = said(exact_match(), object(), {})
    assert passed is False
    assert reason == "the output <object> has no JSON form: Unable to serialize unknown type: <class 'object'>"


def test_a_deep_output_fails_without_recursion():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert exact_match()(trial_of(deep, [])).passed is False


def test_a_case_without_expected_says_what_to_do():
    with pytest.raises(ScorerError) as caught:
        exact_match()(trial_of("x"))
    assert (
        str(caught.value) == "case 'late' (support.yaml:14) has no `expected`, which exact_match() compares with; add one, or use judge()"
    )


def test_remove_must_leave_something():
    with pytest.raises(ScorerError) as caught:
        exact_match(remove=r"\d")(trial_of("", "12"))
    assert str(caught.value) == 'case \'late\' (support.yaml:14): nothing of `expected` "12" is left after remove="\\d"; narrow the pattern'


def test_bad_options_are_refused_when_it_is_built():
    with pytest.raises(ScorerError) as caught:
        exact_match(unicode="NFD")
    assert str(caught.value) == 'exact_match(): unicode is \'NFD\'; use None, "NFC" or "NFKC"'
    with pytest.raises(ScorerError) as caught:
        exact_match(extract="a(b")
    assert str(caught.value) == (
        'exact_match(extract=...): "a(b" is not a regular expression: missing ), unterminated subpattern at position 1; correct it, or escape it with re.escape()'
    )
    with pytest.raises(ScorerError, match=r"exact_match\(remove=\.\.\.\): the pattern is int; give text or a pattern compiled from text"):
        exact_match(remove=3)


def test_a_pattern_that_runs_for_ever_leaves_the_trial_unscored(monkeypatch):
    def too_slow(*args, **kwargs):
        raise TimeoutError

    scorer = exact_match(extract=r"(a+)+$")
    slow = dataclasses.replace(scorer.extract, compiled=type("Slow", (), {"groups": 1, "finditer": too_slow})())
    assert said(dataclasses.replace(scorer, extract=slow), "a", "a") == (
        None,
        'the pattern "(a+)+$" took longer than 2 s on this output; simplify it',
    )


def test_the_deadline_ends_a_real_run():
    endless = dataclasses.replace(patterns.compile_pattern(r"(a|aa)+$", "x"), deadline_s=0.01)
    for use in (endless.found, endless.last, endless.removed):
        with pytest.raises(patterns.PatternTimeoutError, match=r"took longer than 0\.01 s"):
            use("a" * 5000 + "b")
