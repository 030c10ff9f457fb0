"""pytest's summary of failures: folded where a suite has many, linear in their number, and otherwise as pytest prints it."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest

from pytest_touchstone.plugin.summary import LeanSummary

SUITE = """
import pytest
from pytest_touchstone import Score

CASES = [{"id": f"case-{number}", "input": "x", "expected": "yes"} for number in range(4)]

@pytest.fixture
def noisy():
    yield
    print("cleaning up")

@pytest.mark.golden(CASES)
def test_failing(case, noisy):
    case.output = "no"
    case.check(lambda trial: trial.output == trial.expected)

@pytest.mark.golden(CASES)
def test_broken(case):
    raise OSError("the provider is down")

@pytest.mark.golden(CASES)
def test_unscored(case):
    case.output = "no"
    case.check(lambda trial: Score.unscored("judge", "refused"))

def test_plain():
    assert 1 == 2
"""


@pytest.fixture
def suite(pytester):
    pytester.makepyfile(test_suite=SUITE)
    return pytester


def blocks(result):
    """The headings of what is shown in full."""
    return [line for line in result.outlines if line.startswith("case case-")]


def test_only_the_first_failures_of_a_suite_are_shown_in_full(suite, runner):
    result = runner.run("--llm-eval", "--llm-show", "1", "-p", "no:randomly")
    assert len(blocks(result)) == 3
    result.stdout.fnmatch_lines(
        [
            "*= ERRORS =*",
            "3 more of test_suite.py::test_broken, a line each",
            "  case-?  OSError: the provider is down",
            "  case-?  OSError: the provider is down",
            "  case-?  OSError: the provider is down",
            "one of them in full: pytest --llm-eval 'test_suite.py::test_broken?case-??' -vv",
            "all in full: --llm-show all",
            "*= FAILURES =*",
            "*assert 1 == 2*",
            "3 more of test_suite.py::test_failing, a line each",
            "  case-?  failed <lambda> 0.00",
            "*= UNSCORED =*",
            "3 more of test_suite.py::test_unscored, a line each",
            "  case-?  unscored judge: refused",
            "*= golden cases =*",
        ]
    )
    assert sum(line.startswith("FAILED test_suite.py::test_failing[case-") for line in result.outlines) == 4
    assert sum(line.startswith("ERROR test_suite.py::test_broken[case-") for line in result.outlines) == 4


@pytest.mark.parametrize(
    ("arguments", "ini", "shown"),
    [
        ([], "", 12),
        ([], "1", 3),
        (["--llm-show", "0"], "", 0),
        (["--llm-show", "2", "-v"], "", 6),
        (["--llm-show", "all"], "1", 12),
        (["-v"], "1", 12),
        (["--tb=no"], "1", 0),
    ],
)
def test_how_many_are_shown(suite, arguments, ini, shown):
    if ini:
        suite.makeini(f"[pytest]\nllm_show = {ini}\n")
    result = suite.runpytest_inprocess("--llm-eval", *arguments)
    assert len(blocks(result)) == shown
    assert ("a line each" in result.stdout.str()) == (shown < 12 and "--tb=no" not in arguments)


def test_the_first_twenty_are_shown_by_default(pytester):
    pytester.makepyfile(SUITE.replace("range(4)", "range(25)"))
    result = pytester.runpytest_inprocess("--llm-eval", "-k", "failing")
    assert len(blocks(result)) == 20
    result.stdout.fnmatch_lines(["5 more of *", "  case-20  failed <lambda> 0.00"])


def test_what_cannot_be_shown_is_refused(suite):
    result = suite.runpytest_inprocess("--llm-eval", "--llm-show", "few")
    assert "argument --llm-show: 'few'; give a whole number of at least 0, or all" in result.stderr.str()
    suite.makeini("[pytest]\nllm_show = -1\n")
    result = suite.runpytest_inprocess("--llm-eval")
    assert "ini llm_show is '-1'; give a whole number of at least 0, or all, for example llm_show = 50" in result.stderr.str()


def test_junit_keeps_every_failure_in_full(suite):
    suite.runpytest_inprocess("--llm-eval", "--llm-show", "0", "--junitxml=out.xml", "-k", "failing")
    failures = list(ET.parse(suite.path / "out.xml").iter("failure"))
    assert len(failures) == 4
    assert all("- expected, + output" in failure.text for failure in failures)


def test_what_teardown_printed_is_shown_for_failures_and_on_demand_for_passes(suite):
    result = suite.runpytest_inprocess("--llm-eval", "-k", "failing")
    assert result.stdout.str().count("Captured stdout teardown") == 4
    suite.makepyfile(test_suite=SUITE.replace('"no"', '"yes"'))
    result = suite.runpytest_inprocess("--llm-eval", "-k", "failing", "-rA", "--durations=3", "-vv")
    assert result.stdout.str().count("Captured stdout teardown") == 4
    result.stdout.fnmatch_lines(["*= slowest 3 durations =*", "PASSED test_suite.py::test_failing?case-0?"])


class Counted(list):
    """A list that counts how often it is gone through."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def teardown(number, when="teardown"):
    return pytest.TestReport(f"t.py::test[{number}]", ("t.py", 1, "test"), {}, "passed", None, when)


@pytest.fixture
def reporter(pytester):
    return pytest.TerminalReporter(pytester.parseconfig(), io.StringIO())


def ids(reports):
    return {str(getattr(report, "id", report.nodeid)): getattr(report, "id", report.nodeid) for report in reports}


def test_reports_are_gone_through_once_however_many_failed(reporter):
    reports = [teardown(number, when) for number in range(50) for when in ("setup", "teardown")]
    reporter.stats[""] = Counted(reports)
    asked = ids(reports).values()
    expected = [reporter._get_teardown_reports(node_id) for node_id in asked]
    assert reporter.stats[""].passes == 50
    with LeanSummary(reporter, limit=20).applied():
        assert [reporter._get_teardown_reports(node_id) for node_id in asked] == expected
        assert reporter.stats[""].passes == 51
        reporter.stats[""].append(late := teardown(0))
        assert reporter._get_teardown_reports(getattr(late, "id", late.nodeid)) == [reports[1], late]
        assert reporter._get_teardown_reports("other") == []


def test_the_reporter_is_as_before_afterwards(reporter):
    before = dict(vars(reporter))
    with pytest.raises(KeyboardInterrupt), LeanSummary(reporter, limit=1).applied():
        assert set(vars(reporter)) - set(before) == {"_get_teardown_reports", "summary_errors", "summary_failures"}
        raise KeyboardInterrupt
    assert vars(reporter) == before


def test_stats_are_whole_again_even_if_printing_fails(reporter):
    failed = [teardown(number) for number in range(3)]
    for report in failed:
        report.touchstone = {"record": {"suite": "t.py::test", "case_id": "a", "reason": ""}}
        report.toterminal = print_nothing
    reporter.stats["failed"] = failed
    with pytest.raises(OSError, match="the terminal is gone"), LeanSummary(reporter, limit=1).applied():
        reporter.summary_failures()
    assert reporter.stats["failed"] is failed


def print_nothing(writer):
    msg = "the terminal is gone"
    raise OSError(msg)


class Sugar(pytest.TerminalReporter):
    """Stands for the reporter of a plugin such as pytest-sugar."""

    def summary_failures(self):
        """Shown at once, so not again."""


def test_another_plugins_reporter_keeps_its_own_methods(pytester):
    reporter = Sugar(pytester.parseconfig(), io.StringIO())
    with LeanSummary(reporter, limit=1).applied():
        assert "summary_failures" not in vars(reporter)
        assert "summary_errors" in vars(reporter)


def test_a_pytest_that_looks_different_is_left_alone(reporter, monkeypatch):
    monkeypatch.setattr(pytest.TerminalReporter, "_get_teardown_reports", lambda self: [])
    monkeypatch.delattr(pytest.TerminalReporter, "summary_errors")
    monkeypatch.setattr(pytest.TerminalReporter, "summary_failures", property(lambda self: None))
    with LeanSummary(reporter, limit=1).applied():
        assert not {"_get_teardown_reports", "summary_errors", "summary_failures"} & set(vars(reporter))
