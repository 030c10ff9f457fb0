"""Outcomes of trials: told apart in the terminal, the summary, junit and the exit status, and none is lost."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

CASES = """
cases:
  - {id: one, input: What?, expected: yes it is, tags: [refunds]}
"""

BODIES = {
    "passed": "case.check(lambda trial: True)",
    "failed": "case.check(lambda trial: False)",
    "asserted": "assert case.output == 'other'",
    "failed_by_call": "pytest.fail('no good')",
    "timed_out": "pytest.fail('Timeout (>1.0s) from pytest-timeout.')",
    "error": "raise OSError('provider is down')",
    "unscored": "case.check(no_verdict)",
    "unscored_silently": "case.score(no_verdict)",
    "skipped": "pytest.skip('not today')",
    "group_failed": "raise ExceptionGroup('both', [AssertionError('a'), AssertionError('b')])",
    "group_error": "raise ExceptionGroup('both', [AssertionError('a'), OSError('b')])",
}


def write(pytester, **bodies):
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    tests = "\n".join(
        f"@pytest.mark.golden('cases.yaml')\ndef test_{name}(case):\n    case.output = 'no it is not'\n    {body}\n"
        for name, body in bodies.items()
    )
    pytester.makepyfile(
        test_suite=f"import pytest\nfrom pytest_touchstone import Score\n\ndef no_verdict(trial):\n    return Score.unscored('judge', 'it refused')\n\n{tests}"
    )


def outcomes_in_table(result):
    header = next(index for index, line in enumerate(result.outlines) if line.startswith("suite "))
    rows = {}
    for line in result.outlines[header + 1 :]:
        if line.startswith("test_suite.py::"):
            name, *cells = line.split()
            counts = dict(zip(["cases", "passed", "failed", "error", "unscored", "not_run"], map(int, cells[:6]), strict=True))
            rows[name.partition("::test_")[2]] = counts
    return rows


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("passed", "passed"),
        ("failed", "failed"),
        ("asserted", "failed"),
        ("failed_by_call", "failed"),
        ("timed_out", "error"),
        ("error", "error"),
        ("unscored", "unscored"),
        ("unscored_silently", "unscored"),
        ("skipped", "not_run"),
        ("group_failed", "failed"),
        ("group_error", "error"),
    ],
)
def test_each_outcome_has_its_column(pytester, runner, name, outcome):
    write(pytester, **{name: BODIES[name]})
    result = runner.run("--llm-eval")
    counts = outcomes_in_table(result)[name]
    assert counts.pop("cases") == 1
    assert counts.pop(outcome) == 1
    assert set(counts.values()) == {0}


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["passed"], 0),
        (["passed", "failed", "error", "unscored"], 1),
        (["passed", "error", "unscored"], 10),
        (["passed", "unscored"], 11),
        (["passed", "skipped"], 0),
        (["asserted"], 1),
    ],
)
def test_the_exit_status_tells_outcomes_apart(pytester, runner, names, status):
    write(pytester, **{name: BODIES[name] for name in names})
    assert runner.run("--llm-eval").ret == status


def test_an_ordinary_failing_test_beside_errors_keeps_pytests_status(pytester, runner):
    write(pytester, error=BODIES["error"])
    pytester.makepyfile(test_plain="def test_plain(): assert 0")
    assert runner.run("--llm-eval").ret == 1


def test_a_failing_teardown_is_an_error_of_pytests_own(pytester, runner):
    write(pytester, passed=BODIES["passed"])
    pytester.makeconftest("import pytest\n@pytest.fixture(autouse=True)\ndef broken():\n    yield\n    raise OSError('cannot clean up')")
    result = runner.run("--llm-eval")
    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == 1


def test_a_failing_setup_is_an_error_of_the_trial(pytester, runner):
    write(pytester, passed=BODIES["passed"])
    pytester.makeconftest("import pytest\n@pytest.fixture(autouse=True)\ndef broken():\n    raise OSError('no database')")
    result = runner.run("--llm-eval")
    assert outcomes_in_table(result)["passed"]["error"] == 1
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*OSError: no database*"])


def test_letters_and_words_are_distinct(pytester):
    write(pytester, **{name: BODIES[name] for name in ("passed", "failed", "error", "unscored")})
    result = pytester.runpytest_inprocess("--llm-eval")
    result.stdout.fnmatch_lines(["test_suite.py .FEU*", "*1 failed, 1 passed, 1 error, 1 unscored in*"])
    verbose = pytester.runpytest_inprocess("--llm-eval", "-v")
    verbose.stdout.fnmatch_lines(
        ["*test_passed?one? PASSED*", "*test_failed?one? FAILED*", "*test_error?one? ERROR*", "*test_unscored?one? UNSCORED*"]
    )


def test_junit_holds_scores_and_outcome(pytester, runner):
    write(pytester, failed="case.check(lambda trial: 0.25)", unscored=BODIES["unscored"], passed=BODIES["passed"])
    runner.run("--llm-eval", "--junitxml=out.xml")
    found = {}
    for testcase in ET.parse(pytester.path / "out.xml").iter("testcase"):
        found[testcase.get("name")] = {node.get("name"): node.get("value") for node in testcase.iter("property")}
    assert found["test_failed[one]"]["llm_outcome"] == "failed"
    assert found["test_failed[one]"]["llm_score:<lambda>"] == "0.25"
    assert found["test_unscored[one]"]["llm_outcome"] == "unscored"
    assert found["test_unscored[one]"]["llm_score:judge"] == "unscored"
    assert found["test_passed[one]"]["llm_outcome"] == "passed"
    assert found["test_passed[one]"]["llm_case"] == "one"


def test_what_did_not_run_is_accounted_for(pytester, runner):
    cases = "\n".join(f"  - {{id: c{number}, input: x}}" for number in range(40))
    (pytester.path / "cases.yaml").write_text(f"cases:\n{cases}\n", encoding="utf-8")
    pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.golden("cases.yaml")
        def test_it(case):
            assert case.id == "no such case"
        """
    )
    result = runner.run("--llm-eval", "-x")
    counts = outcomes_in_table(result)["it"]
    assert counts["cases"] == 40
    assert counts["failed"] >= 1
    assert counts["not_run"] >= 1
    assert counts["failed"] + counts["not_run"] == 40


def test_an_interrupt_leaves_the_rest_not_run(pytester):
    write(pytester, passed=BODIES["passed"], interrupted="raise KeyboardInterrupt", later=BODIES["passed"])
    result = pytester.runpytest_inprocess("--llm-eval", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    rows = outcomes_in_table(result)
    assert (rows["passed"]["passed"], rows["interrupted"]["not_run"], rows["later"]["not_run"]) == (1, 1, 1)


def test_a_dead_worker_is_an_error_of_its_trial(pytester):
    write(pytester, died="import os; os._exit(3)", passed=BODIES["passed"])
    result = pytester.runpytest_inprocess("--llm-eval", "-n", "1")
    rows = outcomes_in_table(result)
    assert rows["died"]["error"] == 1
    assert rows["passed"]["passed"] == 1
    assert result.ret == 10


def test_xfail_keeps_its_meaning(pytester, runner):
    write(pytester, expected="pass")
    source = (pytester.path / "test_suite.py").read_text(encoding="utf-8")
    source = source.replace("@pytest.mark.golden", "@pytest.mark.xfail(reason='known')\n@pytest.mark.golden").replace(
        "    pass", "    assert 0"
    )
    (pytester.path / "test_suite.py").write_text(source, encoding="utf-8")
    result = runner.run("--llm-eval")
    result.assert_outcomes(xfailed=1)
    assert result.ret == 0
    assert outcomes_in_table(result)["expected"]["failed"] == 1
    result.stdout.fnmatch_lines(["1 of them expected to fail (xfail)"])


def test_a_failed_subtest_fails_the_trial(pytester, runner):
    write(pytester, parts="pass")
    source = (pytester.path / "test_suite.py").read_text(encoding="utf-8")
    source = source.replace("(case)", "(case, subtests)").replace(
        "    pass", "    with subtests.test('first'):\n        assert 0\n    assert 1"
    )
    (pytester.path / "test_suite.py").write_text(source, encoding="utf-8")
    result = runner.run("--llm-eval")
    assert outcomes_in_table(result)["parts"]["failed"] == 1
    assert result.ret == 1


def test_async_bodies_share_one_loop(pytester, runner):
    (pytester.path / "cases.yaml").write_text("cases:\n  - {id: a, input: x}\n  - {id: b, input: y}\n", encoding="utf-8")
    pytester.makepyfile(
        test_suite="""
        import asyncio
        import pytest

        LOOPS = set()

        @pytest.mark.golden("cases.yaml")
        async def test_it(case):
            await asyncio.sleep(0)
            LOOPS.add(asyncio.get_running_loop())
            case.output = "x"
            await case.acheck(lambda trial: trial.output == trial.input)
            assert len(LOOPS) == 1
        """
    )
    result = runner.run("--llm-eval")
    result.assert_outcomes(passed=1, failed=1)


def test_registered_scorers_go_by_name(pytester, runner):
    write(pytester, named="case.check('house_style')", unknown="case.check('hous_style')")
    pytester.makeconftest(
        """
        from pytest_touchstone import scorer

        @scorer(name="house_style")
        def house_style(trial):
            return "Dear" not in trial.output

        def pytest_llm_scorers():
            return [house_style]
        """
    )
    result = runner.run("--llm-eval")
    rows = outcomes_in_table(result)
    assert rows["named"]["passed"] == 1
    assert rows["unknown"]["error"] == 1
    assert (
        "no scorer is registered as 'hous_style' (registered: house_style); return it from a pytest_llm_scorers hook" in result.stdout.str()
    )


def test_two_scorers_of_one_name_stop_the_run(pytester):
    write(pytester, passed=BODIES["passed"])
    pytester.makeconftest(
        "def pytest_llm_scorers():\n    def style(trial): return True\n    def other(trial): return True\n    other.name = 'style'\n    return [style, other]"
    )
    result = pytester.runpytest_inprocess("--llm-eval")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "two hooks pytest_llm_scorers register a scorer named 'style'; rename one with @scorer(name=...)" in result.stderr.str()
