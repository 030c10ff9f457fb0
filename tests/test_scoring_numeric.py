from __future__ import annotations

import dataclasses
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_samples import any_text, said, trial_of

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.numeric import numeric_match, read_numbers

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**15), max_value=10**15)


@given(decimals)
def test_a_number_is_read_as_it_is_usually_written(number):
    for written in (f"{number:f}", f"{number:,f}", f"The answer is ${number:,f}.", f"{number:e}", f"**{number:f}**"):
        assert numeric_match(number)(trial_of(written)).passed, written
        assert numeric_match(number + 1)(trial_of(written)).passed is False


@given(decimals)
def test_the_other_decimal_mark(number):
    written = f"{number:,f}".translate({ord(","): ".", ord("."): ","})
    assert numeric_match(number, decimal=",")(trial_of(f"Es sind {written} €.")).passed


@given(decimals)
def test_percent_is_a_hundredth(number):
    assert numeric_match(f"{number:f}%")(trial_of(f"{number:f} %")).passed
    assert numeric_match(number / 100)(trial_of(f"{number:f}%")).passed


@given(any_text)
def test_no_text_makes_it_raise(output):
    for scorer in (numeric_match(1), numeric_match(1, pick="last", rel_tol=0.5), numeric_match(1, decimal=",", extract=r"\d.*")):
        assert scorer(trial_of(output)).passed in {True, False}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", "1234.5"),
        ("1'234", "1234"),
        ("1\u202f234", "1234"),
        ("12,34,567", "1234567"),
        ("1{,}234", "1234"),
        ("\u22125", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("+5", "5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("1.5e-3", "0.0015"),
        ("1.5 × 10^3", "1500"),
        ("1.5 \\times 10^{-3}", "0.0015"),
        ("12 %", "0.12"),
        ("12\\%", "0.12"),
        ("12 per cent", "0.12"),
        ("5‰", "0.005"),
        ("2k", "2000"),
        ("1.5 million", "1500000"),
        ("3bn", "3000000000"),
        ("$5m", "5000000"),
        ("5m", "5"),
        ("5 kg", "5"),
        ("3rd", "3"),
        ("USD 5", "5"),
        ("5€", "5"),
        ("US$5", "5"),
        ("答案是42。", "42"),
        ("１２", "12"),
        ("_42_", "42"),
        ("- 5", "5"),
        ("12 percentage points", "12"),
        ("007", "7"),
    ],
)
def test_what_is_one_number(text, value):
    assert [number.value for number in read_numbers(text)] == [Decimal(value)]


@pytest.mark.parametrize(
    "text",
    ["1,5", "3/4", "3 / 4", "10-12", "10:30", "2024-05-06", "5 300", "0,123", "1,234,56", "1.2.3", "10²", "5½", "0x1F", "±5", "–5", "x - 4", "= \u2212 4",
     "\\frac{3}{4}", "3 -4", "5!", "1e99999", "1..2", "1,2,3", "$5 USD", "-$-5", "٥٫٥", "1_00", "1,234.5.6"],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_never_passes(text):
    assert {number.value for number in read_numbers(text)} == {None}


@pytest.mark.parametrize("text", ["v2.5", "item_5", "H2O", "five", "", "NaN", "inf"])
def test_what_is_no_number(text):
    assert list(read_numbers(text)) == []
    assert said(numeric_match(5), text) == (False, f'found no number in "{text}"')


def test_passes_and_failures_say_what_was_read():
    assert said(numeric_match(), "It is $1,234.", 1234) == (True, "got $1,234 (read as 1234)")
    assert said(numeric_match(), "It is 5.", "1,234") == (False, "expected 1,234 (read as 1234), got 5")
    assert said(numeric_match(12), "12%") == (False, "expected 12, got 12% (read as 0.12)")
    assert said(numeric_match(1), "1e50") == (False, "expected 1, got 1e50 (read as 1E+50)")
    assert said(numeric_match(), "1,5", 15) == (False, 'cannot tell which number "1,5" is (decimal=\'.\'): "1,5"')


def test_several_numbers_need_a_choice():
    text = "6 * 7 = 42, so the answer is 43."
    assert said(numeric_match(43), text) == (
        False,
        f'found more than one number ("6 * 7", "42", "43"); say which by extract=... or pick=\'last\': "{text}"',
    )
    assert said(numeric_match(43, pick="last"), text) == (True, "got 43")
    assert said(numeric_match(42, pick="last"), text) == (False, "expected 42, got 43")
    assert said(numeric_match(42, pick="first"), text)[1].startswith("cannot tell which number \"6 * 7\" is (decimal='.')")
    assert said(numeric_match(42), "42, yes, 42.0") == (True, "got 42.0 (read as 42)")
    assert said(numeric_match(5), "$5 or 5 EUR")[1].startswith('found more than one number ("$5", "5 EUR")')
    assert " and 2 more);" in said(numeric_match(1), "1, 2, 3, 4, 5, 6, 7")[1]


def test_currencies_have_to_agree_where_both_are_given():
    assert said(numeric_match("€5"), "$5") == (False, "expected €5 (read as 5), got $5 (read as 5): the currencies differ")
    assert said(numeric_match("5 USD"), "$5")[0] is True
    assert said(numeric_match("5 EUR"), "EUR 5")[0] is True
    assert said(numeric_match("5 EUR"), "5 CHF")[0] is False
    assert said(numeric_match("5 EUR"), "5")[0] is True
    assert said(numeric_match("5¢"), "$5")[0] is False


def test_tolerances():
    assert said(numeric_match(1.0, abs_tol=0.1), "1.1") == (True, "got 1.1")
    assert said(numeric_match(1.0, abs_tol=0.1), "1.11") == (False, "expected 1.0 (read as 1), got 1.11, which differ by more than 0.1")
    assert said(numeric_match(200, rel_tol=0.01), "202")[0] is True
    assert said(numeric_match(200, rel_tol=0.01), "202.1")[0] is False
    assert said(numeric_match(10**40), str(10**40 + 1))[0] is False


def test_outputs_that_are_no_text():
    assert said(numeric_match(3), 3.0)[0] is True
    assert said(numeric_match(3), Decimal(3)) == (True, "got 3")
    for output, shown in ((True, "true"), (None, "null"), (math.nan, "NaN"), (-math.inf, "-Infinity"), ({}, "{}")):
        assert said(numeric_match(1), output) == (False, f"the output is {shown}; numeric_match() reads finite numbers and text")


def test_extract():
    final = numeric_match(extract=r"(?m)^A: (.*)$")
    assert said(final, "3 or 5\nA: 5", 5) == (True, "got 5")
    assert said(final, "5", 5) == (False, 'nothing matched the pattern "(?m)^A: (.*)$" in "5"')
    assert said(final, 5, 5) == (False, "the output is a number, and a pattern can only extract from text")
    assert said(numeric_match(extract=lambda output: output["n"]), {"n": "5"}, 5) == (True, "got 5")
    assert said(numeric_match(extract=lambda output: None), "5", 5) == (False, '`extract` found nothing in "5"')


def test_a_pattern_that_runs_for_ever_leaves_the_trial_unscored():
    def too_slow(*args, **kwargs):
        raise TimeoutError

    scorer = numeric_match(1, extract="(a+)+$")
    slow = dataclasses.replace(scorer.extract, compiled=type("Slow", (), {"groups": 1, "finditer": too_slow})())
    assert said(dataclasses.replace(scorer, extract=slow), "a") == (
        None,
        'the pattern "(a+)+$" took longer than 2 s on this output; simplify it',
    )


@pytest.mark.parametrize("expected", ["five", "1 or 2", "about 5", "3/4", True, math.nan, math.inf, [1], ""])
def test_expected_must_be_one_number(expected):
    with pytest.raises(
        ScorerError,
        match=r"^numeric_match\(expected=\.\.\.\): .* is not one finite number; give one such as 1234\.5 or \"12 %\", with '\.' as",
    ):
        numeric_match(expected)(trial_of("5"))


def test_a_case_without_a_number_is_named():
    with pytest.raises(ScorerError) as caught:
        numeric_match()(trial_of("5", "five"))
    assert str(caught.value) == (
        'case \'late\' (support.yaml:14): `expected` "five" is not one finite number; give one such as 1234.5 or "12 %",'
        " with '.' as its decimal mark if it is text"
    )
    with pytest.raises(ScorerError, match=r"has no `expected`, which numeric_match\(\) compares with"):
        numeric_match()(trial_of("5"))


def test_bad_options_are_refused():
    with pytest.raises(ScorerError, match=r"^numeric_match\(\): decimal is ';'; use '\.' or ','$"):
        numeric_match(decimal=";")
    with pytest.raises(ScorerError, match=r"^numeric_match\(\): pick is 'best'; use 'only', 'first' or 'last'$"):
        numeric_match(pick="best")
    with pytest.raises(ScorerError, match=r"^numeric_match\(\): rel_tol is -1; give a number of at least 0$"):
        numeric_match(rel_tol=-1)
