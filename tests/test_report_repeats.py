"""What is said of cases that were tried several times."""

from __future__ import annotations

import pytest

from pytest_touchstone.report.repeats import repeat_lines
from pytest_touchstone.trial import TrialRecord

WORDS = {"p": "passed", "f": "failed", "e": "error", "u": "unscored", "n": "not_run"}


def records(suite="test_a.py::test_it", **cases):
    """The trials of each case, a letter for each outcome."""
    return [
        TrialRecord(
            nodeid=f"{suite}[{case}@{number}]",
            suite=suite,
            case_id=case,
            source="",
            content_hash="",
            split="train",
            number=number,
            outcome=WORDS[letter],
        )
        for case, letters in cases.items()
        for number, letter in enumerate(letters, start=1)
    ]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ({"a": "ppp", "b": "fff"}, "2 cases tried 3 times: pass@3 50.0%, pass^3 50.0%; none is flaky"),
        ({"a": "pfp", "b": "fff"}, "2 cases tried 3 times: pass@3 50.0%, pass^3 0.0%; 1 flaky: a (2 of 3)"),
        # Of four trials with two passes, three hold at least one pass for certain, and never three.
        ({"a": "ppff", "b": "ppp"}, "2 cases tried 3 to 4 times: pass@3 100.0%, pass^3 50.0%; 1 flaky: a (2 of 4)"),
        ({"a": "pfe", "b": "puu"}, "1 case tried 2 times: pass@2 100.0%, pass^2 0.0%; 1 flaky: a (1 of 2)"),
    ],
    ids=["steady", "flaky", "uneven", "unknown"],
)
def test_pass_at_k_and_which_cases_are_flaky(cases, said):
    assert [line.text for line in repeat_lines(records(**cases))] == [f"test_a.py::test_it: {said}"]


def test_the_most_unsteady_are_named_first_and_all_on_request():
    cases = {f"c{number}": "ppppp"[: number % 5] + "fffff"[number % 5 :] for number in range(1, 10)}
    (line,) = repeat_lines(records(**cases))
    assert line.text.endswith("8 flaky: c2 (2 of 5), c3 (3 of 5), c7 (2 of 5), c8 (3 of 5), c1 (1 of 5) and 3 more")
    (line,) = repeat_lines(records(**cases), every=True)
    assert line.text.endswith("c1 (1 of 5), c4 (4 of 5), c6 (1 of 5), c9 (4 of 5)")


def test_nothing_is_said_of_single_trials_or_without_verdicts():
    assert repeat_lines(records(a="p", b="f")) == []
    assert repeat_lines(records(a="eu", b="pn")) == []


def test_each_suite_has_its_line_and_names_cannot_act_on_a_terminal():
    lines = repeat_lines([*records("test_a.py::test_one", **{"\x1b[31mred": "pf"}), *records("test_a.py::test_two", b="pp")])
    assert [line.text for line in lines] == [
        "test_a.py::test_one: 1 case tried 2 times: pass@2 100.0%, pass^2 0.0%; 1 flaky: \\x1b[31mred (1 of 2)",
        "test_a.py::test_two: 1 case tried 2 times: pass@2 100.0%, pass^2 100.0%; none is flaky",
    ]
