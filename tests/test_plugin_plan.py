from __future__ import annotations

from dataclasses import replace

import anthropic  # noqa: F401 - imported before a pytest inside pytest imports, and forgets, it
import httpcore2  # noqa: F401 - as above
import openai  # noqa: F401 - as above
import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.plugin.plan import stay_in_one_process
from pytest_touchstone.recording.journal import Journal
from pytest_touchstone.recording.store import encode_entry, read_recording

APP = """
import httpx2


def ask(question):
    body = {{"model": "gpt-4o", "messages": [{{"role": "user", "content": question}}]}}
    with httpx2.Client() as client:
        client.get("{url}/models")
        return client.post("{url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
"""
SUITE = """
import pytest
from app import ask

@pytest.fixture(scope="module")
def fact():
    return ask("a fact")

@pytest.mark.golden([{"id": f"case-{number}", "input": f"question {number}", "split": "train" if number else "holdout"} for number in range(3)])
def test_it(case, judge, fact):
    case.output = ask(case.input)
    case.check(judge("Polite."))

@pytest.mark.golden([{"id": "only", "input": "never recorded"}])
def test_new(case):
    raise AssertionError("a plan runs nothing")
"""
VERDICT = '{"reason": "fine", "verdict": "pass"}'
IT = r"test_suite\.py::test_it +"


@pytest.fixture
def provider(pytester):
    with FakeProvider(Reply(text=VERDICT)) as server:
        pytester.makepyfile(app=APP.format(url=server.openai_url), test_suite=SUITE)
        pytester.makeconftest("import sys, pathlib; sys.path.insert(0, str(pathlib.Path(__file__).parent))")
        judge = f"openai:gpt-4o\nllm_judge_base_url = {server.openai_url}"
        pytester.makeini(f"[pytest]\nllm_judge = {judge}")
        yield server


def record(pytester, *arguments):
    pytester.runpytest_inprocess("--llm-eval", "-k", "test_it", *arguments)


def plan(runner, *arguments):
    return runner.run("--llm-eval", "--llm-plan", *arguments)


def test_a_plan_counts_what_is_recorded_and_runs_nothing(runner, pytester, provider):
    record(pytester)
    asked = len(provider.requests)
    result = plan(runner)
    result.stdout.re_match_lines(
        [
            r"=+ plan: nothing is run =+",
            r"suite +cases +trials +calls +judge calls +tokens in +out +cost +estimated +live calls +live cost",
            rf"{IT}3 +3 +3 +3 +66 +42 +unknown +0 +0 +\$0\.00$",
            r"test_suite\.py::test_new +1 +1 +unknown +unknown +unknown +unknown +unknown +0 +unknown +unknown$",
            r"test_suite\.py::fixture:fact +0 +0 +1 +0 +11 +7 +unknown +0 +0 +\$0\.00$",
            r"in all +4 +4 +>= 4 +>= 3 +>= 77 +>= 49 +unknown +0 +0 +\$0\.00$",
            r"unknown: nothing is recorded of test_suite\.py::test_new; a run with --llm-limit 5 records some$",
            r"without a price: no price is known for a server on this machine$",
            r"--llm-record missing: live are the calls of 1 trial that is not recorded, and those whose request has changed .*",
        ]
    )
    assert result.ret == 0
    assert len(provider.requests) == asked
    result.assert_outcomes()


def test_it_respects_what_is_selected_and_estimates_the_rest(runner, pytester, provider):
    record(pytester, "--llm-split", "train")
    result = plan(runner, "-k", "test_it", "--llm-repeat", "2", "--llm-record", "all")
    result.stdout.re_match_lines([rf"{IT}3 +6 +6 +6 +132 +84 +unknown +1 +12 +unknown$", r"--llm-record all: every call is live$"])
    result.stdout.no_fnmatch_line("*test_new*")
    limited = plan(runner, "-k", "test_it", "--llm-limit", "1", "--llm-split", "train", "--llm-record", "none")
    limited.stdout.re_match_lines([rf"{IT}1 +1 +1 +1 +22 +14 +unknown +0 +0 +\$0\.00$", r"--llm-record none: no call is live$"])


def test_what_a_killed_run_left_behind_counts_as_recorded(pytester, provider):
    record(pytester)
    file = pytester.path / "__recordings__" / "test_suite.jsonl"
    journal = Journal(pytester.path / ".touchstone" / "journals")
    for entry in read_recording(file):
        journal.write(encode_entry(replace(entry, module="test_suite.py")))
    journal.close()
    file.unlink()
    result = pytester.runpytest_inprocess("--llm-eval", "--llm-plan", "-k", "test_it")
    result.stdout.re_match_lines([rf"{IT}3 +3 +3 +3 +66 +42 +unknown +0 +0 +\$0\.00$"])


def test_other_tests_are_mentioned(runner, pytester):
    pytester.makepyfile("def test_plain():\n    raise AssertionError")
    result = plan(runner)
    result.stdout.fnmatch_lines(["1 test without golden cases would run too; what they ask is not in the plan"])
    assert result.ret == 0


def test_nothing_collected_is_pytests_own_status(runner):
    assert plan(runner).ret == 5


def test_faults_of_the_collection_are_pytests_to_report(runner, pytester):
    pytester.makepyfile("raise ValueError('broken module')")
    result = plan(runner)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["E   ValueError: broken module"])
    assert plan(runner, "--continue-on-collection-errors").ret == 1


def test_a_recording_that_cannot_be_read_is_said(runner, pytester, provider):
    (pytester.path / "__recordings__").mkdir()
    (pytester.path / "__recordings__" / "test_suite.jsonl").write_text("what is this\n")
    result = plan(runner)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: __recordings__/test_suite.jsonl:1: is not the first line of a recording*"])


def test_without_a_terminal_nothing_is_printed(pytester, provider):
    assert pytester.runpytest_inprocess("--llm-eval", "--llm-plan", "-p", "no:terminal").ret == 0


def test_it_needs_llm_eval(runner):
    result = runner.run("--llm-plan")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --llm-plan says what a run with --llm-eval would ask; add --llm-eval"])


def test_no_export_nor_recording_is_written(runner, pytester, provider):
    plan(runner, "--llm-export", "training")
    assert not (pytester.path / "training").exists()
    assert not (pytester.path / "__recordings__").exists()


def test_without_xdist_there_is_nothing_to_switch_off(pytester):
    class Config:
        class option:  # noqa: N801 - as pytest calls it
            pass

    stay_in_one_process(Config)
    assert not hasattr(Config.option, "dist")
