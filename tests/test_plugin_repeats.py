"""How often cases are tried and how many of their trials have to pass: the marker llm_repeat."""

from __future__ import annotations

import pytest

from pytest_touchstone.settings import ExitStatus

TEST = """
import pytest
from pytest_touchstone import exact_match

FAILING = {"steady": [], "wavers": [1, 3], "fails": [1, 2, 3], "breaks": []}
CASES = [{"id": id_, "input": id_, "expected": "ok", "split": "train"} for id_ in ("steady", "wavers", "fails")]

@pytest.mark.llm_repeat(%s)
@pytest.mark.golden(CASES)
def test_it(case):
    case.output = "no" if case.number in FAILING[case.id] else "ok"
    case.check(exact_match())
"""


def write(pytester, marker, without=()):
    cases = [id_ for id_ in ("steady", "wavers", "fails") if id_ not in without]
    pytester.makepyfile(test_suite=(TEST % marker).replace('("steady", "wavers", "fails")', str(tuple(cases))))


def test_all_trials_have_to_pass_unless_the_marker_says_otherwise(pytester, runner):
    write(pytester, "3")
    result = runner.run("--llm-eval")
    result.assert_outcomes(passed=4, failed=5)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("marker", "missed"),
    [
        ("3, require='any'", ["test_suite.py::test_it fails: 0 of 3 trials passed, 1 needed"]),
        ("n=3, require=1", ["test_suite.py::test_it fails: 0 of 3 trials passed, 1 needed"]),
        (
            "3, require=2",
            [
                "test_suite.py::test_it wavers: 1 of 3 trials passed, 2 needed",
                "test_suite.py::test_it fails: 0 of 3 trials passed, 2 needed",
            ],
        ),
    ],
)
def test_a_case_of_which_too_few_trials_pass_fails_the_run(pytester, runner, marker, missed):
    write(pytester, marker)
    result = runner.run("--llm-eval")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([*missed, "*4 passed, 5 tried in *"])
    assert sum("trials passed, " in line for line in result.outlines) == len(missed)


def test_one_of_which_enough_pass_fails_nothing(pytester, runner):
    write(pytester, "3, require='any'", without=["fails"])
    result = runner.run("--llm-eval")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["test_suite.py::test_it: 2 cases tried 3 times: *", "*4 passed, 2 tried in *"])


def test_the_command_line_beats_the_marker(pytester, runner):
    write(pytester, "3, require=2", without=["fails"])
    result = runner.run("--llm-eval", "--llm-repeat", "2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, failed=1)


def test_errors_are_neither_passes_nor_failures(pytester, runner):
    write(pytester, "3, require=2", without=["fails"])
    path = pytester.path / "test_suite.py"
    source = path.read_text(encoding="utf-8").replace(
        "    case.output", '    if case.number == 1:\n        raise OSError("down")\n    case.output'
    )
    path.write_text(source, encoding="utf-8")
    result = runner.run("--llm-eval")
    # One passed, one failed, and the one that broke might have passed.
    assert result.ret == ExitStatus.ERRORS
    assert "trials passed, " not in result.stdout.str()


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ("", "takes the number of trials and what is required of them: llm_repeat(5), llm_repeat(5, require=3)"),
        ("0", "takes the number of trials *"),
        ("3, 2", "takes the number of trials *"),
        ("3, needs=2", "takes the number of trials *"),
        ("True", "takes the number of trials *"),
        ("3, require=4", "requires 4; give 'all', 'any', or how many of the 3 trials have to pass"),
        ("3, require='most'", "requires 'most'; give 'all', 'any', or how many of the 3 trials have to pass"),
    ],
)
def test_markers_that_cannot_be_meant(pytester, marker, problem):
    write(pytester, marker)
    result = pytester.runpytest_inprocess("--llm-eval")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*test_suite.py::test_it: llm_repeat() {problem}"])


def test_a_baseline_decides_in_its_own_way(pytester, runner):
    write(pytester, "3, require='any'", without=["fails"])
    assert runner.run("--llm-eval", "--snapshot-update").ret == pytest.ExitCode.OK
    result = runner.run("--llm-eval", "--llm-gate", "regression")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*4 passed, 2 flaky in *"])
