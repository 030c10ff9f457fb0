from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from scoring_samples import any_text, said, trial_of

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.text import contains, regex_match


@given(any_text)
def test_no_text_makes_them_raise(output):
    assert contains("a", unicode="NFKC", casefold=True, normalize_whitespace=True)(trial_of(output)).passed in {True, False}
    assert regex_match(r"(?s)a.*b")(trial_of(output)).passed in {True, False}


@given(any_text, any_text)
def test_a_text_contains_its_parts(before, after):
    assert contains("needle")(trial_of(f"{before}needle{after}")).passed
    assert regex_match("needle")(trial_of(f"{before}needle{after}")).passed


def test_contains_names_what_is_missing():
    assert said(contains("30 days", "refund"), "30 days") == (False, 'the output lacks "refund": "30 days"')
    assert said(contains("a b", "c"), "c a b") == (True, "")
    many = [f"n{index}" for index in range(12)]
    assert said(contains(*many), "x")[1] == 'the output lacks "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9" and 2 more: "x"'


def test_contains_any():
    assert said(contains("a", "b", any=True), "b") == (True, "")
    assert said(contains("a", "b", any=True), "c") == (False, 'the output holds none of "a", "b": "c"')
    assert said(contains("a", any=True), "c") == (False, 'the output lacks "a": "c"')


@pytest.mark.parametrize(
    ("options", "needle", "output"),
    [({"casefold": True}, "yes", "YES!"), ({"normalize_whitespace": True}, "a b", "x a\n b"), ({"unicode": "NFKC"}, "12", "１２")],
)
def test_contains_normalises_on_request(options, needle, output):
    assert said(contains(needle, **options), output) == (True, "")
    assert contains(needle)(trial_of(output)).passed is False


def test_contains_looks_for_expected():
    assert said(contains(), "in 30 days", "30 days") == (True, "")
    assert said(contains(), "in 30 days", ["30 days", "refund"]) == (False, 'the output lacks "refund": "in 30 days"')
    assert said(contains("a"), {"a": 1}) == (False, "the output is an object, not text")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (None, "case 'late' (support.yaml:14) has no `expected`, which contains() compares with; add one, or use judge()"),
        ([], "case 'late' (support.yaml:14): `expected` is an empty list; contains() needs at least one text"),
        ([1], "case 'late' (support.yaml:14): contains(): a number cannot be looked for in text; give texts"),
        ({"a": 1}, "case 'late' (support.yaml:14): contains(): an object cannot be looked for in text; give texts"),
        (
            " ",
            "case 'late' (support.yaml:14): contains(): the needle \" \" is blank, and nearly every text holds it; give text to look for",
        ),
    ],
)
def test_contains_refuses_an_expected_it_cannot_look_for(expected, message):
    with pytest.raises(ScorerError) as caught:
        contains()(trial_of("x", expected))
    assert str(caught.value) == message


def test_contains_refuses_bad_options():
    with pytest.raises(ScorerError, match=r"^contains\(\): Trial cannot be looked for in text; give texts$"):
        contains(trial_of("x"))
    with pytest.raises(ScorerError, match=r'^contains\(\): the needle "" is blank'):
        contains("")
    with pytest.raises(ScorerError, match=r"^contains\(\): unicode is 'X'; use None"):
        contains("a", unicode="X")


def test_regex_match_searches_or_matches_the_whole():
    assert said(regex_match(r"order \d+"), "your order 66.") == (True, "")
    assert said(regex_match(r"order \d+"), "none") == (False, '"order \\d+" does not match anywhere in: "none"')
    assert said(regex_match(r"\d+", full=True), "66") == (True, "")
    assert said(regex_match(r"\d+", full=True), "66.") == (False, '"\\d+" does not match as a whole: "66."')
    assert said(regex_match("a"), None) == (False, "the output is None, not text")


@pytest.mark.parametrize(
    ("flag", "pattern", "output"),
    [(re.IGNORECASE, "a", "A"), (re.MULTILINE, "^b", "a\nb"), (re.DOTALL, "a.b", "a\nb"), (re.VERBOSE, "a b", "ab")],
)
def test_flags_mean_what_they_mean_in_re(flag, pattern, output):
    assert regex_match(pattern, flags=flag)(trial_of(output)).passed
    assert regex_match(re.compile(pattern, flag))(trial_of(output)).passed
    assert regex_match(pattern)(trial_of(output)).passed is False


def test_the_ascii_flag_is_translated():
    assert regex_match(r"\w", flags=re.ASCII)(trial_of("é")).passed is False
    assert regex_match(r"\w")(trial_of("é")).passed is True


def test_regex_match_takes_the_pattern_from_expected():
    assert said(regex_match(flags=re.IGNORECASE), "YES", "^y") == (True, "")
    with pytest.raises(ScorerError) as caught:
        regex_match()(trial_of("x", "(a"))
    assert str(caught.value) == (
        "case 'late' (support.yaml:14): regex_match(): \"(a\" is not a regular expression: missing ), unterminated subpattern at position 0;"
        " correct it, or escape it with re.escape()"
    )
    with pytest.raises(ScorerError) as caught:
        regex_match()(trial_of("x", 3))
    assert (
        str(caught.value)
        == "case 'late' (support.yaml:14): `expected` is a number; regex_match() needs a regular expression there, or one of its own"
    )


def test_regex_match_refuses_what_it_cannot_compile():
    with pytest.raises(
        ScorerError, match=r'^regex_match\(\): "\*a" is not a regular expression: nothing to repeat at position 0; correct it'
    ):
        regex_match("*a")
    with pytest.raises(ScorerError, match=r"^regex_match\(\): flags cannot be added to a compiled pattern; compile it with them$"):
        regex_match(re.compile("a"), flags=re.IGNORECASE)
    with pytest.raises(ScorerError, match=r'^regex_match\(\): "a" is not a regular expression: flags re\.DEBUG are not supported$'):
        regex_match("a", flags=re.DEBUG)
    with pytest.raises(ScorerError, match=r"^regex_match\(\): the pattern is bytes; give text or a pattern compiled from text$"):
        regex_match(re.compile(b"a"))


def test_a_pattern_that_re_takes_and_regex_does_not_is_refused(monkeypatch):
    import regex

    error = regex.error("no such thing", "a", 0)

    def refuse(*args):
        raise error

    monkeypatch.setattr(regex, "compile", refuse)
    with pytest.raises(ScorerError, match=r'^regex_match\(\): "a" is not a regular expression: no such thing at position 0$'):
        regex_match("a")


def test_a_pattern_that_runs_for_ever_leaves_the_trial_unscored():
    scorer = regex_match(r"(a|aa)+$")
    quick = dataclasses.replace(scorer, pattern=dataclasses.replace(scorer.pattern, deadline_s=0.01))
    assert said(quick, "a" * 5000 + "b") == (None, 'the pattern "(a|aa)+$" took longer than 0.01 s on this output; simplify it')
