"""What several trials of a case say: how often at least one passes, how often all do, and which cases waver."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_touchstone.report.terminal import Line
from pytest_touchstone.text import counted, listed, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_touchstone.gate import Evidence
    from pytest_touchstone.trial import TrialRecord

NAMED = 5


def repeat_lines(records: Iterable[TrialRecord], *, every: bool = False) -> list[Line]:
    """One line for each suite whose cases were tried several times, nothing for others: pass@k, pass^k, and the flaky cases.

    k is the number of trials with a verdict, the smallest of those of the suite's cases; cases with fewer than two are left out. The most
    unsteady flaky cases are named, all of them with `every`.
    """
    suites: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        suites[record.suite].append(record)
    repeated = {suite: of_suite for suite, of_suite in suites.items() if any(record.number > 1 for record in of_suite)}
    return [Line("", text) for suite, of_suite in repeated.items() for text in _suite_line(suite, of_suite, every=every)]


def _suite_line(suite: str, records: Sequence[TrialRecord], *, every: bool) -> Iterator[str]:
    from pytest_touchstone.gate import evidence
    from pytest_touchstone.stats import pass_at_k, pass_hat_k

    tried = [case for case in evidence(records).values() if case.trials > 1]
    if not tried:
        return
    least, most = min(case.trials for case in tried), max(case.trials for case in tried)
    # With at least k trials of each case, both are known.
    some, all_ = (fmean(float(of_k(case.trials, case.passes, least) or 0) for case in tried) for of_k in (pass_at_k, pass_hat_k))
    times = f"{least}" if least == most else f"{least} to {most}"
    count = counted(len(tried), "case")
    yield f"{shorten(suite)}: {count} tried {times} times: pass@{least} {some:.1%}, pass^{least} {all_:.1%}; {_flaky(tried, every=every)}"


def _flaky(tried: Sequence[Evidence], *, every: bool) -> str:
    flaky = sorted((case for case in tried if case.flaky), key=lambda case: abs(2 * case.passes - case.trials) / case.trials)
    if not flaky:
        return "none is flaky"
    named = [f"{shorten(case.case_id)} ({case.passes} of {case.trials})" for case in flaky]
    return f"{len(flaky):,} flaky: {listed(named, len(named) if every else NAMED)}"
