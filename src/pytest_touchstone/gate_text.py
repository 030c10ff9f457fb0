"""A decision in words, for reviewers who know no statistics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, get_args

from pytest_touchstone.gate import Result
from pytest_touchstone.text import counted, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_touchstone.gate import CaseChange, Decision, Status, SuiteDecision
    from pytest_touchstone.stats import Interval


def explain(decision: Decision, *, worst: int = 10) -> list[str]:
    """The decision as lines of plain text for a reviewer who knows no statistics; each suite's numbers stand in a line of their own.

    Of several suites, the first line says how many are what.
    Of the cases that got worse, `worst` (>= 0) are named for each suite. Nothing in the lines acts on a terminal.

    >>> from pytest_touchstone.gate import Evidence, decide
    >>> def side(passes):
    ...     return {"refunds": {str(n): Evidence(case_id=str(n), content_hash="", trials=1, passes=int(n < passes)) for n in range(50)}}
    >>> for line in explain(decide(side(45), side(30)), worst=1):
    ...     print(line)
    refunds: regressed: 15 of 50 cases got worse, 0 got better
      more than chance explains: an unchanged app looks this bad in 1 of 32,768 runs (allowed are 1 of 100 runs)
      pass rate 90.0% before, 60.0% now: -30.0 points (95% interval -43.8 to -19.1); p 3.1e-05 (exact McNemar, one-sided), alpha 0.01
      a drop of about 19.0 points or more would have been seen 4 times of 5
      worse: 30 (1 of 1 before, 0 of 1 now)
      worse: 14 more
      known: 5 cases failed before and fail again
    """
    return [line for _, line in told(decision, worst=worst)]


def told(decision: Decision, *, worst: int = 10) -> Iterator[tuple[Result | None, str]]:
    """The lines of `explain`, each headline with the result that it says, other lines with None."""
    if len(decision.suites) > 1:
        results = Counter(suite.result for suite in decision.suites)
        counts = ", ".join(f"{results[result]:,} {result}" for result in get_args(Result) if results[result])
        yield decision.result, f"{decision.result}: of {len(decision.suites):,} suites {counts}"
    for suite in decision.suites:
        yield suite.result, f"{shorten(suite.suite)}: {suite.result}: {headline(suite)}"
        yield from ((None, line) for line in _details(suite, worst))


def _details(suite: SuiteDecision, worst: int) -> Iterator[str]:
    yield from (f"  {reason.text}" for reason in suite.reasons)
    if suite.baseline_rate and suite.run_rate and suite.difference is not None and suite.interval:
        sides = f"pass rate {suite.baseline_rate.rate:.1%} before, {suite.run_rate.rate:.1%} now"
        yield f"  {sides}: {_points(suite.difference)} points ({_interval_text(suite.interval)}); {_test_text(suite)}"
    if suite.smallest_drop is not None:
        yield f"  a drop of about {suite.smallest_drop * 100:.1f} points or more would have been seen 4 times of 5"
    elif suite.compared:
        yield f"  {suite.why_unknown}"
    named = suite.worse[:worst]
    yield from (f"  worse: {shorten(case.case_id)} ({_sides(case)})" for case in named)
    if more := len(suite.worse) - len(named):
        yield f"  worse: {more:,} more" if named else f"  worse: {counted(more, 'case')}"
    if suite.known:
        yield f"  known: {counted(len(suite.known), 'case')} failed before and {'fails' if len(suite.known) == 1 else 'fail'} again"
    if aside := _aside(suite):
        yield f"  not compared: {aside}"


def headline(suite: SuiteDecision) -> str:
    """How many cases of a suite got worse and better, in words."""
    if not suite.compared:
        return "no case can be compared with the baseline"
    counts = suite.counts
    text = f"{counts['worse']:,} of {counted(suite.compared, 'case')} got worse, {counts['better']:,} got better"
    if not counts["flaky"]:
        return text
    less, more = suite.fell - counts["worse"], suite.rose - counts["better"]
    return f"{text}, {counts['flaky']:,} {'is' if counts['flaky'] == 1 else 'are'} flaky ({less:,} passed less often, {more:,} more often)"


def _test_text(suite: SuiteDecision) -> str:
    adjusted = "" if suite.p_adjusted in {None, suite.p} else f", {suite.p_adjusted:.2g} for all suites"
    margin = "" if suite.p_margin is None else f", p {suite.p_margin:.2g} that it stays within {suite.policy.margin:g} points"
    return f"p {suite.p:.2g}{adjusted} ({suite.method}, {suite.policy.sided}-sided){margin}, alpha {suite.policy.alpha:g}"


def _interval_text(interval: Interval) -> str:
    return f"{interval.level:.0%} interval {_points(interval.low)} to {_points(interval.high)}"


def _points(difference: float) -> str:
    return f"{difference * 100:+.1f}"


def _sides(case: CaseChange) -> str:
    sides = ((case.before, "before"), (case.after, "now"))
    return ", ".join(f"{side.passes} of {side.trials} {when}" for side, when in sides if side is not None)


def _aside(suite: SuiteDecision) -> str:
    names: dict[Status, str] = {
        "new": "new",
        "removed": "removed",
        "changed_case": "changed",
        "changed_judge": "judged by another judge",
        "unscored": "without a verdict",
    }
    parts = [f"{suite.counts[status]:,} {name}" for status, name in names.items() if suite.counts[status]]
    quarantined = suite.quarantined
    return ", ".join([*parts, f"{len(quarantined):,} quarantined"] if quarantined else parts)
