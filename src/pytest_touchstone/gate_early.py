"""Stopping a suite early as regressed, while its run goes on, without breaking the promise of alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_touchstone import stats
from pytest_touchstone.gate import Policy, compare, early_share, evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_touchstone.gate import Evidence
    from pytest_touchstone.trial import TrialRecord


class EarlyStop:
    """Watches the flips of every suite, and says when those of one are enough.

    A bet at fair odds stays fair only where it is settled before later ones are placed, so the cases of a suite are looked at in the order
    in which they were planned, and none before those ahead of it are done: which tests end first depends on how they end. Only cases with
    as many trials on one side as on the other bear witness, and only where no margin is set. The promise of `early_share`, which is a half
    of alpha, is kept over all suites of the baseline; the tests in the end have the other half.
    Sources: as of `stats.e_value`; that every look at the fixed order is covered at once is Ville's inequality.
    """

    def __init__(
        self, baseline: Mapping[str, Mapping[str, Evidence]], planned: Iterable[TrialRecord], policies: Mapping[str, Policy]
    ) -> None:
        """Watch nothing yet; `planned` are the records of every trial of the run before it runs, in the order in which they are planned."""
        trials: dict[str, dict[str, set[str]]] = {}
        for record in planned:
            if record.suite in baseline:
                trials.setdefault(record.suite, {}).setdefault(record.case_id, set()).add(record.nodeid)
        self._suites = {
            suite: _Watched(baseline[suite], of_suite, policies.get(suite, Policy()), len(baseline)) for suite, of_suite in trials.items()
        }

    def add(self, record: TrialRecord) -> float | None:
        """Take a finished trial; the e-value of its suite where that is to be stopped now, None otherwise and ever after."""
        watched = self._suites.get(record.suite)
        e = None if watched is None else watched.add(record)
        if e is not None:
            del self._suites[record.suite]
        return e


class _Watched:
    def __init__(self, baseline: Mapping[str, Evidence], trials: Mapping[str, set[str]], policy: Policy, suites: int) -> None:
        self._baseline = baseline
        self._missing = {case_id: set(nodeids) for case_id, nodeids in trials.items()}
        self._done: dict[str, list[TrialRecord]] = {case_id: [] for case_id in trials}
        self._order = iter(list(trials))
        self._next = next(self._order, None)
        self._worse = self._better = 0
        self._enough = None if policy.margin else suites / early_share(policy)

    def add(self, record: TrialRecord) -> float | None:
        missing = self._missing.get(record.case_id, set())
        if self._enough is None or record.nodeid not in missing:
            return None
        missing.remove(record.nodeid)
        self._done[record.case_id].append(record)
        while self._next is not None and not self._missing[self._next]:
            sign = self._sign(self._next)
            self._next = next(self._order, None)
            self._worse, self._better = self._worse + (sign < 0), self._better + (sign > 0)
            if sign < 0 and (e := stats.e_value(self._worse, self._better)) >= self._enough:
                return e
        return None

    def _sign(self, case_id: str) -> int:
        change = compare(self._baseline.get(case_id), evidence(self._done.pop(case_id))[case_id])
        before, after, difference = change.before, change.after, change.difference
        if difference is None or change.quarantined or before is None or after is None or before.trials != after.trials:
            return 0
        return (difference > 0) - (difference < 0)
