"""Golden markers to tests: ids, selection, and mistakes told as usage errors."""

from __future__ import annotations

import json

import pytest

TEST = """
    import pytest

    @pytest.mark.golden("cases.yaml")
    def test_it(case):
        case.output = case.expected
        case.check(lambda trial: trial.output == trial.expected)
"""

CASES = """
cases:
  - {id: late-return, input: a, expected: a, tags: [refunds], split: train}
  - {id: gift, input: b, expected: b, tags: [gifts], split: holdout}
  - {id: a b/c, input: c, expected: c, tags: [refunds], split: train}
"""


@pytest.fixture
def suite(pytester):
    pytester.makepyfile(test_suite=TEST)
    (pytester.path / "cases.yaml").write_text(CASES, encoding="utf-8")
    return pytester


def names(result):
    return [line.partition("::")[2] for line in result.outlines if line.startswith("test_suite.py::")]


def test_each_case_is_a_test_with_the_cases_id(suite):
    result = suite.runpytest_inprocess("--llm-eval", "--collect-only", "-q")
    assert names(result) == ["test_it[late-return]", "test_it[gift]", "test_it[a-b/c]"]


def test_without_the_option_golden_tests_are_deselected_and_their_files_not_read(suite, runner):
    (suite.path / "cases.yaml").write_text("{{{ not yaml", encoding="utf-8")
    suite.makepyfile(test_plain="def test_plain(): pass")
    result = runner.run()
    result.assert_outcomes(passed=1, deselected=0 if runner.arguments else 1)
    assert result.ret == 0
    assert not (suite.path / ".touchstone").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-k", "gift"], ["gift"]),
        (["-k", "late-return"], ["late-return"]),
        (["--llm-split", "train"], ["late-return", "a-b/c"]),
        (["--llm-split", "holdout"], ["gift"]),
        (["--llm-limit", "1"], ["late-return"]),
        (["--llm-limit", "1", "--llm-split", "holdout"], ["gift"]),
        (["--llm-limit", "1", "-k", "a-b"], ["a-b/c"]),
        (["-m", "golden"], ["late-return", "gift", "a-b/c"]),
    ],
)
def test_selection(suite, arguments, expected):
    result = suite.runpytest_inprocess("--llm-eval", "--collect-only", "-q", *arguments)
    assert names(result) == [f"test_it[{name}]" for name in expected]


def test_a_node_id_selects_one_case(suite, runner):
    result = runner.run("--llm-eval", "test_suite.py::test_it[a-b/c]")
    result.assert_outcomes(passed=1)


def test_last_failed_runs_what_failed(suite, runner):
    suite.makepyfile(test_suite=TEST.replace("case.output = case.expected", "case.output = 'b'"))
    runner.run("--llm-eval").assert_outcomes(passed=1, failed=2)
    runner.run("--llm-eval", "--lf", "--llm-limit", "1").assert_outcomes(failed=1)


def test_faults_of_a_golden_file_are_all_told_and_no_traceback_is_shown(suite, runner):
    (suite.path / "cases.yaml").write_text("cases:\n  - {id: a, input: x, split: tset}\n  - {id: a, inptu: x}\n", encoding="utf-8")
    result = runner.run("--llm-eval")
    assert result.ret in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED}  # the latter is what pytest-xdist makes of it
    result.stdout.fnmatch_lines(["*cases.yaml:2: case 'a': split: is text 'tset'; use 'train' or 'holdout'*", "*cases.yaml:3: case 'a': *"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*collect.py*")


def test_a_quarantine_that_is_over_fails_the_collection(suite, runner):
    (suite.path / "cases.yaml").write_text("- id: a\n  input: x\n  quarantine: {reason: r, until: 2000-01-01}\n", encoding="utf-8")
    result = runner.run("--llm-eval")
    assert result.ret in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED}  # as above
    result.stdout.re_match_lines(
        [r".*cases\.yaml:3: case 'a': quarantine: its quarantine ended on 2000-01-01; mend the case, remove the field, or give it a new"]
    )


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("golden()", "golden() names no source; give a file, a glob, a callable or a list: @pytest.mark.golden('cases.yaml')"),
        ("golden('cases.yaml', field='x')", "golden() does not know field; it takes input, expected, id, split, group, where, limit"),
        ("golden('cases.yaml', input=3)", "golden(input=3) is no field name; give the name of the field that holds the input, as text"),
        (
            "golden('cases.yaml', where='x')",
            "golden(where='x') is not callable; give a function of a case: where=lambda case: 'refunds' in case.tags",
        ),
        ("golden('cases.yaml', limit=0)", "golden(limit=0) is not a whole number of at least 1"),
        ("golden('cases.yaml', limit=True)", "golden(limit=True) is not a whole number of at least 1"),
    ],
)
def test_a_wrong_marker_says_what_it_takes(suite, marker, message):
    suite.makepyfile(test_suite=f"import pytest\n@pytest.mark.{marker}\ndef test_it(case): pass")
    result = suite.runpytest_inprocess("--llm-eval")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert f"test_suite.py::test_it: {message}" in result.stdout.str()


def test_two_markers_on_one_test_are_a_mistake(suite):
    suite.makepyfile(test_suite="import pytest\n@pytest.mark.golden('cases.yaml')\n@pytest.mark.golden('b.yaml')\ndef test_it(case): pass")
    result = suite.runpytest_inprocess("--llm-eval")
    assert "test_it has 2 golden markers; give all sources to one: @pytest.mark.golden('a.yaml', 'b.yaml')" in result.stdout.str()


def test_a_golden_test_without_the_fixture_is_a_mistake(suite):
    suite.makepyfile(test_suite="import pytest\n@pytest.mark.golden('cases.yaml')\ndef test_it(): pass")
    result = suite.runpytest_inprocess("--llm-eval")
    assert "is a golden test without the fixture `case`; add it to its arguments: def test_it(case)" in result.stdout.str()


def test_the_fixture_without_a_marker_is_a_mistake(pytester):
    pytester.makepyfile("def test_it(case): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    assert "asks for the fixture `case` but is no golden test; add @pytest.mark.golden('cases.yaml')" in result.stdout.str()


def test_a_marker_on_a_module_or_class_serves_its_tests(suite, runner):
    suite.makepyfile(
        test_suite="""
        import pytest
        pytestmark = pytest.mark.golden("cases.yaml", limit=1)

        def test_it(case):
            assert case.id == "late-return"

        @pytest.mark.golden("cases.yaml", split="holdout")
        class TestHoldout:
            def test_it(self, case):
                assert case.id == "gift"
        """
    )
    runner.run("--llm-eval").assert_outcomes(passed=2)


def test_other_parameters_make_suites_of_their_own(suite, runner):
    suite.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.parametrize("temperature", [0, 1])
        @pytest.mark.golden("cases.yaml")
        def test_it(case, temperature):
            assert temperature in (0, 1)
        """
    )
    result = runner.run("--llm-eval")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["test_suite.py::test_it?0? *3 *3 *0*", "test_suite.py::test_it?1? *3 *3 *0*"])


def test_fields_of_an_existing_data_set_are_mapped(pytester, runner):
    rows = [{"question": "2+2", "answer": {"value": "4"}, "key": 7, "part": "holdout", "level": "easy"}]
    (pytester.path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.golden("data.jsonl", input="question", expected="answer.value", id="key", split="part")
        def test_it(case):
            assert (case.id, case.input, case.expected, case.split) == ("7", "2+2", "4", "holdout")
            assert case.metadata["level"] == "easy"
        """
    )
    runner.run("--llm-eval").assert_outcomes(passed=1)


def test_a_callable_and_a_list_are_sources(pytester, runner):
    pytester.makepyfile(
        """
        import pytest

        def made():
            yield {"id": "made", "input": "x"}

        @pytest.mark.golden(made, [{"id": "listed", "input": "y"}], where=lambda case: case.input != "z")
        def test_it(case):
            assert case.id in {"made", "listed"}
        """
    )
    runner.run("--llm-eval").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--llm-eval", "--llm-limit", "0"], "argument --llm-limit: '0' is not a whole number of at least 1"),
        (["--llm-eval", "--llm-limit", "few"], "argument --llm-limit: 'few' is not a whole number of at least 1"),
        (["--llm-eval", "--llm-record", "some"], "argument --llm-record: invalid choice: 'some'"),
        (["--llm-eval", "-o", "llm_record=some"], "ini llm_record is 'some'; use one of none, missing, all, rewrite, off"),
        (["--llm-eval", "-o", "llm_judge_timeout=soon"], "ini llm_judge_timeout is 'soon'; give a number of seconds above 0"),
        (["--llm-export", "training"], "--llm-export writes what a run with --llm-eval found; add --llm-eval"),
    ],
)
def test_wrong_options_are_usage_errors(suite, arguments, message):
    result = suite.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()
