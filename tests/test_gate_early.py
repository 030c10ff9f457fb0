"""Stopping a suite early: on which evidence, in which order, and how often it is wrong."""

from __future__ import annotations

import random

import pytest

from pytest_touchstone import stats
from pytest_touchstone.gate import Evidence, Policy, decide, early_share, evidence
from pytest_touchstone.gate_early import EarlyStop
from pytest_touchstone.trial import TrialRecord

SUITE = "test_support.py::test_refunds"
# With one suite and an alpha of .01, so many flips are enough where nothing got better: e is 341 then.
ENOUGH = 11


def trial(number, outcome="not_run", *, attempt=1, suite=SUITE, **fields):
    about = {"source": "", "content_hash": "h", "split": "train", "tags": (), "must_pass": False, **fields}
    return TrialRecord(nodeid=f"{suite}[{number}@{attempt}]", suite=suite, case_id=str(number), number=attempt, outcome=outcome, **about)


def accepted(*passes, trials=1):
    return {
        str(number): Evidence(case_id=str(number), content_hash="h", trials=trials, passes=count) for number, count in enumerate(passes)
    }


def watch(baseline, *, trials=1, policies=None, others=()):
    planned = [trial(number, attempt=attempt) for attempt in range(1, trials + 1) for number in range(len(baseline))]
    return EarlyStop({SUITE: baseline, **{other: {} for other in others}}, planned, policies or {})


def stopped_after(watching, records):
    """How many finished trials it took, and the e-value; None where they were not enough."""
    return next(((count, e) for count, record in enumerate(records, start=1) if (e := watching.add(record)) is not None), None)


def all_fail(cases, trials=1):
    return [trial(number, "failed", attempt=attempt) for attempt in range(1, trials + 1) for number in range(cases)]


def test_it_stops_at_the_flip_that_is_enough_and_says_so_once():
    watching = watch(accepted(*[1] * 30))
    assert stopped_after(watching, all_fail(30)) == (ENOUGH, stats.e_value(ENOUGH, 0))
    assert stopped_after(watching, all_fail(30)) is None


def test_the_e_value_that_is_enough_keeps_half_of_alpha_over_all_suites():
    assert stats.e_value(ENOUGH, 0) >= 1 / early_share(Policy()) == 200 > stats.e_value(ENOUGH - 1, 0)
    assert early_share(Policy(sided="two")) == 0.0025
    assert stopped_after(watch(accepted(*[1] * 30), others=("other",)), all_fail(30))[0] == ENOUGH + 1
    assert stopped_after(watch(accepted(*[1] * 30), policies={SUITE: Policy(alpha=0.2)}), all_fail(30))[0] < ENOUGH
    assert stopped_after(watch(accepted(*[1] * 30), policies={SUITE: Policy(margin=5)}), all_fail(30)) is None


def test_cases_count_in_the_order_of_the_plan_however_they_end():
    watching = watch(accepted(*[1] * 30))
    assert stopped_after(watching, all_fail(30)[1:]) is None
    assert watching.add(trial(0, "failed")) == stats.e_value(ENOUGH, 0)


def test_a_case_bears_witness_with_as_many_trials_as_before_only():
    assert stopped_after(watch(accepted(*[5] * 30, trials=5)), all_fail(30)) is None
    assert stopped_after(watch(accepted(*[3] * 30, trials=3), trials=3), all_fail(30, trials=3)) == (60 + ENOUGH, stats.e_value(ENOUGH, 0))


@pytest.mark.parametrize("fields", [{"outcome": "error"}, {"quarantine": "slow"}, {"content_hash": "other"}, {"suite": "another"}])
def test_what_is_not_compared_bears_no_witness(fields):
    outcome = fields.pop("outcome", "failed")
    assert stopped_after(watch(accepted(*[1] * 30)), [trial(number, outcome, **fields) for number in range(30)]) is None


def test_a_trial_that_was_not_planned_or_comes_again_is_not_counted():
    watching = watch(accepted(*[1] * ENOUGH))
    again = [trial(number, "failed", attempt=attempt) for attempt in (1, 1, 2) for number in range(ENOUGH - 1)]
    assert stopped_after(watching, again) is None
    assert stopped_after(watching, [trial(ENOUGH - 1, "failed")]) == (1, stats.e_value(ENOUGH, 0))


@pytest.mark.parametrize("order", ["as planned", "failures first", "passes first"])
def test_an_unchanged_app_is_called_regressed_at_most_as_often_as_alpha_promises(order):
    """By the e-process or the test in the end; that failures end sooner than passes must not matter."""
    rng, policy, wrong = random.Random(7), Policy(alpha=0.2), 0
    for _ in range(100):
        chances = [rng.random() for _ in range(30)]
        before = accepted(*(int(rng.random() < chance) for chance in chances))
        records = [trial(number, "passed" if rng.random() < chance else "failed") for number, chance in enumerate(chances)]
        if order != "as planned":
            records.sort(key=lambda record: (record.outcome == "passed") == (order == "failures first"))
        found = stopped_after(watch(before, policies={SUITE: policy}), records)
        early = {} if found is None else {SUITE: found[1]}
        seen = records if found is None else records[: found[0]]
        wrong += decide({SUITE: before}, {SUITE: evidence(seen)}, policy, early=early).result == "regressed"
    assert wrong <= 20
    assert wrong > 0
