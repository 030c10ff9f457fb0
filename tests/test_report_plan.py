from __future__ import annotations

import pytest

from pytest_touchstone.recording.store import Entry
from pytest_touchstone.report.plan import Load, PlannedCase, load_of, plan_lines, plan_suites
from pytest_touchstone.report.terminal import plain

ONE = Load(app_calls=1.0, judge_calls=1.0, input_tokens=100.0, output_tokens=10.0, cost_usd=0.5)
TWO = Load(app_calls=3.0, input_tokens=200.0, output_tokens=30.0, cost_usd=1.5)
UNPRICED = Load(app_calls=1.0, input_tokens=10.0, output_tokens=1.0, unpriced=1.0, reasons=("no price is known for m at h",))


def case(recorded, *, suite="t.py::test_a", trials=(1,), **kwargs):
    return PlannedCase(suite=suite, trials=trials, recorded=recorded, **kwargs)


def table(cases, mode="missing"):
    lines = plain(plan_lines(plan_suites(cases, mode), mode)).splitlines()
    rows = {
        line.split("  ")[0]: line.split()[line.split("  ")[0].count(" ") + 1 :] for line in lines if line.startswith(("t.py", "in all"))
    }
    return rows, [line for line in lines if not line.startswith(("t.py", "in all", "suite"))]


class TestPlan:
    def test_what_is_recorded_is_added_up(self):
        (suite,) = plan_suites([case({1: ONE}), case({1: TWO})], "missing")
        assert (suite.cases, suite.trials, suite.estimated, suite.unrecorded) == (2, 2, 0, 0)
        assert suite.total == ONE + TWO
        assert suite.live == Load()

    def test_a_case_that_is_not_recorded_is_taken_for_the_mean_of_its_suite(self):
        (suite,) = plan_suites([case({1: ONE}), case({1: TWO}), case({}), case({})], "missing")
        assert (suite.estimated, suite.unrecorded) == (2, 2)
        assert suite.live == (ONE + TWO)
        assert suite.total == (ONE + TWO).times(2)

    def test_a_trial_that_is_not_recorded_is_taken_for_the_mean_of_its_case(self):
        (suite,) = plan_suites([case({1: ONE, 2: TWO}, trials=(1, 2, 3, 4)), case({1: Load()}, trials=(1, 2))], "missing")
        assert (suite.cases, suite.trials, suite.estimated, suite.unrecorded) == (2, 6, 0, 3)
        assert suite.live == ONE + TWO

    def test_trials_beyond_those_planned_only_help_to_estimate(self):
        (suite,) = plan_suites([case({1: ONE, 2: TWO}, trials=(1,)), case({}, trials=(1,))], "all")
        assert suite.total == ONE + (ONE + TWO).times(0.5)

    def test_a_suite_of_which_nothing_is_recorded_is_unknown(self):
        (suite,) = plan_suites([case({}), case({})], "missing")
        assert (suite.total, suite.live, suite.estimated, suite.unrecorded) == (None, None, 0, 2)

    @pytest.mark.parametrize("mode", ["all", "rewrite", "off"])
    def test_these_modes_make_every_call(self, mode):
        (suite,) = plan_suites([case({1: ONE}), case({})], mode)
        assert suite.live == suite.total == ONE.times(2)

    def test_none_makes_no_call_whatever_is_known(self):
        assert [suite.live for suite in plan_suites([case({1: ONE}), case({}), case({}, suite="t.py::test_b")], "none")] == [Load(), Load()]

    def test_calls_of_shared_fixtures_are_no_cases(self):
        (suite,) = plan_suites([case({1: ONE}, suite="t.py::fixture:shop", is_shared=True)], "all")
        assert (suite.cases, suite.trials, suite.total) == (0, 0, ONE)

    def test_suites_stand_in_the_order_in_which_they_come(self):
        cases = [case({}, suite="t.py::test_b"), case({}, suite="t.py::test_a"), case({}, suite="t.py::test_b")]
        assert [suite.name for suite in plan_suites(cases, "none")] == ["t.py::test_b", "t.py::test_a"]


class TestTable:
    def test_all_is_known(self):
        rows, notes = table([case({1: ONE}), case({1: TWO}), case({1: ONE}, suite="t.py::test_b")])
        assert rows == {
            "t.py::test_a": ["2", "2", "4", "1", "300", "40", "$2.00", "0", "0", "$0.00"],
            "t.py::test_b": ["1", "1", "1", "1", "100", "10", "$0.5000", "0", "0", "$0.00"],
            "in all": ["3", "3", "5", "2", "400", "50", "$2.50", "0", "0", "$0.00"],
        }
        assert notes == [
            "--llm-record missing: live are the calls of 0 trials that are not recorded, and those whose request has changed since it was recorded"
        ]

    def test_the_heading(self):
        (heading, *_) = plan_lines([], "none")
        assert heading.text.split() == [
            "suite",
            "cases",
            "trials",
            "calls",
            "judge",
            "calls",
            "tokens",
            "in",
            "out",
            "cost",
            "estimated",
            "live",
            "calls",
            "live",
            "cost",
        ]

    def test_nothing_selected(self):
        rows, notes = table([], "none")
        assert rows == {"in all": ["0", "0", "0", "0", "0", "0", "$0.00", "0", "0", "$0.00"]}
        assert notes == ["--llm-record none: no call is live"]

    def test_estimates_are_counted_and_explained(self):
        rows, notes = table([case({1: ONE}), case({1: TWO}), case({})])
        assert rows["t.py::test_a"] == ["3", "3", "6", "2", "450", "60", "$3.00", "1", "2", "$1.00"]
        assert notes == [
            "estimated: nothing is recorded of 1 case; the mean of the suite's recorded cases stands for each",
            "--llm-record missing: live are the calls of 1 trial that is not recorded, and those whose request has changed since it was recorded",
        ]

    def test_what_is_unknown_is_never_zero(self):
        rows, notes = table([case({}), case({1: ONE}, suite="t.py::test_b")])
        assert rows == {
            "t.py::test_a": ["1", "1", *["unknown"] * 5, "0", "unknown", "unknown"],
            "t.py::test_b": ["1", "1", "1", "1", "100", "10", "$0.5000", "0", "0", "$0.00"],
            "in all": ["2", "2", *[">=", "1", ">=", "1", ">=", "100", ">=", "10", ">=", "$0.5000"], "0", "0", "$0.00"],
        }
        assert notes[0] == "unknown: nothing is recorded of t.py::test_a; a run with --llm-limit 5 records some"

    def test_all_is_unknown(self):
        rows, _ = table([case({})], "all")
        assert rows["in all"] == ["1", "1", *["unknown"] * 5, "0", "unknown", "unknown"]

    def test_what_would_be_live_is_known_where_nothing_may_be(self):
        rows, notes = table([case({}), case({1: ONE}, suite="t.py::test_b")], "none")
        assert rows["in all"][-2:] == rows["t.py::test_a"][-2:] == ["0", "$0.00"]
        assert notes[-1] == "--llm-record none: no call is live, and 1 trial that is not recorded would be errors"

    def test_what_would_be_live_is_partly_known(self):
        rows, notes = table([case({}), case({1: ONE}, suite="t.py::test_b")], "all")
        assert rows["in all"][-4:] == [">=", "2", ">=", "$0.5000"]
        assert notes[-1] == "--llm-record all: every call is live"

    def test_calls_without_a_price_or_tokens(self):
        silent = Load(app_calls=1.0, uncounted=1.0, cost_usd=0.25)
        rows, notes = table([case({1: UNPRICED}), case({1: silent}, suite="t.py::test_b")], "all")
        assert rows["t.py::test_a"] == ["1", "1", "1", "0", "10", "1", "unknown", "0", "1", "unknown"]
        assert rows["t.py::test_b"] == ["1", "1", "1", "0", "unknown", "unknown", "$0.2500", "0", "1", "$0.2500"]
        assert rows["in all"] == ["2", "2", "2", "0", ">=", "10", ">=", "1", ">=", "$0.2500", "0", "2", ">=", "$0.2500"]
        assert notes[0] == "without a price: no price is known for m at h"

    def test_names_cannot_act_on_a_terminal(self):
        bad = Load(app_calls=1.0, unpriced=1.0, reasons=("\x1b[1m",))
        text = plain(plan_lines(plan_suites([case({1: bad}, suite="t\x1b[31m"), case({}, suite="u\x1b[31m")], "all"), "all"))
        assert "\x1b" not in text
        assert "t\\x1b[31m" in text


def entry(*, url="https://api.openai.com/v1/chat/completions", method="POST", body=None, answer=None, **kwargs):
    request = {"method": method, "url": url, "body": {"json": {"model": "gpt-4o"}} if body is None else body}
    answer = {"usage": {"prompt_tokens": 11, "completion_tokens": 7}} if answer is None else answer
    fields = {
        "key": "k",
        "test": "t",
        "trial": 1,
        "occurrence": 1,
        "at": "2025-01-01T00:00:00.000000Z",
        "status": 200,
        "body": {"json": answer},
    }
    return Entry(**{**fields, "request": request, **kwargs})


class TestRecordedCall:
    def test_an_apps_and_a_judges(self):
        assert load_of("app", entry(cost_usd=0.5)) == Load(app_calls=1.0, input_tokens=11.0, output_tokens=7.0, cost_usd=0.5)
        assert load_of("judge", entry(cost_usd=0.5)) == Load(judge_calls=1.0, input_tokens=11.0, output_tokens=7.0, cost_usd=0.5)

    def test_one_without_a_price(self):
        assert load_of("app", entry(cost_reason="why")).reasons == ("why",)
        assert load_of("app", entry()).reasons == ("the recording does not say why",)

    def test_one_that_does_not_say_its_tokens(self):
        load = load_of("app", entry(answer={}, cost_usd=0.0))
        assert (load.uncounted, load.input_tokens, load.calls) == (1.0, 0.0, 1.0)

    @pytest.mark.parametrize("other", [{"method": "GET"}, {"url": "https://api.openai.com/v1/models"}, {"url": 3}, {"body": "text"}])
    def test_what_is_no_model_call_is_left_out(self, other):
        assert load_of("app", entry(**other)) is None
