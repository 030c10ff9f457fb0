"""From the evidence of two sides to a decision: passed, regressed or undecided.

Values in, values out: nothing here reads a file, draws at random or knows pytest. docs/explanation/gate.md says in words what is
decided, when and why.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, get_args

from pytest_touchstone import stats
from pytest_touchstone.errors import SettingsError
from pytest_touchstone.stats import Interval, Unknown
from pytest_touchstone.text import counted, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_touchstone.trial import TrialRecord

Result = Literal["passed", "regressed", "undecided"]
Status = Literal["same", "worse", "better", "flaky", "new", "removed", "changed_case", "changed_judge", "unscored"]
Sided = Literal["one", "two"]
OnUndecided = Literal["warn", "fail"]
Rule = Literal["must_pass", "paired_test", "margin", "pass_rate", "cost", "latency", "verdicts", "cases"]

COMPARED: tuple[Status, ...] = ("worse", "better", "same", "flaky")
LEVEL = 0.95
POWER = 0.8
LATENCY_PERCENTILE = 0.95
# From here on a fall or a rise is called worse or better, and not put down to a case that is flaky.
CLEAR = Fraction(1, 2)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one case on one side: the baseline's, or this run's.

    `trials` are those with a verdict, `passes` of them passed; trials that are unscored, an error or not run count apart, because
    nothing is known of them. `content_hash` is the case's, "" where it is not known. `judges` and `models` are sorted. `cost_usd` is the
    mean of a trial in US dollars, None where it is not known; `latencies_s` are those of trials, in seconds, as far as known.
    `quarantined` is the reason why the case is not gated, "" where it is.
    """

    case_id: str
    content_hash: str
    trials: int = 0
    passes: int = 0
    unscored: int = 0
    errors: int = 0
    not_run: int = 0
    tags: tuple[str, ...] = ()
    must_pass: bool = False
    judges: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    cost_usd: float | None = None
    latencies_s: tuple[float, ...] = ()
    quarantined: str = ""

    @property
    def rate(self) -> Fraction | None:
        """The pass rate, exactly; None without a trial that has a verdict."""
        return Fraction(self.passes, self.trials) if self.trials else None

    @property
    def flaky(self) -> bool:
        """Whether both outcomes were seen."""
        return 0 < self.passes < self.trials


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a suite is held to.

    `alpha`, in (0, 1): how often an unchanged app may be called regressed, over all suites of a run. `margin`: a drop of up to so many
    points (percentage points, 0 to less than 100) is accepted; 0 asks only that no drop is shown. `min_cases` (>= 1): with
    fewer comparable cases a suite is undecided. `sided`: `one` looks for drops alone, `two` halves `alpha` for them. `suspicious`, from
    `alpha` to 1: up to this p a fall is no mere chance, so it asks for a second stage, or leaves the suite undecided. `undecided`: whether
    an undecided suite warns or fails the run.

    Rules that are no estimates: `min_pass_rate`, in [0, 1], is a floor under the run's pass rate; `max_mean_cost_increase` and
    `max_p95_latency_increase` (>= 0) limit the increase over the baseline, 0.2 for 20 %. None: no rule.

    Raises:
        SettingsError: a value is out of its range.

    >>> Policy(alpha=1.5)
    Traceback (most recent call last):
    pytest_touchstone.errors.SettingsError: gate: alpha is 1.5; give a number between 0 and 1
    """

    alpha: float = 0.01
    margin: float = 0.0
    min_cases: int = 1
    min_pass_rate: float | None = None
    max_mean_cost_increase: float | None = None
    max_p95_latency_increase: float | None = None
    sided: Sided = "one"
    undecided: OnUndecided = "warn"
    suspicious: float = 0.20

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before a run is made for it."""
        increases = (self.max_mean_cost_increase, self.max_p95_latency_increase)
        allowed = (
            ("alpha", 0 < self.alpha < 1, "a number between 0 and 1"),
            ("margin", 0 <= self.margin < 100, "points from 0 to less than 100"),
            ("min_cases", self.min_cases >= 1, "a number of at least 1"),
            ("min_pass_rate", self.min_pass_rate is None or 0 <= self.min_pass_rate <= 1, "a number from 0 to 1"),
            ("max_mean_cost_increase", increases[0] is None or increases[0] >= 0, "a number of at least 0, such as 0.2 for 20 %"),
            ("max_p95_latency_increase", increases[1] is None or increases[1] >= 0, "a number of at least 0, such as 0.2 for 20 %"),
            ("sided", self.sided in get_args(Sided), "'one' or 'two'"),
            ("undecided", self.undecided in get_args(OnUndecided), "'warn' or 'fail'"),
            ("suspicious", self.alpha <= self.suspicious <= 1, f"a number from alpha ({self.alpha:g}) to 1"),
        )
        for name, right, wanted in allowed:
            if not right:
                msg = f"gate: {name} is {getattr(self, name)!r}; give {wanted}"
                raise SettingsError(msg)

    @property
    def alternative(self) -> stats.Alternative:
        """What the paired test looks for."""
        return "less" if self.sided == "one" else "two-sided"


@dataclass(frozen=True, kw_only=True)
class CaseChange:
    """How one case did on both sides; `before` or `after` is None where the case is on one side only.

    `worse` and `better`: the pass rate fell or rose by half or more. `flaky`: by less, and both outcomes were seen on a side. `same`:
    one outcome only, the same on both. `new` and `removed`: on one side only. `unscored`: no trial with a verdict on a side.
    `changed_case` (its content hash moved) and `changed_judge` are compared with nothing. `note` says what else there is to say.
    """

    case_id: str
    status: Status
    before: Evidence | None = None
    after: Evidence | None = None
    note: str = ""

    @cached_property
    def difference(self) -> Fraction | None:
        """The run's pass rate minus the baseline's, exactly; None where the two are not compared."""
        if self.status not in COMPARED or self.before is None or self.after is None:
            return None
        return Fraction(self.after.passes, self.after.trials) - Fraction(self.before.passes, self.before.trials)

    @property
    def known(self) -> bool:
        """Whether it never passed, neither in the baseline nor now."""
        return self.status == "same" and self.after is not None and not self.after.passes

    @property
    def flaky(self) -> bool:
        """Whether both outcomes were seen on a side, whatever the status."""
        return any(side is not None and side.flaky for side in (self.before, self.after))

    @property
    def quarantined(self) -> str:
        """Why the case is reported but not gated, "" where it is gated; this run's golden file says so, not the baseline."""
        return "" if self.after is None else self.after.quarantined

    @property
    def must_pass_failed(self) -> bool:
        """Whether it must pass, and failed at least once."""
        return self.after is not None and self.after.must_pass and self.after.passes < self.after.trials

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, ready for JSON."""
        return {
            "case_id": self.case_id,
            "status": self.status,
            "baseline": _counts(self.before),
            "run": _counts(self.after),
            "difference": _number(self.difference),
            "known": self.known,
            "flaky": self.flaky,
            "must_pass": self.after is not None and self.after.must_pass,
            "quarantined": self.quarantined,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A pass rate in [0, 1]: the mean over `cases` of each case's own rate, with Wilson's interval (level 0.95)."""

    rate: float
    cases: int
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Level:
    """A cost or latency on both sides, over the `cases` where both sides know it; `unknown` counts the others. None: no case knows it."""

    baseline: float | None
    run: float | None
    cases: int
    unknown: int

    @property
    def increase(self) -> float | None:
        """The increase as a part of the baseline's, 0.2 for 20 %; None where it is not known, infinite from 0 to more."""
        if self.baseline is None or self.run is None:
            return None
        if not self.baseline:
            return math.inf if self.run else 0.0
        return self.run / self.baseline - 1


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a suite is not passed: by which rule, to what effect, and in words."""

    rule: Rule
    effect: Literal["regressed", "undecided"]
    text: str


@dataclass(frozen=True, kw_only=True)
class SuiteDecision:
    """The decision on one suite, with its numbers.

    `cases` are all cases of both sides, worst first. Rates, difference and tests are over the `compared` ones: known on both sides,
    unchanged, not quarantined. `difference` is run minus baseline, in [-1, 1]. `p` tests for a drop (beyond the margin), `p_adjusted` is
    Holm's over the suites, `p_margin` tests that a drop stays within the margin (None where the margin is 0). `smallest_drop`, in [0, 1],
    is what the suite would see with a chance of 80 %. What is not known is None, and `why_unknown` says why.
    """

    suite: str
    result: Result
    reasons: tuple[Reason, ...]
    policy: Policy
    cases: tuple[CaseChange, ...]
    compared: int
    baseline_rate: Rate | None = None
    run_rate: Rate | None = None
    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    p_margin: float | None = None
    method: str = ""
    smallest_drop: float | None = None
    why_unknown: str = ""
    cost_usd: Level
    p95_latency_s: Level

    @cached_property
    def counts(self) -> dict[Status, int]:
        """How many cases have which status, quarantined ones left out; every status is there."""
        found = Counter(case.status for case in self.cases if not case.quarantined)
        return {status: found[status] for status in get_args(Status)}

    @property
    def fell(self) -> int:
        """How many compared cases passed less often than before, clearly or not."""
        return sum(1 for case in self._gated if case.difference and case.difference < 0)

    @property
    def rose(self) -> int:
        """How many compared cases passed more often than before, clearly or not."""
        return sum(1 for case in self._gated if case.difference and case.difference > 0)

    @property
    def worse(self) -> tuple[CaseChange, ...]:
        """The compared cases that passed less often than before, worst first."""
        return tuple(case for case in self._gated if case.difference and case.difference < 0)

    @property
    def known(self) -> tuple[CaseChange, ...]:
        """The compared cases that never passed, neither in the baseline nor now."""
        return tuple(case for case in self._gated if case.known)

    @property
    def quarantined(self) -> tuple[CaseChange, ...]:
        """The cases that are reported but not gated."""
        return tuple(case for case in self.cases if case.quarantined)

    @property
    def _gated(self) -> Iterable[CaseChange]:
        return (case for case in self.cases if case.difference is not None and not case.quarantined)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, ready for JSON; of the cases those that are not simply the same."""
        return {
            "suite": self.suite,
            "result": self.result,
            "reasons": [dataclasses.asdict(reason) for reason in self.reasons],
            "policy": dataclasses.asdict(self.policy),
            "compared": self.compared,
            "counts": self.counts,
            "fell": self.fell,
            "rose": self.rose,
            "known": len(self.known),
            "baseline_rate": _plain(self.baseline_rate),
            "run_rate": _plain(self.run_rate),
            "difference": self.difference,
            "interval": _plain(self.interval),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "p_margin": self.p_margin,
            "method": self.method,
            "smallest_drop": self.smallest_drop,
            "why_unknown": self.why_unknown,
            "cost_usd": dataclasses.asdict(self.cost_usd),
            "p95_latency_s": dataclasses.asdict(self.p95_latency_s),
            "cases": [case.to_dict() for case in self.cases if case.status != "same" or case.known or case.quarantined],
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The decision on a run: regressed if any suite is, else undecided if any suite is, else passed."""

    result: Result
    suites: tuple[SuiteDecision, ...]

    @property
    def fails(self) -> bool:
        """Whether the run is to fail: it regressed, or a suite is undecided whose policy says that this fails."""
        return any(
            suite.result == "regressed" or (suite.result == "undecided" and suite.policy.undecided == "fail") for suite in self.suites
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, ready for JSON."""
        return {"result": self.result, "fails": self.fails, "suites": [suite.to_dict() for suite in self.suites]}


# Evidence


def evidence(records: Iterable[TrialRecord]) -> dict[str, Evidence]:
    """What the trials of one suite add up to, by case id, in the order of the first trial of each case."""
    trials: dict[str, list[TrialRecord]] = {}
    for record in records:
        trials.setdefault(record.case_id, []).append(record)
    return {case_id: _evidence_of(case_id, of_case) for case_id, of_case in trials.items()}


def _evidence_of(case_id: str, records: Sequence[TrialRecord]) -> Evidence:
    outcomes = Counter(record.outcome for record in records)
    decided = [record for record in records if record.outcome in {"passed", "failed"}]
    calls = [[call for call in record.calls if call.role == "app"] for record in decided]
    costs = [_sum(call.cost_usd for call in of_trial) for of_trial in calls]
    latencies = [_sum(call.latency_s for call in of_trial) for of_trial in calls]
    return Evidence(
        case_id=case_id,
        content_hash=records[-1].content_hash,
        trials=len(decided),
        passes=outcomes["passed"],
        unscored=outcomes["unscored"],
        errors=outcomes["error"],
        not_run=outcomes["not_run"],
        tags=records[-1].tags,
        must_pass=any(record.must_pass for record in records),
        judges=tuple(sorted({score.judge for record in decided for score in record.scores if score.judge})),
        models=tuple(sorted({call.model for of_trial in calls for call in of_trial})),
        cost_usd=_mean(costs),
        latencies_s=tuple(latency for latency in latencies if latency is not None),
        quarantined=records[-1].quarantine,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """None where a part is not known, and where there is none: a call may have been made where nobody saw it."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if known and len(known) == len(found) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


# One case


def compare(before: Evidence | None, after: Evidence | None) -> CaseChange:
    """Hold a case's evidence of this run against that of its baseline.

    Raises:
        ValueError: there is no evidence on either side.

    >>> before = Evidence(case_id="late", content_hash="ab12", trials=5, passes=5)
    >>> compare(before, Evidence(case_id="late", content_hash="ab12", trials=1, passes=0)).status
    'worse'
    >>> compare(before, Evidence(case_id="late", content_hash="cd34", trials=1, passes=0)).status
    'changed_case'
    """
    if before is None:
        if after is None:
            msg = "there is no evidence on either side; give at least one"
            raise ValueError(msg)
        return CaseChange(case_id=after.case_id, status="new", after=after)
    if after is None:
        return CaseChange(case_id=before.case_id, status="removed", before=before)
    status, note = _status(before, after)
    return CaseChange(case_id=after.case_id, status=status, before=before, after=after, note=note)


def _status(before: Evidence, after: Evidence) -> tuple[Status, str]:
    before_rate, after_rate = before.rate, after.rate
    if after_rate is None:
        return "unscored", f"no verdict in this run: {_unknown_trials(after)}"
    if before_rate is None:
        return "unscored", f"no verdict in the baseline: {_unknown_trials(before)}"
    if before.content_hash and after.content_hash and before.content_hash != after.content_hash:
        return "changed_case", "the case itself changed"
    if _judged_differently(before, after):
        return "changed_judge", f"judged by {_judges(before)} before, by {_judges(after)} now"
    difference = after_rate - before_rate
    if abs(difference) >= CLEAR:
        return ("worse" if difference < 0 else "better"), ""
    return ("flaky" if before.flaky or after.flaky else "same"), ""


def _unknown_trials(side: Evidence) -> str:
    counts = (("an error", side.errors), ("unscored", side.unscored), ("not run", side.not_run))
    return ", ".join(f"{count} {name}" for name, count in counts if count) or "no trial"


def _judged_differently(before: Evidence, after: Evidence) -> bool:
    """A trial that failed before its judge was asked says nothing about the judge, so only a side with passes can lack one."""
    if before.judges and after.judges:
        return before.judges != after.judges
    lacking, judged = (before, after) if after.judges else (after, before)
    return bool(judged.judges) and lacking.passes > 0


def _judges(side: Evidence) -> str:
    return shorten(", ".join(side.judges)) if side.judges else "none"


# A run


def decide(
    baseline: Mapping[str, Mapping[str, Evidence]],
    run: Mapping[str, Mapping[str, Evidence]],
    policy: Policy | None = None,
    *,
    policies: Mapping[str, Policy] | None = None,
    early: Mapping[str, float] | None = None,
) -> Decision:
    """Decide on a run: evidence by suite and case id on both sides, the policy (and the suites' own, where they have one).

    `early` holds the e-values of suites that were stopped by `gate_early.EarlyStop`: their decision rests on the e-process alone, because
    no other test may be read at a moment of one's choosing. None: nobody would have stopped any; otherwise half of every alpha is spent on
    looking early. After a second stage, `run` is the evidence of all the trials of both stages.

    >>> def side(passes):
    ...     return {"refunds": {str(n): Evidence(case_id=str(n), content_hash="", trials=1, passes=int(n < passes)) for n in range(50)}}
    >>> decide(side(45), side(44)).result, decide(side(45), side(30)).result
    ('passed', 'regressed')
    """
    if early is not None:
        policy, policies = _halved(policy or Policy()), {suite: _halved(own) for suite, own in (policies or {}).items()}
    drafts = _drafts(baseline, run, policy, policies, early or {})
    tested = [draft for draft in drafts if draft.p is not None]
    adjusted = dict(zip((draft.suite for draft in tested), stats.holm([draft.p for draft in tested if draft.p is not None]), strict=True))
    suites = tuple(draft.decided(adjusted.get(draft.suite), len(tested)) for draft in drafts)
    results = {suite.result for suite in suites}
    result: Result = "regressed" if "regressed" in results else "undecided" if "undecided" in results else "passed"
    return Decision(result=result, suites=suites)


def suspicious(
    baseline: Mapping[str, Mapping[str, Evidence]],
    run: Mapping[str, Mapping[str, Evidence]],
    policy: Policy | None = None,
    *,
    policies: Mapping[str, Policy] | None = None,
) -> tuple[str, ...]:
    """The suites that need a second stage: they fell, with a p of at most the policy's `suspicious`.

    Every case of such a suite is to be tried again, not just those that got worse: a second look at those alone would not see a drop
    that is spread over many cases, and would forgive one that is not.
    """
    return tuple(draft.suite for draft in _drafts(baseline, run, policy, policies, {}) if draft.suspicious)


def early_share(policy: Policy) -> float:
    """What of alpha may be spent on calling a suite regressed while the run goes on: a half, or less where gains are tested for as well.

    The tests in the end have the other half: an unchanged app is called regressed by the one or the other in at most alpha of its runs.
    """
    return policy.alpha / (2 if policy.sided == "one" else 4)


def _halved(policy: Policy) -> Policy:
    return dataclasses.replace(policy, alpha=policy.alpha / 2)


def _drafts(
    baseline: Mapping[str, Mapping[str, Evidence]],
    run: Mapping[str, Mapping[str, Evidence]],
    policy: Policy | None,
    policies: Mapping[str, Policy] | None,
    early: Mapping[str, float],
) -> list[_Draft]:
    default, own = policy or Policy(), policies or {}
    return [
        _Draft(suite, baseline.get(suite, {}), run.get(suite, {}), own.get(suite, default), early.get(suite))
        for suite in dict.fromkeys([*run, *baseline])
    ]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A case that is compared."""

    before: Evidence
    after: Evidence
    difference: Fraction


class _Draft:
    """What one suite's own evidence says, before the other suites are known."""

    def __init__(
        self, suite: str, baseline: Mapping[str, Evidence], run: Mapping[str, Evidence], policy: Policy, early: float | None
    ) -> None:
        """Compare the cases."""
        self.suite, self.policy, self.early = suite, policy, early
        self.cases = sorted(
            (compare(baseline.get(case_id), run.get(case_id)) for case_id in dict.fromkeys([*run, *baseline])), key=_worst_first
        )
        self.pairs = [
            _Pair(before=case.before, after=case.after, difference=case.difference)
            for case in self.cases
            if case.before is not None and case.after is not None and case.difference is not None and not case.quarantined
        ]
        self.gated = [side for side in run.values() if not side.quarantined]
        self.differences = [pair.difference for pair in self.pairs]
        self.mean = float(sum(self.differences) / len(self.differences)) if self.differences else None

    @cached_property
    def test(self) -> stats.Test | Unknown:
        """The paired test."""
        return self._drop()

    @property
    def p(self) -> float | None:
        """The p-value of the paired test, None where there is nothing to test."""
        return None if isinstance(self.test, Unknown) else self.test.p

    @property
    def fell(self) -> bool:
        """Whether the run is below the baseline by more than the margin, by chance or not."""
        return self.mean is not None and self.mean < -self.policy.margin / 100

    @property
    def suspicious(self) -> bool:
        """Whether a second stage is worth its calls: of too few cases no number of trials would be enough."""
        return self._doubtful and not self._too_small(1)

    @property
    def _doubtful(self) -> bool:
        return self.fell and self.p is not None and self.p <= self.policy.suspicious

    @property
    def _once(self) -> bool:
        return all(pair.before.trials == pair.after.trials == 1 for pair in self.pairs)

    @property
    def _flips(self) -> tuple[int, int]:
        return sum(1 for difference in self.differences if difference < 0), sum(1 for difference in self.differences if difference > 0)

    def _drop(self) -> stats.Test | Unknown:
        """Test for a drop beyond the margin."""
        if not self.pairs:
            return Unknown(reason="no case can be compared with the baseline")
        alternative = self.policy.alternative
        if self.early is not None:
            p = min(1.0, (1 if self.policy.sided == "one" else 2) / self.early)
            return stats.Test(p=p, statistic=self.early, n=len(self.pairs), method="e-process", alternative=alternative)
        if self.policy.margin:
            return self._against_margin(alternative)
        found = [stats.sign_flip(self.differences, alternative=alternative)]
        if any(pair.before.trials != pair.after.trials for pair in self.pairs):
            # With unequal trials a difference is not symmetric where nothing changed, so flipped signs promise too much; permuting a
            # case's trials does not, but takes cases that moved both ways for free of noise. What both call a drop is one.
            counts = [(pair.before.passes, pair.before.trials, pair.after.passes, pair.after.trials) for pair in self.pairs]
            found.append(stats.within_case_permutation(counts, alternative=alternative))
        larger = max((test for test in found if isinstance(test, stats.Test)), key=lambda test: test.p)
        method = "exact McNemar" if self._once else larger.method if len(found) == 1 else f"{larger.method}, the larger p of two tests"
        return dataclasses.replace(larger, method=method)

    def _against_margin(self, alternative: stats.Alternative) -> stats.Test | Unknown:
        shift = -self.policy.margin / 100
        if self._once:
            return stats.tango_test(*self._flips, len(self.pairs), shift, alternative=alternative)
        return stats.mean_difference_test([float(difference) for difference in self.differences], shift, alternative=alternative)

    def decided(self, p_adjusted: float | None, tests: int) -> SuiteDecision:
        """The decision, once p is adjusted for the `tests` of all suites."""
        smallest = self._smallest_drop(tests)
        cost, latency = self._cost(), self._latency()
        p_margin = self._within_margin()
        reasons = [
            *self._must_pass(),
            *self._paired(p_adjusted, p_margin, tests),
            *self._floor(),
            *self._limit("cost", "the mean cost of a trial", cost, self.policy.max_mean_cost_increase),
            *self._limit("latency", "the 95th percentile of latency", latency, self.policy.max_p95_latency_increase),
            *self._verdicts(),
            *self._enough(),
        ]
        reasons.sort(key=lambda reason: reason.effect != "regressed")
        effects = {reason.effect for reason in reasons}
        return SuiteDecision(
            suite=self.suite,
            result="regressed" if "regressed" in effects else "undecided" if effects else "passed",
            reasons=tuple(reasons),
            policy=self.policy,
            cases=tuple(self.cases),
            compared=len(self.pairs),
            baseline_rate=_rate([pair.before for pair in self.pairs]),
            run_rate=_rate([pair.after for pair in self.pairs]),
            difference=self.mean,
            interval=self._interval(),
            p=self.p,
            p_adjusted=p_adjusted,
            p_margin=p_margin,
            method="" if isinstance(self.test, Unknown) else self.test.method,
            smallest_drop=None if isinstance(smallest, Unknown) else smallest,
            why_unknown="; ".join(dict.fromkeys(found.reason for found in (self.test, smallest) if isinstance(found, Unknown))),
            cost_usd=cost,
            p95_latency_s=latency,
        )

    def _interval(self) -> Interval | None:
        if self._once:
            return stats.tango(*self._flips, len(self.pairs), level=LEVEL) or None
        return stats.mean_difference([float(difference) for difference in self.differences], level=LEVEL) or None

    def _within_margin(self) -> float | None:
        if not self.policy.margin:
            return None
        test = self._against_margin("greater")
        return test.p if test else None

    def _smallest_drop(self, tests: int) -> float | Unknown:
        # Of several suites the first must pass Holm's strictest step.
        alpha, alternative, n = self.policy.alpha / max(1, tests), self.policy.alternative, len(self.pairs)
        if self._once or self._too_small(tests):
            noise = min(1 - stats.TIE, 2 * min(self._flips) / n) if n else 0.0
            found = stats.smallest_drop_flips(n, noise=noise, alpha=alpha, power=POWER, alternative=alternative)
        else:
            _, error = stats.adjusted_mean([float(difference) for difference in self.differences])
            found = stats.smallest_drop_means(error, alpha=alpha, power=POWER, alternative=alternative)
        if isinstance(found, Unknown) or found + self.policy.margin / 100 <= 1:
            return found if isinstance(found, Unknown) else found + self.policy.margin / 100
        return Unknown(reason=f"{n} cases cannot show a drop beyond the margin")

    def _too_small(self, tests: int) -> bool:
        """Whether not even a suite in which every case got worse would count as regressed."""
        return len(self.pairs) < stats.smallest_certain_flips(self.policy.alpha / max(1, tests), self.policy.alternative)

    def _must_pass(self) -> Iterable[Reason]:
        if failed := [case.case_id for case in self.cases if case.must_pass_failed]:
            text = f"{counted(len(failed), 'case')} that must pass failed: {_names(failed)}"
            yield Reason(rule="must_pass", effect="regressed", text=text)

    def _paired(self, p_adjusted: float | None, p_margin: float | None, tests: int) -> Iterable[Reason]:
        if self.p is None or p_adjusted is None:
            return
        margin = f"{self.policy.margin:g} points"
        if (self.fell or self.early is not None) and p_adjusted <= self.policy.alpha:
            beyond = f"the drop is larger than the margin of {margin}: " if self.policy.margin else ""
            yield Reason(rule="paired_test", effect="regressed", text=f"{beyond}more than chance explains: {self._chance(p_adjusted)}")
        elif self.early is not None:
            return
        elif self.policy.margin:
            if p_margin is None or p_margin > self.policy.alpha:
                text = f"neither is a drop beyond the margin of {margin} shown, nor that there is none; more cases or trials would tell"
                yield Reason(rule="margin", effect="undecided", text=text)
        elif self.fell and self._too_small(tests):
            all_ = f"all {len(self.pairs):,}" if len(self.pairs) > 1 else "it"
            text = f"too few cases to tell: even if {all_} got worse, that could be chance"
            yield Reason(rule="paired_test", effect="undecided", text=text)
        elif self._doubtful:
            text = f"that may be chance, or not: {self._chance(self.p)}; more cases or trials would tell"
            yield Reason(rule="paired_test", effect="undecided", text=text)

    def _chance(self, p: float) -> str:
        limit = "" if p > self.policy.alpha else f" (allowed are {_once_in(self.policy.alpha)})"
        app = "an unchanged app" if not self.policy.margin else "an app that is worse by the margin"
        looks = "looks this bad" if self.policy.sided == "one" else "moves this far"
        return f"{app} {looks} in {_once_in(p)}{limit}"

    def _floor(self) -> Iterable[Reason]:
        floor = self.policy.min_pass_rate
        if floor is None:
            return
        rate = _rate([side for side in self.gated if side.trials])
        if rate is None:
            yield Reason(rule="pass_rate", effect="undecided", text=f"the pass rate is not known, and its floor is {floor:.1%}")
        elif rate.rate < floor:
            yield Reason(rule="pass_rate", effect="regressed", text=f"the pass rate is {rate.rate:.1%}, below its floor of {floor:.1%}")

    def _limit(self, rule: Rule, name: str, level: Level, limit: float | None) -> Iterable[Reason]:
        if limit is None:
            return
        increase = level.increase
        if increase is None:
            text = f"{name} is not known on both sides, and its limit is +{limit:.1%}"
            yield Reason(rule=rule, effect="undecided", text=text)
        elif increase > limit:
            unit = ("$", "") if rule == "cost" else ("", " s")
            sides = " to ".join(f"{unit[0]}{side:.4g}{unit[1]}" for side in (level.baseline, level.run) if side is not None)
            text = f"{name} rose from {sides} ({increase:+.1%}), its limit is +{limit:.1%}"
            yield Reason(rule=rule, effect="regressed", text=text)

    def _verdicts(self) -> Iterable[Reason]:
        if self.early is not None:
            return  # they were left out on purpose
        lacking = [
            case.case_id
            for case in self.cases
            if case.after is not None
            and not case.after.trials
            and not case.quarantined
            and (case.after.must_pass or (case.before is not None and case.before.trials))
        ]
        if lacking:
            n = len(lacking)
            text = f"{counted(n, 'case')} that the baseline knows or that must pass {_have(n)} no verdict: {_names(lacking)}"
            yield Reason(rule="verdicts", effect="undecided", text=text)

    def _enough(self) -> Iterable[Reason]:
        n = len(self.pairs)
        if n >= self.policy.min_cases:
            return
        if all(case.before is None for case in self.cases):
            text = "there is no baseline of this suite; accept one with --snapshot-update"
        else:
            wanted = f"{self.policy.min_cases:,} {'is' if self.policy.min_cases == 1 else 'are'} wanted"
            text = f"{counted(n, 'case')} can be compared with the baseline, and {wanted}"
        yield Reason(rule="cases", effect="undecided", text=text)

    def _cost(self) -> Level:
        both = [
            (pair.before.cost_usd, pair.after.cost_usd)
            for pair in self.pairs
            if pair.before.cost_usd is not None and pair.after.cost_usd is not None
        ]
        before, after = _mean([before for before, _ in both]), _mean([after for _, after in both])
        return Level(baseline=before, run=after, cases=len(both), unknown=len(self.pairs) - len(both))

    def _latency(self) -> Level:
        both = [pair for pair in self.pairs if pair.before.latencies_s and pair.after.latencies_s]
        sides = [pair.before.latencies_s for pair in both], [pair.after.latencies_s for pair in both]
        before, after = (stats.percentile((latency for of_case in side for latency in of_case), LATENCY_PERCENTILE) for side in sides)
        return Level(baseline=before, run=after, cases=len(both), unknown=len(self.pairs) - len(both))


def _worst_first(case: CaseChange) -> tuple[bool, float, bool, str]:
    difference = case.difference
    return difference is None, float(difference or 0), not case.must_pass_failed, case.case_id


def _rate(sides: Sequence[Evidence]) -> Rate | None:
    passed = float(sum(side.rate for side in sides if side.rate is not None))
    interval = stats.wilson(passed, len(sides), level=LEVEL)
    return Rate(rate=passed / len(sides), cases=len(sides), interval=interval) if isinstance(interval, Interval) else None


# In words


def _names(case_ids: Sequence[str], most: int = 5) -> str:
    more = len(case_ids) - most
    names = [shorten(case_id) for case_id in case_ids[:most]]
    return ", ".join([*names, f"{more:,} more"] if more > 0 else names)


def _once_in(p: float) -> str:
    runs = 1 / p if p else math.inf
    return f"1 of {round(runs):,} runs" if runs < 1_000_000 else "less than 1 of 1,000,000 runs"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


# As plain data


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _plain(value: Rate | Interval | None) -> dict[str, Any] | None:
    return None if value is None else dataclasses.asdict(value)


def _counts(side: Evidence | None) -> dict[str, int] | None:
    if side is None:
        return None
    return {name: getattr(side, name) for name in ("passes", "trials", "unscored", "errors", "not_run")}
