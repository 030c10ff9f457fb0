from __future__ import annotations

import anthropic  # noqa: F401 - imported before a pytest inside pytest imports, and forgets, it
import httpcore2  # noqa: F401 - as above
import openai  # noqa: F401 - as above
import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.plugin.limits import Limits
from pytest_touchstone.settings import Settings

APP = """
import httpx2


def ask(question, retries=3):
    body = {{"model": "gpt-4o", "messages": [{{"role": "user", "content": question}}]}}
    with httpx2.Client() as client:
        for _ in range(retries):
            response = client.post("{url}/chat/completions", json=body)
            if response.status_code == 200:
                return response.json()["choices"][0]["message"]["content"]
    raise ValueError(response.status_code)
"""

SUITE = """
import pytest
from app import ask

CASES = [{{"id": f"case-{{number}}", "input": f"question {{number}}"}} for number in range({cases})]


@pytest.mark.golden(CASES)
def test_it(case):
    {body}
"""
ASK = "case.output = ask(case.input)"


@pytest.fixture
def provider():
    with FakeProvider() as server:
        yield server


def write(pytester, provider, *, body=ASK, cases=6):
    pytester.makepyfile(app=APP.format(url=provider.openai_url), test_suite=SUITE.format(cases=cases, body=body))
    pytester.makeconftest("import sys, pathlib; sys.path.insert(0, str(pathlib.Path(__file__).parent))")


def leftovers(pytester):
    return list((pytester.path / ".touchstone").glob("budget-*"))


class TestRateLimits:
    def test_the_report_says_which_host_throttled_the_run(self, runner, pytester, provider):
        write(pytester, provider)
        provider.script(Reply(status=429, retry_after="0"))
        result = runner.run("--llm-eval", "--llm-concurrency", "1", "--llm-max-in-flight", "4")
        result.assert_outcomes(passed=6)
        widths = "4 -> 1" if runner.arguments == () else "[24] -> [13]"
        result.stdout.re_match_lines([rf"127\.0\.0\.1:{provider.port}: 1 rate limit, width {widths}$"])
        assert result.ret == 0
        assert len(provider.requests) == 7

    def test_a_run_that_is_not_throttled_says_nothing(self, runner, pytester, provider):
        write(pytester, provider)
        result = runner.run("--llm-eval")
        result.assert_outcomes(passed=6)
        result.stdout.no_fnmatch_line("*rate limit*")

    def test_many_bodies_get_through_a_storm_of_rate_limits(self, runner, pytester, provider):
        write(pytester, provider, body="case.output = ask(case.input, retries=40)", cases=12)
        provider.script(*(Reply(status=429, headers={"retry-after-ms": "1"}) for _ in range(15)))
        result = runner.run("--llm-eval", "--llm-concurrency", "12")
        result.assert_outcomes(passed=12)
        assert len(provider.requests) == 27

    def test_the_width_may_stand_in_the_ini_file(self, runner, pytester, provider):
        write(pytester, provider)
        pytester.makeini("[pytest]\nllm_max_in_flight_per_host = 1")
        provider.script(Reply(status=429, retry_after="0"))
        result = runner.run("--llm-eval")
        result.stdout.re_match_lines([r".*: 1 rate limit, width [12] -> [12]$"])


class TestCalls:
    def test_no_more_calls_are_made_and_what_is_left_is_not_run(self, runner, pytester, provider):
        write(pytester, provider)
        result = runner.run("--llm-eval", "--llm-max-calls", "4")
        assert len(provider.requests) == 4
        assert result.ret == 12
        assert result.parseoutcomes()["passed"] == 4
        result.stdout.re_match_lines([r"test_suite\.py::test_it +6 +4 +0 +0 +0 +2 .*"])
        assert not leftovers(pytester)

    def test_a_call_that_the_budget_refuses_leaves_its_trial_not_run(self, runner, pytester, provider):
        write(pytester, provider, body="case.output = ask(case.input) + ask(case.input + ' again')", cases=1)
        result = runner.run("--llm-eval", "--llm-max-calls", "1", "-rs")
        assert len(provider.requests) == 1
        assert result.ret == 12
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["SKIPPED*: the budget of 1 call is spent"])

    @pytest.mark.parametrize("after", ["case.output = 'gave up'", "raise ValueError('gave up')", "assert False"])
    def test_an_app_that_swallows_the_refusal_cannot_hide_it(self, pytester, provider, after):
        body = f"""
    try:
        ask(case.input) + ask(case.input + ' again')
    except BaseException:
        pass
    {after}
"""
        write(pytester, provider, body=body, cases=1)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-max-calls", "1")
        assert result.ret == 12
        result.assert_outcomes(skipped=1)

    def test_a_task_group_cannot_hide_it_either(self, runner, pytester, provider):
        write(pytester, provider, cases=1)
        pytester.makepyfile(
            test_suite="""
            import asyncio
            import pytest
            from app import ask

            @pytest.mark.golden([{"id": "a", "input": "question"}])
            async def test_it(case):
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.to_thread(ask, "one"))
                    group.create_task(asyncio.to_thread(ask, "two"))
            """
        )
        result = runner.run("--llm-eval", "--llm-max-calls", "1")
        assert (result.ret, len(provider.requests)) == (12, 1)
        result.assert_outcomes(skipped=1)

    def test_a_fixture_that_is_refused_leaves_its_test_not_run(self, runner, pytester, provider):
        write(pytester, provider, cases=2)
        pytester.makepyfile(
            test_suite="""
            import pytest
            from app import ask

            @pytest.fixture
            def fact():
                return ask("one") + ask("two")

            @pytest.mark.golden([{"id": "a", "input": "question"}])
            def test_it(case, fact):
                case.output = fact
            """
        )
        result = runner.run("--llm-eval", "--llm-max-calls", "1")
        assert (result.ret, len(provider.requests)) == (12, 1)
        result.assert_outcomes(skipped=1)

    def test_calls_of_judges_count(self, runner, pytester, provider):
        write(pytester, provider, cases=2)
        pytester.makepyfile(
            test_suite="""
            import pytest
            from app import ask

            @pytest.mark.golden([{"id": "a", "input": "question"}])
            def test_it(case, judge):
                case.output = ask(case.input)
                case.check(judge("Polite."))
            """
        )
        judge = ["--llm-judge", "openai:gpt-4o", "--llm-judge-base-url", provider.openai_url]
        result = runner.run("--llm-eval", "--llm-max-calls", "1", *judge)
        assert (result.ret, len(provider.requests)) == (12, 1)
        result.assert_outcomes(skipped=1)

    def test_retries_count(self, runner, pytester, provider):
        write(pytester, provider, cases=1)
        provider.answer = Reply(status=500)
        result = runner.run("--llm-eval", "--llm-max-calls", "2")
        assert (result.ret, len(provider.requests)) == (12, 2)

    def test_replayed_calls_do_not(self, runner, pytester, provider):
        write(pytester, provider)
        assert runner.run("--llm-eval").ret == 0
        pytester.makeini("[pytest]\nllm_max_calls = 1")
        result = runner.run("--llm-eval")
        result.assert_outcomes(passed=6)
        assert (result.ret, len(provider.requests)) == (0, 6)

    def test_a_budget_that_is_just_enough_changes_nothing(self, runner, pytester, provider):
        write(pytester, provider)
        result = runner.run("--llm-eval", "--llm-max-calls", "6")
        result.assert_outcomes(passed=6)
        assert result.ret == 0

    @pytest.mark.parametrize(
        ("then", "status"),
        [
            ("assert False", 1),
            ("raise ValueError", 10),
            ("from pytest_touchstone.trial import Score; case.check(lambda trial: Score.unscored('x', 'y'))", 12),
        ],
    )
    def test_failures_and_errors_weigh_more_in_the_exit_status(self, pytester, provider, then, status):
        write(pytester, provider, body=f"{ASK}\n    if case.id == 'case-0':\n        {then}")
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-max-calls", "3", "--llm-concurrency", "1", "-p", "no:randomly")
        assert result.ret == status
        assert len(provider.requests) == 3


class TestCost:
    def test_a_call_without_a_price_ends_the_budget(self, runner, pytester, provider):
        write(pytester, provider)
        result = runner.run("--llm-eval", "--llm-max-cost", "0.5", "--llm-concurrency", "1", "-v")
        assert result.ret == 12
        assert len(provider.requests) <= 2
        assert result.parseoutcomes()["passed"] == len(provider.requests)

    def test_the_reason_names_model_host_and_another_way(self, pytester, provider):
        write(pytester, provider, body=f"{ASK}; ask('more')", cases=1)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-max-cost", "0.5", "-rs")
        assert result.ret == 12
        reason = "the cost of a call to gpt-4o at 127.0.0.1 is not known (no price is known for a server on this machine)"
        result.stdout.fnmatch_lines([f"SKIPPED*: {reason}, so --llm-max-cost cannot be held; use --llm-max-calls"])

    def test_refusals_of_the_provider_cost_nothing(self, runner, pytester, provider):
        write(pytester, provider, cases=1)
        provider.script(Reply(status=429, retry_after="0"), Reply(status=500))
        pytester.makeini("[pytest]\nllm_max_cost = 1")
        result = runner.run("--llm-eval")
        result.assert_outcomes(passed=1)
        assert (result.ret, len(provider.requests)) == (0, 3)


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--llm-max-calls", "0"], "*--llm-max-calls: '0' is not a whole number of at least 1"),
            (["--llm-max-in-flight", "x"], "*--llm-max-in-flight: 'x' is not a whole number of at least 1"),
            (["--llm-max-cost", "-1"], "*--llm-max-cost: '-1' is not a number of US dollars above 0"),
            (["--llm-max-cost", "nan"], "*--llm-max-cost: 'nan' is not a number of US dollars above 0"),
            (["--llm-max-cost", "much"], "*--llm-max-cost: 'much' is not a number of US dollars above 0"),
        ],
    )
    def test_options_that_cannot_be_used(self, pytester, arguments, message):
        result = pytester.runpytest_inprocess("--llm-eval", *arguments)
        assert result.ret == 4
        result.stderr.fnmatch_lines([message])

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("llm_max_calls = few", "*ini llm_max_calls: 'few' is not a whole number of at least 1, for example llm_max_calls = 500"),
            ("llm_max_cost = 0", "*ini llm_max_cost: '0' is not a number of US dollars above 0, for example llm_max_cost = 2.50"),
            (
                "llm_max_in_flight_per_host = 0",
                "*ini llm_max_in_flight_per_host: '0' is not a whole number of at least 1, for example llm_max_in_flight_per_host = 8",
            ),
        ],
    )
    def test_ini_values_that_cannot_be_used(self, pytester, line, message):
        pytester.makeini(f"[pytest]\n{line}")
        result = pytester.runpytest_inprocess("--llm-eval")
        assert result.ret == 4
        result.stderr.fnmatch_lines([message])

    def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(self, pytester):
        (pytester.path / ".touchstone").write_text("no folder")
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-max-calls", "1", "-n", "2")
        assert result.ret == 4
        result.stderr.fnmatch_lines(
            ["*.touchstone: the workers' budget cannot be counted there (*); make the folder writable, or run without -n"]
        )


class Node:
    def __init__(self):
        self.workerinput = {}


def test_a_worker_that_died_hands_nothing_over(pytester):
    limits = Limits(pytester.parseconfig(), Settings(), folder=pytester.path)
    limits.pytest_testnodedown(node=Node())
    limits.pytest_configure_node(node=(node := Node()))
    limits.pytest_unconfigure()
    assert (limits.lines(), limits.spent(), node.workerinput) == ([], None, {})
