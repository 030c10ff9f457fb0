"""The gate: which cases are compared, what is decided from them, and how often it is wrong."""

from __future__ import annotations

import json
import os
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone import stats
from pytest_touchstone.errors import SettingsError
from pytest_touchstone.gate import Evidence, Level, Policy, compare, decide, evidence, suspicious
from pytest_touchstone.gate_text import explain, headline
from pytest_touchstone.trial import Call, Score, TrialRecord

SUITE = "test_support.py::test_refunds"
DATA = Path(os.environ.get("TOUCHSTONE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "gsm8k"


def case(case_id, passes, trials=1, **fields):
    return Evidence(**{"case_id": case_id, "content_hash": f"hash of {case_id}", "passes": passes, "trials": trials, **fields})


def side(*cases):
    return {SUITE: {one.case_id: one for one in cases}}


def passing(*passes, trials=1):
    """A side whose cases `0`, `1`, ... pass so often."""
    return side(*(case(f"{number:04}", count, trials) for number, count in enumerate(passes)))


def flips(worse, better, same):
    """Two sides of cases tried once, so many of which flip."""
    before = [1] * worse + [0] * better + [1] * same
    after = [0] * worse + [1] * better + [1] * same
    return passing(*before), passing(*after)


def only(decision):
    (suite,) = decision.suites
    assert suite.result == decision.result
    return suite


def texts(suite):
    return [f"{reason.effect} by {reason.rule}: {reason.text}" for reason in suite.reasons]


# Evidence


def record(**fields):
    defaults = {"nodeid": "n", "suite": SUITE, "case_id": "a", "source": "a:1", "content_hash": "h", "split": "train", "outcome": "passed"}
    return TrialRecord(**{**defaults, **fields})


def call(cost=0.25, latency=1.5, **fields):
    return Call(**{"provider": "p", "model": "m", "cost_usd": cost, "latency_s": latency, **fields})


def test_evidence_counts_only_verdicts_as_trials():
    outcomes = ("passed", "failed", "passed", "error", "unscored", "unscored", "not_run", "not_run", "not_run")
    found = evidence(record(outcome=outcome, tags=("t",)) for outcome in outcomes)
    assert found == {
        "a": Evidence(case_id="a", content_hash="h", trials=3, passes=2, errors=1, unscored=2, not_run=3, tags=("t",)),
    }
    assert found["a"].rate == Fraction(2, 3)
    assert found["a"].flaky


def test_evidence_keeps_cases_apart_in_order_and_knows_what_must_pass_and_what_is_quarantined():
    found = evidence([record(case_id="b", must_pass=True), record(quarantine="slow vendor"), record(case_id="b", must_pass=True)])
    assert list(found) == ["b", "a"]
    assert (found["b"].trials, found["b"].must_pass, found["b"].quarantined) == (2, True, "")
    assert (found["a"].trials, found["a"].must_pass, found["a"].quarantined) == (1, False, "slow vendor")
    assert evidence([]) == {}


def test_evidence_knows_judges_and_models_of_trials_with_a_verdict():
    scores = (Score(name="s", value=1.0, passed=True, judge="j2"), Score(name="exact", value=1.0, passed=True))
    other = (Score(name="s", value=0.0, passed=False, judge="j1"),)
    lost = (Score.unscored("s", "refused", judge="j3"),)
    found = evidence(
        [
            record(scores=scores, calls=(call(), call(model="k"), call(role="judge", model="judge"))),
            record(outcome="failed", scores=other, calls=(call(),)),
            record(outcome="unscored", scores=lost, calls=(call(model="never"),)),
        ]
    )["a"]
    assert (found.judges, found.models) == (("j1", "j2"), ("k", "m"))


def test_evidence_sums_cost_and_latency_of_a_trial_and_averages_the_cost():
    found = evidence([record(calls=(call(), call(0.5, 0.5), call(9.0, 9.0, role="judge"))), record(calls=(call(0.25, 1.0),))])["a"]
    assert found.cost_usd == 0.5
    assert found.latencies_s == (2.0, 1.0)


@pytest.mark.parametrize("calls", [(), (call(None, None),), (call(), call(None, None))])
def test_evidence_does_not_know_the_cost_where_a_part_is_unknown(calls):
    found = evidence([record(calls=(call(),)), record(calls=calls)])["a"]
    assert found.cost_usd is None
    assert found.latencies_s == (1.5,)


def test_a_price_of_0_is_known():
    assert evidence([record(calls=(call(0.0),))])["a"].cost_usd == 0.0


# One case

STATUSES = [
    ((1, 1), (1, 1), "same"),
    ((0, 1), (0, 1), "same"),
    ((5, 5), (1, 1), "same"),
    ((1, 1), (0, 1), "worse"),
    ((5, 5), (0, 1), "worse"),
    ((4, 5), (1, 5), "worse"),
    ((4, 4), (2, 4), "worse"),
    ((0, 1), (1, 1), "better"),
    ((2, 4), (4, 4), "better"),
    ((4, 5), (4, 5), "flaky"),
    ((4, 5), (1, 1), "flaky"),
    ((5, 5), (3, 5), "flaky"),
    ((1, 5), (0, 5), "flaky"),
]


@pytest.mark.parametrize(("before", "after", "status"), STATUSES)
def test_the_status_of_a_case_that_is_compared(before, after, status):
    change = compare(case("a", *before), case("a", *after))
    assert change.status == status
    assert change.difference == Fraction(*after) - Fraction(*before)
    assert change.flaky == (0 < before[0] < before[1] or 0 < after[0] < after[1])
    assert change.known == (before[0] == after[0] == 0)
    assert change.note == ""


def test_a_case_on_one_side_only_is_new_or_removed():
    new, removed = compare(None, case("a", 1)), compare(case("a", 1), None)
    assert (new.status, removed.status) == ("new", "removed")
    assert (new.case_id, removed.case_id) == ("a", "a")
    assert new.difference is removed.difference is None
    assert not (new.known or removed.known or new.must_pass_failed or removed.must_pass_failed)
    with pytest.raises(ValueError, match=r"^there is no evidence on either side; give at least one$"):
        compare(None, None)


def test_a_changed_case_is_compared_with_nothing_unless_a_hash_is_not_known():
    change = compare(case("a", 1), case("a", 0, content_hash="other"))
    assert (change.status, change.difference, change.note) == ("changed_case", None, "the case itself changed")
    assert compare(case("a", 1, content_hash=""), case("a", 0)).status == "worse"
    assert compare(case("a", 1), case("a", 0, content_hash="")).status == "worse"


def test_a_case_without_a_verdict_is_unscored_and_never_same():
    change = compare(case("a", 1), case("a", 0, 0, errors=1, unscored=2, not_run=3))
    assert (change.status, change.difference) == ("unscored", None)
    assert change.note == "no verdict in this run: 1 an error, 2 unscored, 3 not run"
    assert compare(case("a", 0, 0), case("a", 1)).note == "no verdict in the baseline: no trial"
    assert compare(case("a", 0, 0), case("a", 0, 0)).status == "unscored"


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ((1, ("j1",)), (0, ("j1",)), "worse"),
        ((1, ("j1",)), (0, ("j2",)), "changed_judge"),
        ((1, ("j1",)), (0, ("j1", "j2")), "changed_judge"),
        # Passed, and no judge was asked: there is none any more, or there was none.
        ((1, ("j1",)), (1, ()), "changed_judge"),
        ((1, ()), (0, ("j1",)), "changed_judge"),
        # Failed before a judge was asked.
        ((1, ("j1",)), (0, ()), "worse"),
        ((0, ()), (1, ("j1",)), "better"),
    ],
)
def test_a_changed_judge(before, after, status):
    change = compare(case("a", before[0], judges=before[1]), case("a", after[0], judges=after[1]))
    assert change.status == status


def test_a_changed_judge_is_named_without_acting_on_the_terminal():
    change = compare(case("a", 1, judges=("j\x1b[31m",)), case("a", 1))
    assert change.note == "judged by j\\x1b[31m before, by none now"


# Decisions


def test_an_unchanged_run_passes():
    suite = only(decide(*flips(0, 0, 50)))
    assert (suite.result, suite.reasons, suite.compared) == ("passed", (), 50)
    assert (suite.p, suite.p_adjusted, suite.p_margin, suite.difference) == (1.0, 1.0, None, 0.0)
    assert suite.counts == {
        "same": 50, "worse": 0, "better": 0, "flaky": 0, "new": 0, "removed": 0, "changed_case": 0, "changed_judge": 0, "unscored": 0,
    }  # fmt: skip
    assert suite.baseline_rate == suite.run_rate
    assert (suite.run_rate.rate, suite.run_rate.cases, suite.run_rate.interval) == (1.0, 50, stats.wilson(50, 50))
    assert suite.interval == stats.tango(0, 0, 50)


def test_one_trial_a_side_is_decided_by_exact_mcnemar():
    suite = only(decide(*flips(12, 1, 187)))
    assert suite.result == "regressed"
    assert suite.p == pytest.approx(stats.mcnemar(12, 1, alternative="less").p)
    assert suite.method == "exact McNemar"
    assert (suite.difference, suite.interval) == (pytest.approx(-11 / 200), stats.tango(12, 1, 200))
    assert (suite.fell, suite.rose, len(suite.worse)) == (12, 1, 12)
    assert texts(suite) == [
        "regressed by paired_test: more than chance explains: an unchanged app looks this bad in 1 of 585 runs (allowed are 1 of 100 runs)"
    ]


def test_two_sided_halves_alpha():
    before, after = flips(9, 1, 90)
    one, two = only(decide(before, after, Policy(alpha=0.02))), only(decide(before, after, Policy(alpha=0.02, sided="two")))
    assert two.p == pytest.approx(2 * one.p) == pytest.approx(stats.mcnemar(9, 1).p)
    assert (one.result, two.result) == ("regressed", "undecided")
    assert (
        two.reasons[0].text
        == "that may be chance, or not: an unchanged app moves this far in 1 of 47 runs; more cases or trials would tell"
    )


@pytest.mark.parametrize("sided", ["one", "two"])
def test_getting_better_is_no_regression(sided):
    assert decide(*flips(1, 30, 100), Policy(sided=sided)).result == "passed"
    assert suspicious(*flips(1, 30, 100), Policy(sided=sided)) == ()


def test_between_alpha_and_suspicious_is_undecided():
    sides = flips(5, 1, 94)
    suite = only(decide(*sides))
    assert suite.p == pytest.approx(0.109375)
    assert texts(suite) == [
        "undecided by paired_test: that may be chance, or not: an unchanged app looks this bad in 1 of 9 runs; more cases or trials would tell"
    ]
    assert decide(*sides, Policy(suspicious=0.05)).result == "passed"
    assert decide(*flips(5, 4, 91)).result == "passed"
    assert not decide(*sides).fails
    assert decide(*sides, Policy(undecided="fail")).fails


def test_a_suite_too_small_to_tell_is_undecided_where_it_fell_and_passed_where_it_did_not():
    suite = only(decide(*flips(3, 0, 2)))
    assert texts(suite) == ["undecided by paired_test: too few cases to tell: even if all 5 got worse, that could be chance"]
    assert (suite.smallest_drop, suite.why_unknown) == (None, "5 cases cannot show a drop: even if all got worse, that could be chance")
    assert decide(*flips(0, 0, 5)).result == "passed"
    assert decide(*flips(1, 2, 2)).result == "passed"
    # Six cases are too few and seven are not; over two suites it takes eight.
    assert [decide(*flips(size, 0, 0)).result for size in (6, 7)] == ["undecided", "regressed"]


def test_a_single_case_is_told_in_the_singular():
    suite = only(decide(*flips(1, 0, 0)))
    assert texts(suite) == ["undecided by paired_test: too few cases to tell: even if it got worse, that could be chance"]
    assert suite.why_unknown == "1 case cannot show a drop: even if all got worse, that could be chance"


def test_a_suite_too_small_to_tell_needs_no_second_stage():
    assert suspicious(*flips(6, 0, 0)) == ()
    assert suspicious(*flips(6, 0, 1)) == (SUITE,)


def test_repeats_average_inside_the_case():
    before = passing(*[5] * 30, trials=5)
    suite = only(decide(before, passing(*[4] * 10, *[5] * 20, trials=5)))
    assert suite.p == pytest.approx(0.5**10)
    assert (suite.result, suite.method) == ("regressed", "exact sign-flip permutation")
    assert suite.difference == pytest.approx(-10 * 0.2 / 30)
    assert suite.interval == stats.mean_difference([-0.2] * 10 + [0.0] * 20)
    assert suite.run_rate.interval == stats.wilson(28, 30)
    assert (suite.counts["worse"], suite.counts["flaky"], suite.fell) == (0, 10, 10)
    error = stats.adjusted_mean([-0.2] * 10 + [0.0] * 20)[1]
    assert suite.smallest_drop == pytest.approx(stats.smallest_drop_means(error, alternative="less"))


def test_unequal_trials_must_look_worse_by_both_permutations():
    # Mostly failing cases: where nothing changed, one trial against five is lower than usual more often than flipped signs say.
    before = [1] * 8 + [0] * 60
    suite = only(decide(passing(*before, trials=5), passing(*[0] * 68)))
    signs = stats.sign_flip([Fraction(-1, 5)] * 8 + [Fraction(0)] * 60, alternative="less")
    within = stats.within_case_permutation([(passes, 5, 0, 1) for passes in before], alternative="less")
    assert signs.p < 0.01 < within.p
    assert suite.p == within.p
    assert suite.method == "exact permutation within cases, the larger p of two tests"
    # Cases that moved both ways: permuting trials takes them for free of noise.
    moved = only(decide(passing(*[5] * 12, *[0] * 6, trials=5), passing(*[0] * 12, *[1] * 6)))
    assert moved.p == pytest.approx(stats.sign_flip([-1] * 12 + [1] * 6, alternative="less").p)
    assert moved.method == "exact sign-flip permutation, the larger p of two tests"


def test_worst_cases_come_first():
    before = side(case("b", 5, 5), case("a", 5, 5), case("c", 4, 5), case("d", 5, 5, content_hash="x"), case("e", 5, 5), case("z", 5, 5))
    after = side(case("b", 3, 5), case("a", 1, 5), case("c", 4, 5), case("d", 0, 5), case("e", 1, 5, must_pass=True), case("n", 0, 5))
    suite = only(decide(before, after))
    assert [change.case_id for change in suite.cases] == ["e", "a", "b", "c", "d", "n", "z"]
    assert [change.case_id for change in suite.worse] == ["e", "a", "b"]


def test_a_case_that_must_pass_always_fails_the_run():
    before, after = flips(0, 20, 60)
    for trials, passes in ((1, 0), (5, 4)):
        failed = {SUITE: {**after[SUITE], "hard": case("hard", passes, trials, must_pass=True)}}
        for known in (before, {SUITE: {**before[SUITE], "hard": case("hard", 0)}}):
            suite = only(decide(known, failed))
            assert texts(suite) == ["regressed by must_pass: 1 case that must pass failed: hard"]
    quarantined = {SUITE: {**after[SUITE], "hard": case("hard", 0, must_pass=True, quarantined="later")}}
    assert decide(before, quarantined).result == "regressed"
    assert decide(before, {SUITE: {**after[SUITE], "hard": case("hard", 1, must_pass=True)}}).result == "passed"


def test_many_names_are_cut():
    hard = [case(f"hard-{number}", 0, must_pass=True) for number in range(7)]
    assert "7 cases that must pass failed: hard-0, hard-1, hard-2, hard-3, hard-4, 2 more" in texts(only(decide({}, side(*hard))))[0]


def test_known_failures_are_no_news():
    before = passing(*[0] * 20, *[1] * 30)
    suite = only(decide(before, before))
    assert suite.result == "passed"
    assert [change.case_id for change in suite.known] == [f"{number:04}" for number in range(20)]


def test_what_cannot_be_compared_does_not_count():
    before, after = flips(0, 0, 10)
    bad = {
        "changed": (case("changed", 1, content_hash="old"), case("changed", 0)),
        "judge": (case("judge", 1, judges=("j1",)), case("judge", 0, judges=("j2",))),
        "flaky": (case("flaky", 1), case("flaky", 0, quarantined="vendor is down; until 2031-01-01")),
    }
    suite = only(
        decide(
            {SUITE: {**before[SUITE], **{name: pair[0] for name, pair in bad.items()}, "gone": case("gone", 1)}},
            {SUITE: {**after[SUITE], **{name: pair[1] for name, pair in bad.items()}, "new": case("new", 0)}},
        )
    )
    assert (suite.result, suite.compared, suite.difference) == ("passed", 10, 0.0)
    counts = suite.counts
    assert (counts["changed_case"], counts["changed_judge"], counts["new"], counts["removed"], counts["worse"]) == (1, 1, 1, 1, 0)
    assert [(change.case_id, change.quarantined) for change in suite.quarantined] == [("flaky", "vendor is down; until 2031-01-01")]


def test_a_case_that_the_baseline_knows_and_that_has_no_verdict_keeps_a_suite_from_passing():
    before, after = flips(0, 0, 20)
    lost = {SUITE: {**after[SUITE], "0003": case("0003", 0, 0, errors=1), "0004": case("0004", 0, 0, unscored=1)}}
    suite = only(decide(before, lost))
    assert texts(suite) == ["undecided by verdicts: 2 cases that the baseline knows or that must pass have no verdict: 0003, 0004"]
    assert suite.compared == 18
    excused = {SUITE: {**after[SUITE], "0003": case("0003", 0, 0, errors=1, quarantined="vendor")}}
    assert decide(before, excused).result == "passed"


@pytest.mark.parametrize(("must_pass", "result"), [(True, "undecided"), (False, "passed")])
def test_a_new_case_without_a_verdict_matters_where_it_must_pass(must_pass, result):
    before, after = flips(0, 0, 20)
    decision = decide(before, {SUITE: {**after[SUITE], "new": case("new", 0, 0, errors=1, must_pass=must_pass)}})
    assert decision.result == result


def test_a_regression_stays_one_whatever_else_is_not_known():
    before, after = flips(20, 0, 80)
    suite = only(decide({SUITE: {**before[SUITE], "lost": case("lost", 1)}}, {SUITE: {**after[SUITE], "lost": case("lost", 0, 0)}}))
    assert suite.result == "regressed"
    assert [reason.rule for reason in suite.reasons] == ["paired_test", "verdicts"]
    assert suite.reasons[1].text == "1 case that the baseline knows or that must pass has no verdict: lost"


def test_a_suite_without_a_baseline_or_without_anything_to_compare_is_undecided():
    suite = only(decide({}, passing(1, 1, 1)))
    assert texts(suite) == ["undecided by cases: there is no baseline of this suite; accept one with --snapshot-update"]
    assert (suite.p, suite.interval, suite.run_rate, suite.difference) == (None, None, None, None)
    assert suite.why_unknown == (
        "no case can be compared with the baseline; 0 cases cannot show a drop: even if all got worse, that could be chance"
    )
    gone = only(decide(passing(1, 1, 1), {}))
    assert texts(gone) == ["undecided by cases: 0 cases can be compared with the baseline, and 1 is wanted"]
    assert gone.counts["removed"] == 3
    assert decide({}, {}).result == "passed"


def test_a_minimum_of_cases():
    assert texts(only(decide(*flips(0, 0, 29), Policy(min_cases=30)))) == [
        "undecided by cases: 29 cases can be compared with the baseline, and 30 are wanted"
    ]
    assert decide(*flips(0, 0, 30), Policy(min_cases=30)).result == "passed"


def test_holm_over_suites():
    worse, same = flips(8, 1, 91), flips(0, 0, 100)
    before = {"a": worse[0][SUITE]} | {f"b{number}": same[0][SUITE] for number in range(4)}
    after = {"a": worse[1][SUITE]} | {f"b{number}": same[1][SUITE] for number in range(4)}
    policy = Policy(alpha=0.02)
    assert decide({"a": before["a"]}, {"a": after["a"]}, policy).result == "regressed"
    decision = decide(before, after, policy)
    suite = decision.suites[0]
    assert suite.p_adjusted == pytest.approx(5 * suite.p)
    assert (decision.result, suite.result) == ("undecided", "undecided")
    assert [other.result for other in decision.suites[1:]] == ["passed"] * 4
    # Suites without anything to test take no share of alpha.
    assert decide({"a": before["a"]}, after, policy).suites[0].result == "regressed"


def test_the_worst_suite_decides_and_each_has_its_own_policy():
    (good_before, good_after), (bad_before, bad_after) = flips(0, 0, 50), flips(30, 0, 20)
    before, after = {"good": good_before[SUITE], "bad": bad_before[SUITE]}, {"good": good_after[SUITE], "bad": bad_after[SUITE]}
    decision = decide(before, after)
    assert [(suite.suite, suite.result) for suite in decision.suites] == [("good", "passed"), ("bad", "regressed")]
    assert (decision.result, decision.fails) == ("regressed", True)
    own = decide(before, after, policies={"good": Policy(min_cases=51, undecided="fail")})
    assert [suite.result for suite in own.suites] == ["undecided", "regressed"]
    only_good = decide({"good": before["good"]}, {"good": after["good"]}, policies={"good": Policy(min_cases=51, undecided="fail")})
    assert (only_good.result, only_good.fails) == ("undecided", True)


# Margins


@pytest.mark.parametrize(
    ("worse", "better", "n", "result", "rule"),
    [
        (12, 10, 1000, "passed", None),  # shown to be within the margin
        (90, 10, 1000, "regressed", "paired_test"),  # shown to be beyond it
        (36, 10, 1000, "undecided", "margin"),  # neither, though a drop as such is certain
        (0, 0, 50, "undecided", "margin"),  # too few cases to show anything
    ],
)
def test_a_margin_is_one_of_non_inferiority(worse, better, n, result, rule):
    sides = flips(worse, better, n - worse - better)
    suite = only(decide(*sides, Policy(margin=3)))
    assert suite.result == result
    assert [reason.rule for reason in suite.reasons] == ([rule] if rule else [])
    assert suite.p_margin == pytest.approx(stats.tango_test(worse, better, n, -0.03, alternative="greater").p)
    assert suite.p == pytest.approx(stats.tango_test(worse, better, n, -0.03, alternative="less").p)
    assert suite.smallest_drop > 0.03


def test_a_margin_over_repeats_uses_the_adjusted_mean():
    before, after = passing(*[5] * 200, trials=5), passing(*[4] * 10, *[5] * 190, trials=5)
    suite = only(decide(before, after, Policy(margin=4)))
    differences = [-0.2] * 10 + [0.0] * 190
    assert suite.p_margin == pytest.approx(stats.mean_difference_test(differences, -0.04, alternative="greater").p)
    assert (suite.result, suite.method) == ("passed", "Bonett-Price z")


def test_the_words_of_a_margin():
    text = "neither is a drop beyond the margin of 3 points shown, nor that there is none; more cases or trials would tell"
    assert only(decide(*flips(0, 0, 50), Policy(margin=3))).reasons[0].text == text
    regressed = only(decide(*flips(90, 10, 900), Policy(margin=3))).reasons[0].text
    assert regressed.startswith(
        "the drop is larger than the margin of 3 points: more than chance explains: an app that is worse by the margin"
    )
    assert only(decide(*flips(0, 0, 10), Policy(margin=99))).why_unknown == "10 cases cannot show a drop beyond the margin"


def test_a_margin_without_anything_to_compare():
    suite = only(decide({}, passing(1), Policy(margin=3)))
    assert (suite.p_margin, suite.result) == (None, "undecided")


# Floors and limits


def test_a_floor_is_a_rule_over_all_cases_of_the_run():
    before = passing(*[1] * 6, *[0] * 4)
    assert decide(before, before, Policy(min_pass_rate=0.6)).result == "passed"
    assert texts(only(decide(before, before, Policy(min_pass_rate=0.61)))) == [
        "regressed by pass_rate: the pass rate is 60.0%, below its floor of 61.0%"
    ]
    with_new = {SUITE: {**before[SUITE], "new": case("new", 0), "off": case("off", 0, quarantined="later"), "lost": case("lost", 0, 0)}}
    assert only(decide(before, with_new, Policy(min_pass_rate=0.6))).reasons[0].text == "the pass rate is 54.5%, below its floor of 60.0%"
    unknown = only(decide({}, side(case("a", 0, 0)), Policy(min_pass_rate=0.6)))
    assert "undecided by pass_rate: the pass rate is not known, and its floor is 60.0%" in texts(unknown)


def measured(cost, latencies, count=10):
    return side(*(case(f"{number}", 1, cost_usd=cost, latencies_s=latencies) for number in range(count)))


def test_limits_on_cost_and_latency():
    policy = Policy(max_mean_cost_increase=0.2, max_p95_latency_increase=0.5)
    before = measured(0.001, (1.0, 2.0))
    assert decide(before, measured(0.0012, (1.0, 3.0)), policy).result == "passed"
    suite = only(decide(before, measured(0.0013, (1.0, 3.1)), policy))
    assert texts(suite) == [
        "regressed by cost: the mean cost of a trial rose from $0.001 to $0.0013 (+30.0%), its limit is +20.0%",
        "regressed by latency: the 95th percentile of latency rose from 2 s to 3.1 s (+55.0%), its limit is +50.0%",
    ]
    assert suite.cost_usd == Level(baseline=pytest.approx(0.001), run=pytest.approx(0.0013), cases=10, unknown=0)
    assert decide(before, measured(0.5, (9.0,))).result == "passed"


def test_limits_on_what_is_not_known_leave_a_suite_undecided():
    policy = Policy(max_mean_cost_increase=0.2, max_p95_latency_increase=0.5)
    suite = only(decide(measured(None, ()), measured(0.001, (1.0,)), policy))
    assert texts(suite) == [
        "undecided by cost: the mean cost of a trial is not known on both sides, and its limit is +20.0%",
        "undecided by latency: the 95th percentile of latency is not known on both sides, and its limit is +50.0%",
    ]
    assert suite.cost_usd == Level(baseline=None, run=None, cases=0, unknown=10)
    assert suite.p95_latency_s.increase is None


def test_levels_are_over_the_cases_that_both_sides_know():
    before, after = measured(0.1, (1.0,), 3), measured(0.1, (1.0,), 3)
    before[SUITE]["0"], after[SUITE]["1"] = case("0", 1, cost_usd=None), case("1", 1, cost_usd=0.9)
    suite = only(decide(before, after))
    assert suite.cost_usd == Level(baseline=pytest.approx(0.1), run=pytest.approx(0.5), cases=2, unknown=1)
    assert suite.p95_latency_s == Level(baseline=1.0, run=1.0, cases=1, unknown=2)


@pytest.mark.parametrize(("baseline", "run", "increase"), [(0.0, 0.0, 0.0), (0.0, 0.1, float("inf")), (0.2, 0.1, -0.5), (None, 0.1, None)])
def test_an_increase_over_nothing_has_no_size(baseline, run, increase):
    assert Level(baseline=baseline, run=run, cases=1, unknown=0).increase == increase


# Two stages, and stopping early


def test_suspicious_suites_are_those_worth_a_second_stage():
    assert suspicious(*flips(5, 1, 94)) == (SUITE,)
    assert suspicious(*flips(20, 1, 79)) == (SUITE,)
    assert suspicious(*flips(5, 4, 91)) == ()
    assert suspicious(*flips(5, 1, 94), policies={SUITE: Policy(suspicious=0.1)}) == ()
    assert suspicious({}, passing(1)) == ()
    # With a margin, only a fall beyond it.
    assert suspicious(*flips(5, 1, 94), Policy(margin=5)) == ()
    assert suspicious(*flips(15, 1, 84), Policy(margin=5)) == (SUITE,)


def test_a_suite_that_was_stopped_early_is_decided_by_its_e_value_alone():
    before, after = flips(11, 0, 10)
    e = stats.e_value(11, 0)
    suite = only(decide(before, after, early={SUITE: e}))
    assert (suite.result, suite.method, suite.p) == ("regressed", "e-process", pytest.approx(1 / e))
    assert only(decide(before, after, Policy(sided="two"), early={SUITE: e})).p == pytest.approx(2 / e)
    assert texts(only(decide(before, after, early={SUITE: 50.0}))) == []
    # What was left out has no verdict, and what came in behind may have got better.
    left_out = {SUITE: {**after[SUITE], **{f"{number:04}": case(f"{number:04}", 0, 0, not_run=1) for number in range(15, 21)}}}
    assert [reason.rule for reason in only(decide(before, left_out, early={SUITE: e})).reasons] == ["paired_test"]
    assert only(decide(*flips(1, 9, 0), early={SUITE: e})).result == "regressed"


def test_where_suites_may_be_stopped_early_the_test_in_the_end_has_half_of_alpha():
    assert only(decide(*flips(7, 0, 10))).result == "regressed"
    assert only(decide(*flips(7, 0, 10), early={})).result == "undecided"
    assert only(decide(*flips(8, 0, 10), early={})).result == "regressed"
    assert only(decide(*flips(8, 0, 10), policies={SUITE: Policy(alpha=0.005)}, early={})).policy.alpha == 0.0025


# How often it is wrong


def noisy(rng, states, trials):
    """Cases that pass or fail by their state, but for 5 % of their trials; a case is drawn anew in each trial."""
    return [sum(rng.random() < (0.95 if state else 0.05) for _ in range(trials)) for state in states]


def commits(count, drop, *, seed, stage2=0):
    """The decisions of so many simulated runs of 200 cases: one trial against a baseline of five, and a second stage where it is asked for."""
    rng = random.Random(seed)
    for _ in range(count):
        states = [rng.random() < 0.85 for _ in range(200)]
        # Of the passing states so many break that the pass rate falls by `drop`.
        now = [state and rng.random() >= drop / (0.85 * 0.9) for state in states]
        before, first = noisy(rng, states, 5), noisy(rng, now, 1)
        sides = passing(*before, trials=5), passing(*first)
        if stage2 and suspicious(*sides):
            more = noisy(rng, now, stage2)
            sides = sides[0], passing(*(one + other for one, other in zip(first, more, strict=True)), trials=1 + stage2)
        elif stage2:
            yield "passed"
            continue
        yield decide(*sides).result


def test_an_unchanged_noisy_app_over_200_commits_raises_false_alarms_at_most_at_the_promised_rate():
    assert sum(result == "regressed" for result in commits(200, 0, seed=1)) <= 2
    assert sum(result == "regressed" for result in commits(200, 0, seed=2, stage2=4)) <= 2


def test_a_drop_of_5_points_is_seen_at_the_promised_power():
    results = list(commits(120, 0.05, seed=3, stage2=4))
    assert sum(result == "regressed" for result in results) / 120 >= 0.65
    assert sum(result == "passed" for result in results) / 120 <= 0.15


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data is not at {DATA}")
@pytest.mark.parametrize(("baseline", "candidate", "worse", "better"), [("6b", "175b", 88, 260), ("175b", "6b", 260, 88)])
def test_two_published_models_on_real_questions(baseline, candidate, worse, better):
    def labels(model):
        rows = map(json.loads, (DATA / f"outputs.{model}_finetuning.jsonl").read_text(encoding="utf-8").splitlines())
        return {row["id"]: row["label_is_correct"] for row in rows}

    before, after = labels(baseline), labels(candidate)
    sides = [side(*(case(case_id, int(right)) for case_id, right in answers.items())) for answers in (before, after)]
    suite = only(decide(*sides, Policy(sided="two")))
    assert (suite.compared, suite.counts["worse"], suite.counts["better"]) == (1319, worse, better)
    assert suite.difference == pytest.approx((better - worse) / 1319)
    assert suite.p == pytest.approx(7.5e-21, rel=0.01)
    assert suite.result == ("passed" if better > worse else "regressed")
    assert {change.case_id for change in suite.worse} == {case_id for case_id in before if before[case_id] and not after[case_id]}
    assert only(decide(*sides)).result == suite.result


# As data, and in words


@st.composite
def any_side(draw):
    def one(case_id):
        trials = draw(st.integers(0, 3))
        return case(
            case_id,
            draw(st.integers(0, trials)),
            trials,
            errors=draw(st.integers(0, 1)),
            content_hash=draw(st.sampled_from(["", "x", "y"])),
            judges=draw(st.sampled_from([(), ("j",), ("k",)])),
            must_pass=draw(st.booleans()),
            quarantined=draw(st.sampled_from(["", "", "reason\x1b[2J"])),
            cost_usd=draw(st.sampled_from([None, 0.0, 0.1])),
            latencies_s=draw(st.sampled_from([(), (1.0,)])),
        )

    suites = draw(st.sets(st.sampled_from(["s", "t\x1b[2J"])))
    return {suite: {name: one(name) for name in draw(st.sets(st.sampled_from(["a", "b", "c\n\x1b[2J", "d"])))} for suite in suites}


POLICIES = st.builds(
    Policy,
    margin=st.sampled_from([0.0, 2.0, 99.0]),
    min_cases=st.sampled_from([1, 3]),
    min_pass_rate=st.sampled_from([None, 0.5]),
    max_mean_cost_increase=st.sampled_from([None, 0.1]),
    max_p95_latency_increase=st.sampled_from([None, 0.1]),
    sided=st.sampled_from(["one", "two"]),
    alpha=st.sampled_from([0.01, 0.2]),
)


@given(any_side(), any_side(), POLICIES)
def test_any_evidence_gives_a_decision_that_is_plain_data_and_safe_words(before, after, policy):
    decision = decide(before, after, policy)
    data = decision.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert not any(character in line for line in explain(decision) for character in "\x1b\n")
    assert [suite["suite"] for suite in data["suites"]] == list(dict.fromkeys([*after, *before]))
    for suite in decision.suites:
        assert suite.result == ("passed" if not suite.reasons else suite.reasons[0].effect)
        lost = [one for one in after.get(suite.suite, {}).values() if one.must_pass and one.passes < one.trials]
        assert bool(lost) == any(reason.rule == "must_pass" for reason in suite.reasons)
        gated = [one for one in suite.cases if not one.quarantined]
        assert sum(suite.counts.values()) == len(gated)


@given(any_side())
def test_the_same_evidence_on_both_sides_never_regresses_by_the_paired_test(same):
    decision = decide(same, same)
    assert not [reason for suite in decision.suites for reason in suite.reasons if reason.rule == "paired_test"]


def test_a_decision_as_data_holds_the_numbers_and_the_cases_that_are_not_simply_the_same():
    before, after = flips(12, 1, 187)
    after[SUITE]["0100"] = case("0100", 1, quarantined="later")
    data = decide(before, after, Policy(margin=1)).to_dict()
    assert (data["result"], data["fails"]) == ("regressed", True)
    suite = data["suites"][0]
    assert suite["policy"]["margin"] == 1
    assert suite["interval"]["method"] == "Tango"
    assert (suite["fell"], suite["rose"], suite["known"], suite["compared"]) == (12, 1, 0, 199)
    assert len(suite["cases"]) == 14
    assert suite["cases"][0] == {
        "case_id": "0000",
        "status": "worse",
        "baseline": {"passes": 1, "trials": 1, "unscored": 0, "errors": 0, "not_run": 0},
        "run": {"passes": 0, "trials": 1, "unscored": 0, "errors": 0, "not_run": 0},
        "difference": -1.0,
        "known": False,
        "flaky": False,
        "must_pass": False,
        "quarantined": "",
        "note": "",
    }
    assert decide({}, passing(1)).to_dict()["suites"][0]["cases"][0]["baseline"] is None


def test_the_words_of_a_regression():
    before, after = flips(12, 1, 187)
    before[SUITE]["0199"] = after[SUITE]["0199"] = case("0199", 0)
    after[SUITE]["new"], before[SUITE]["gone"] = case("new", 1), case("gone", 1)
    after[SUITE]["0198"] = case("0198", 0, quarantined="later")
    assert explain(decide(before, after), worst=2) == [
        f"{SUITE}: regressed: 12 of 199 cases got worse, 1 got better",
        "  more than chance explains: an unchanged app looks this bad in 1 of 585 runs (allowed are 1 of 100 runs)",
        "  pass rate 99.0% before, 93.5% now: -5.5 points (95% interval -9.8 to -2.4); p 0.0017 (exact McNemar, one-sided), alpha 0.01",
        "  a drop of about 5.8 points or more would have been seen 4 times of 5",
        "  worse: 0000 (1 of 1 before, 0 of 1 now)",
        "  worse: 0001 (1 of 1 before, 0 of 1 now)",
        "  worse: 10 more",
        "  known: 1 case failed before and fails again",
        "  not compared: 1 new, 1 removed, 1 quarantined",
    ]


def test_the_words_of_repeats_suites_and_margins():
    before, after = passing(*[5] * 29, 4, trials=5), passing(*[4] * 10, *[5] * 20, trials=5)
    (suite,) = decide(before, after).suites
    assert headline(suite) == "0 of 30 cases got worse, 0 got better, 11 are flaky (10 passed less often, 1 more often)"
    assert explain(decide(before, after), worst=0)[4] == "  worse: 10 cases"
    one = only(decide(passing(*[5] * 9, 4, trials=5), passing(*[5] * 10, trials=5)))
    assert headline(one) == "0 of 10 cases got worse, 0 got better, 1 is flaky (0 passed less often, 1 more often)"
    two = decide({"a": before[SUITE], "b": before[SUITE]}, {"a": after[SUITE], "b": before[SUITE]}, Policy(margin=2))
    assert explain(two)[0] == "undecided: of 2 suites 2 undecided"
    assert explain(decide(passing(1), {**passing(1), "hard": {"a": case("a", 0, must_pass=True)}}))[0] == (
        "regressed: of 2 suites 1 passed, 1 regressed"
    )
    numbers = explain(two)[3]
    assert ", for all suites" not in numbers
    assert f"p {two.suites[0].p:.2g}, {two.suites[0].p_adjusted:.2g} for all suites (Bonett-Price z, one-sided)" in numbers
    assert f", p {two.suites[0].p_margin:.2g} that it stays within 2 points, alpha 0.01" in numbers


def test_the_words_of_a_suite_with_nothing_to_compare_and_of_one_too_small():
    assert explain(decide({}, passing(1))) == [
        f"{SUITE}: undecided: no case can be compared with the baseline",
        "  there is no baseline of this suite; accept one with --snapshot-update",
        "  not compared: 1 new",
    ]
    assert explain(decide(*flips(0, 0, 3)))[2] == "  3 cases cannot show a drop: even if all got worse, that could be chance"


def test_the_words_of_a_certain_regression():
    assert "an unchanged app looks this bad in less than 1 of 1,000,000 runs" in explain(decide(*flips(60, 0, 0)))[1]
    # So many that the chance is no number any more.
    assert "less than 1 of 1,000,000 runs" in explain(decide(*flips(1200, 0, 0)))[1]


# Policies


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0}, "gate: alpha is 0; give a number between 0 and 1"),
        ({"margin": -1}, "gate: margin is -1; give points from 0 to less than 100"),
        ({"margin": 100}, "gate: margin is 100; give points from 0 to less than 100"),
        ({"min_cases": 0}, "gate: min_cases is 0; give a number of at least 1"),
        ({"min_pass_rate": 85}, "gate: min_pass_rate is 85; give a number from 0 to 1"),
        ({"max_mean_cost_increase": -0.1}, "gate: max_mean_cost_increase is -0.1; give a number of at least 0, such as 0.2 for 20 %"),
        ({"max_p95_latency_increase": -0.1}, "gate: max_p95_latency_increase is -0.1; give a number of at least 0, such as 0.2 for 20 %"),
        ({"sided": "both"}, "gate: sided is 'both'; give 'one' or 'two'"),
        ({"undecided": "pass"}, "gate: undecided is 'pass'; give 'warn' or 'fail'"),
        ({"alpha": 0.3}, "gate: suspicious is 0.2; give a number from alpha (0.3) to 1"),
        ({"alpha": float("nan")}, "gate: alpha is nan; give a number between 0 and 1"),
    ],
)
def test_policies_refuse_what_cannot_be_meant(fields, message):
    with pytest.raises(SettingsError) as raised:
        Policy(**fields)
    assert str(raised.value) == message
