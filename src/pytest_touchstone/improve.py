"""From the evidence before and after training to a verdict: promoted or refused.

Values in, values out, by the tests of the gate; docs/how-to/improve.md says in words what is decided, when and why.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pytest_touchstone import stats
from pytest_touchstone.errors import SettingsError
from pytest_touchstone.gate import CLEAR, CaseChange, Evidence, Policy, compare, decide, evidence
from pytest_touchstone.stats import Interval
from pytest_touchstone.text import counted, listed, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_touchstone.gate import Decision, Rate, SuiteDecision
    from pytest_touchstone.settings import Split
    from pytest_touchstone.trial import Outcome, TrialRecord

VerdictResult = Literal["promoted", "refused"]
RefusalRule = Literal["cases", "gain", "loss", "forgetting", "must_pass", "verdicts"]
Suites: TypeAlias = Mapping[str, Mapping[str, Evidence]]

NAMED = 5
OFTEN = 0.2  # the gate's: up to this p, a fall is worth a word


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy:
    """What a tuned model is held to.

    `alpha`, in (0, 1): how often a model that did not get better on holdout may seem to have, over all suites; the same bound holds for
    each of the two looks for losses. `max_forgetting`: of what passed before, so many points (percentage points, 0 to less than 100) may
    fail afterwards; it is above 0 by default because some of what passed once passed by luck.

    Raises:
        SettingsError: a value is out of its range.
    """

    alpha: float = 0.01
    max_forgetting: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is trained for it."""
        if not 0 < self.alpha < 1:
            msg = f"improve: alpha is {self.alpha!r}; give a number between 0 and 1"
            raise SettingsError(msg)
        if not 0 <= self.max_forgetting < 100:
            msg = f"improve: max_forgetting is {self.max_forgetting!r}; give points from 0 to less than 100"
            raise SettingsError(msg)

    def gate(self) -> Policy:
        """The same for the gate."""
        return Policy(alpha=self.alpha, suspicious=max(OFTEN, self.alpha))


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is known of one model: evidence by suite and case id, the split of each case, and what became of every trial."""

    suites: Suites
    splits: Mapping[tuple[str, str], Split]
    outcomes: Mapping[Outcome, int] = dataclasses.field(default_factory=dict[Any, int])

    @classmethod
    def of(cls, records: Iterable[TrialRecord]) -> Side:
        """The side that a run's trials make."""
        by_suite: dict[str, list[TrialRecord]] = {}
        splits: dict[tuple[str, str], Split] = {}
        outcomes: Counter[Outcome] = Counter()
        for record in records:
            by_suite.setdefault(record.suite, []).append(record)
            splits[record.suite, record.case_id] = record.split
            outcomes[record.outcome] += 1
        return cls(suites={suite: evidence(of_suite) for suite, of_suite in by_suite.items()}, splits=splits, outcomes=outcomes)

    def part(self, splits: Mapping[tuple[str, str], Split], split: Split) -> Suites:
        """The evidence of the cases that `splits` puts into `split`; suites without one are left out."""
        found = {
            suite: {case_id: case for case_id, case in cases.items() if splits.get((suite, case_id)) == split}
            for suite, cases in self.suites.items()
        }
        return {suite: cases for suite, cases in found.items() if cases}


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How the holdout cases of one suite did: the gate's paired test, looking for a rise instead of a drop.

    `compared` cases are known on both sides; rates, `difference` (after minus before, in [-1, 1]) and `interval` are theirs. `p_adjusted`
    is Holm's over the suites. `smallest` is the gain, in [0, 1], that would have been seen 4 times of 5. What is not known is None.
    """

    suite: str
    compared: int
    before: Rate | None
    after: Rate | None
    difference: float | None
    interval: Interval | None
    p: float | None
    p_adjusted: float | None
    method: str
    smallest: float | None
    why_unknown: str

    def significant(self, alpha: float) -> bool:
        """Whether there is a gain that chance does not explain."""
        return self.difference is not None and self.difference > 0 and self.p_adjusted is not None and self.p_adjusted <= alpha

    @classmethod
    def of(cls, turned: SuiteDecision) -> Gain:
        """What the gate says with the sides exchanged."""
        interval = turned.interval
        return cls(
            suite=turned.suite,
            compared=turned.compared,
            before=turned.run_rate,
            after=turned.baseline_rate,
            difference=None if turned.difference is None else 0 - turned.difference,  # no difference is not -0.0
            interval=interval and Interval(low=0 - interval.high, high=0 - interval.low, level=interval.level, method=interval.method),
            p=turned.p,
            p_adjusted=turned.p_adjusted,
            method=turned.method,
            smallest=turned.smallest_drop,
            why_unknown=turned.why_unknown.replace("drop", "gain").replace("got worse", "got better"),
        )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of the cases of one part that passed before, in at least half of their trials.

    `lost` of the `compared` (>= 1) ones pass in less than half of their trials now; `interval` is that of the rate of loss (level 0.95).
    `p` is the exact binomial test's that more is lost than may be, `p_adjusted` Holm's over the parts. No paired test: what is chosen
    because it passed cannot get better, so flips go one way only.
    """

    part: str
    compared: int
    lost: int
    interval: Interval
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a model is refused: by which rule, and in words."""

    rule: RefusalRule
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the tuned model takes the place of the one before, with the numbers that say why.

    `gains` are of the holdout cases of each suite. `parts` is the gate's decision on all cases of each suite and split, in a suite called
    `SUITE SPLIT`; `kept` is what became of those that passed before. `notes` are to be known, but refuse nothing.
    """

    result: VerdictResult
    reasons: tuple[Refusal, ...]
    notes: tuple[str, ...]
    policy: PromotionPolicy
    gains: tuple[Gain, ...]
    parts: Decision
    kept: tuple[Kept, ...]
    before: Mapping[Outcome, int]
    after: Mapping[Outcome, int]

    @cached_property
    def fixed(self) -> tuple[tuple[str, CaseChange], ...]:
        """The cases that pass more often, each with its suite and split."""
        return tuple(pair for pair in self._compared if pair[1].difference is not None and pair[1].difference > 0)

    @cached_property
    def broken(self) -> tuple[tuple[str, CaseChange], ...]:
        """The cases that pass less often, each with its suite and split."""
        return tuple(pair for pair in self._compared if pair[1].difference is not None and pair[1].difference < 0)

    @property
    def _compared(self) -> Iterator[tuple[str, CaseChange]]:
        return ((part.suite, case) for part in self.parts.suites for case in part.cases if not case.quarantined)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, ready for JSON."""
        return {
            "result": self.result,
            "reasons": [dataclasses.asdict(reason) for reason in self.reasons],
            "notes": list(self.notes),
            "policy": dataclasses.asdict(self.policy),
            "holdout": [dataclasses.asdict(gain) for gain in self.gains],
            "parts": self.parts.to_dict(),
            "passed_before": [dataclasses.asdict(kept) for kept in self.kept],
            "trials": {"before": dict(self.before), "after": dict(self.after)},
            "fixed": [{"part": part, "case_id": case.case_id} for part, case in self.fixed],
            "broken": [{"part": part, "case_id": case.case_id} for part, case in self.broken],
        }


def promote(before: Side, after: Side, policy: PromotionPolicy | None = None) -> Verdict:
    """Decide whether the tuned model (`after`) is promoted over the one it was made from (`before`).

    It is promoted if holdout shows a significant gain in at least one suite, no part (a suite's holdout or train cases) shows a
    significant drop, no part has lost significantly more than `max_forgetting` of what passed before, and no case that must pass failed;
    and if all this holds even were every case that lost its verdict a failed one. Whatever is not so is among the reasons.

    >>> def side(passes):
    ...     cases = {str(n): Evidence(case_id=str(n), content_hash="", trials=1, passes=int(n < passes)) for n in range(50)}
    ...     return Side(suites={"triage": cases}, splits={("triage", case_id): "holdout" for case_id in cases})
    >>> promote(side(30), side(45)).result
    'promoted'
    >>> [reason.rule for reason in promote(side(30), side(32)).reasons]
    ['gain']
    """
    policy = policy or PromotionPolicy()
    splits = _splits(before, after)
    draft = _Draft(before, after, splits, policy)
    reasons = list(draft.reasons())
    lost = _lost_verdicts(before, after)
    notes = list(draft.notes())
    if lost:
        have = "has" if len(lost) == 1 else "have"
        left = f"{counted(len(lost), 'case')} that had a verdict before {have} none that counts now: {_names(lost)}"
        worst = list(_Draft(before, _with_failures(before, after, lost), splits, policy).reasons())
        if not reasons and worst:
            reasons.append(Refusal(rule="verdicts", text=f"{left}; if {_they(len(lost))} failed: {worst[0].text}"))
        else:
            notes.append(left)
    return Verdict(
        result="refused" if reasons else "promoted",
        reasons=tuple(reasons),
        notes=tuple(notes),
        policy=policy,
        gains=draft.gains,
        parts=draft.parts,
        kept=draft.kept,
        before=before.outcomes,
        after=after.outcomes,
    )


def hopeless(before: Side, policy: PromotionPolicy | None = None) -> Refusal | None:
    """Why no model whatsoever could be promoted, to be asked before one is trained; None where one could.

    >>> cases = {str(n): Evidence(case_id=str(n), content_hash="", trials=1, passes=int(n < 3)) for n in range(9)}
    >>> side = Side(suites={"triage": cases}, splits={("triage", case_id): "holdout" for case_id in cases})
    >>> print(hopeless(side).text.partition("; ")[0])
    too few holdout cases fail to tell a gain from chance: 9 can be compared and 6 of them fail
    """
    policy = policy or PromotionPolicy()
    holdout = before.part(before.splits, "holdout")
    cases = [case for of_suite in holdout.values() for case in of_suite.values() if case.trials and not case.quarantined]
    if not cases:
        return Refusal(rule="cases", text="no holdout case has a verdict, and nothing else measures a gain")
    best = _gains(holdout, _changed(holdout, lambda case: dataclasses.replace(case, passes=case.trials)), policy)
    if any(gain.significant(policy.alpha) for gain in best):
        return None
    failing = sum(1 for case in cases if case.passes < case.trials)
    counts = f"{len(cases):,} can be compared and {failing:,} of them {'fails' if failing == 1 else 'fail'}"
    p = min((gain.p_adjusted for gain in best if gain.p_adjusted is not None), default=1.0)
    best_text = f"even if all were mended, an unchanged model looks this good in {_once_in(p)} (allowed are {_once_in(policy.alpha)})"
    return Refusal(rule="cases", text=f"too few holdout cases fail to tell a gain from chance: {counts}; {best_text}")


def untried(before: Side, reason: Refusal, policy: PromotionPolicy | None = None) -> Verdict:
    """The verdict where no model was trained, because none could have been promoted."""
    policy = policy or PromotionPolicy()
    draft = _Draft(before, Side(suites={}, splits={}), before.splits, policy)
    return Verdict(
        result="refused",
        reasons=(reason,),
        notes=("nothing was trained",),
        policy=policy,
        gains=draft.gains,
        parts=draft.parts,
        kept=draft.kept,
        before=before.outcomes,
        after={},
    )


class _Draft:
    """What the evidence says when every trial is taken as it is."""

    def __init__(self, before: Side, after: Side, splits: Mapping[tuple[str, str], Split], policy: PromotionPolicy) -> None:
        """Look for a gain on holdout, for a drop anywhere, and for what passed before."""
        self.before, self.policy = before, policy
        self.gains = _gains(before.part(splits, "holdout"), after.part(splits, "holdout"), policy)
        old, new = _parts(before, splits), _parts(after, splits)
        self.parts = decide(old, new, policy.gate())
        self.kept = _kept(self.parts, policy)

    def reasons(self) -> Iterator[Refusal]:
        """Every reason to refuse."""
        if (none := hopeless(self.before, self.policy)) is not None:
            yield none
        elif not any(gain.significant(self.policy.alpha) for gain in self.gains):
            yield Refusal(
                rule="gain", text=f"no significant gain on holdout: {'; '.join(map(gain_text, self.gains)) or 'nothing to compare'}"
            )
        for part in self.parts.suites:
            if any(reason.rule == "paired_test" and reason.effect == "regressed" for reason in part.reasons):
                yield Refusal(rule="loss", text=f"{shorten(part.suite)} got worse: {_drop_text(part)}")
        for kept in self.kept:
            if kept.p_adjusted <= self.policy.alpha:
                allowed = f"more than the {self.policy.max_forgetting:g} in 100 that are allowed"
                yield Refusal(rule="forgetting", text=f"it forgot {allowed}: {kept_text(kept)}")
        failed = [case.case_id for part in self.parts.suites for case in part.cases if case.must_pass_failed]
        if failed:
            yield Refusal(rule="must_pass", text=f"{counted(len(failed), 'case')} that must pass failed: {_names(failed)}")

    def notes(self) -> Iterator[str]:
        """What to know besides."""
        for part in self.parts.suites:
            if part.p is not None and (part.difference or 0) < 0 and part.result == "undecided":
                yield f"{shorten(part.suite)} may have got worse, or not: {_drop_text(part)}"
        for kept in self.kept:
            if kept.lost and kept.p_adjusted > self.policy.alpha and kept.interval.high * 100 > self.policy.max_forgetting:
                lost = f"{kept.interval.high:.1%}"
                yield f"{shorten(kept.part)}: of what passed before, up to {lost} may be forgotten (95% interval); more cases would tell"


# Sides


def _splits(before: Side, after: Side) -> dict[tuple[str, str], Split]:
    """The split of each case; one that is train on any side is no holdout case, because it may have been trained on."""
    merged: dict[tuple[str, str], Split] = {**after.splits, **before.splits}
    return {case: "train" if "train" in {before.splits.get(case), after.splits.get(case)} else split for case, split in merged.items()}


def _parts(side: Side, splits: Mapping[tuple[str, str], Split]) -> dict[str, Mapping[str, Evidence]]:
    found: dict[str, Mapping[str, Evidence]] = {}
    for suite in side.suites:
        for split in ("holdout", "train"):
            if cases := side.part(splits, split).get(suite):
                found[f"{suite} {split}"] = cases
    return found


def _gains(before: Suites, after: Suites, policy: PromotionPolicy) -> tuple[Gain, ...]:
    turned = decide(after, before, policy.gate())
    order = {suite: place for place, suite in enumerate(dict.fromkeys([*before, *after]))}
    return tuple(Gain.of(suite) for suite in sorted(turned.suites, key=lambda suite: order[suite.suite]))


def _passed(case: Evidence) -> bool:
    return case.rate is not None and case.rate >= CLEAR


def _kept(parts: Decision, policy: PromotionPolicy) -> tuple[Kept, ...]:
    found: list[Kept] = []
    for part in parts.suites:
        now = [
            case.after
            for case in part.cases
            if case.difference is not None and not case.quarantined and case.before and _passed(case.before)
        ]
        lost = sum(1 for case in now if case is not None and not _passed(case))
        test, interval = stats.binomial_excess(lost, len(now), policy.max_forgetting / 100), stats.clopper_pearson(lost, len(now))
        if test and interval:
            found.append(Kept(part=part.suite, compared=len(now), lost=lost, interval=interval, p=test.p, p_adjusted=test.p))
    adjusted = stats.holm([kept.p for kept in found])
    return tuple(dataclasses.replace(kept, p_adjusted=p) for kept, p in zip(found, adjusted, strict=True))


def _lost_verdicts(before: Side, after: Side) -> list[tuple[str, str]]:
    """The cases, suite and id, that could be compared by what is known of them before, and cannot be by what is known now."""
    return [
        (suite, case_id)
        for suite, cases in before.suites.items()
        for case_id, case in cases.items()
        if case.trials and not case.quarantined and _is_lost(compare(case, after.suites.get(suite, {}).get(case_id)))
    ]


def _is_lost(change: CaseChange) -> bool:
    return change.difference is None and not change.quarantined


def _with_failures(before: Side, after: Side, cases: Iterable[tuple[str, str]]) -> Side:
    suites = {suite: dict(of_suite) for suite, of_suite in after.suites.items()}
    for suite, case_id in cases:
        suites.setdefault(suite, {})[case_id] = dataclasses.replace(before.suites[suite][case_id], passes=0)
    return dataclasses.replace(after, suites=suites)


def _changed(suites: Suites, change: Callable[[Evidence], Evidence]) -> Suites:
    return {suite: {case_id: change(case) for case_id, case in cases.items()} for suite, cases in suites.items()}


# In words


def gain_text(gain: Gain) -> str:
    """The numbers of one suite's holdout in a line."""
    if gain.before is None or gain.after is None or gain.difference is None:
        return f"{shorten(gain.suite)}: {gain.why_unknown}"
    interval = f" ({interval_text(gain.interval)})" if gain.interval else ""
    rates = f"{gain.before.rate:.1%} before, {gain.after.rate:.1%} after, {gain.difference * 100:+.1f} points{interval}"
    seen = "" if gain.smallest is None else f"; a gain of about {gain.smallest * 100:.1f} points or more would have been seen 4 times of 5"
    return f"{shorten(gain.suite)}: {counted(gain.compared, 'case')}, {rates}; {_p_text(gain.p, gain.p_adjusted, gain.method)}{seen}"


def kept_text(kept: Kept) -> str:
    """What became of the cases of a part that passed before, in a line.

    >>> interval = Interval(low=0.187, high=0.813, level=0.95, method="Clopper-Pearson")
    >>> kept_text(Kept(part="triage train", compared=10, lost=5, interval=interval, p=6.4e-05, p_adjusted=0.00013))
    'triage train: 5 of 10 cases that passed before fail now (95% interval 18.7% to 81.3%); p 6.4e-05, 0.00013 for all together (exact \
binomial, one-sided)'
    """
    interval = f"{kept.interval.level:.0%} interval {kept.interval.low:.1%} to {kept.interval.high:.1%}"
    counts = f"{kept.lost:,} of {counted(kept.compared, 'case')} that passed before {'fails' if kept.lost == 1 else 'fail'} now"
    return f"{shorten(kept.part)}: {counts} ({interval}); {_p_text(kept.p, kept.p_adjusted, 'exact binomial')}"


def interval_text(interval: Interval) -> str:
    """An interval of a difference of rates, in points.

    >>> interval_text(Interval(low=0.05, high=0.2, level=0.95, method="Tango"))
    '95% interval +5.0 to +20.0'
    """
    return f"{interval.level:.0%} interval {interval.low * 100:+.1f} to {interval.high * 100:+.1f}"


def _drop_text(part: SuiteDecision) -> str:
    if part.baseline_rate is None or part.run_rate is None or part.difference is None:  # pragma: no cover - a part with a p has them
        return part.why_unknown
    interval = f" ({interval_text(part.interval)})" if part.interval else ""
    rates = f"{part.baseline_rate.rate:.1%} before, {part.run_rate.rate:.1%} after, {part.difference * 100:+.1f} points{interval}"
    return f"{counted(part.compared, 'case')}, {rates}; {_p_text(part.p, part.p_adjusted, part.method)}"


def _p_text(p: float | None, adjusted: float | None, method: str) -> str:
    if p is None:
        return "no test"
    for_all = "" if adjusted in {None, p} else f", {adjusted:.2g} for all together"
    return f"p {p:.2g}{for_all} ({method}, one-sided)"


def _once_in(p: float) -> str:
    return f"1 of {round(1 / p):,} runs" if p else "next to no run"


def _they(count: int) -> str:
    return "it" if count == 1 else "they"


def _names(cases: Iterable[str] | Iterable[tuple[str, str]]) -> str:
    return listed([shorten(case if isinstance(case, str) else case[1]) for case in cases], NAMED)
