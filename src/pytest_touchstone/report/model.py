"""What a run's trials add up to: counts, rates, calls, tokens and cost, by suite and by tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_touchstone.trial import Call, Role, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What calls cost, in US dollars.

    `usd` sums the prices that are known, and is None where there are calls and none has a known price; `unpriced` calls are not
    in it, for the `reasons` given, each once, in order of appearance.
    """

    usd: float | None = 0.0
    unpriced: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Calls, tokens and cost summed.

    `input_tokens` and `output_tokens` sum what is known and are None where there are calls and nothing is known; `uncounted` says
    how many calls they leave out. `paid` is the cost of the calls that were made in this run, `replayed` what the others
    cost when they were recorded.
    """

    calls: int = 0
    replays: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    uncounted: int = 0
    paid: Cost = Cost()
    replayed: Cost = Cost()

    @property
    def cost(self) -> Cost:
        """What all the calls cost, whenever that was paid."""
        return _cost_of_parts([(self.paid, self.calls - self.replays), (self.replayed, self.replays)])


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The trials of one group (a suite, or a tag within it), counted by outcome; the counts add up to `trials`."""

    name: str
    trials: int
    passed: int
    failed: int
    error: int
    unscored: int
    not_run: int
    app: Totals
    judge: Totals
    teacher: Totals = Totals()

    @property
    def pass_rate(self) -> float | None:
        """Passed of those that passed or failed, in [0, 1]; None when there are none of either."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None


@dataclass(frozen=True, kw_only=True)
class SuiteTally:
    """One suite: all its trials, and those of each tag."""

    suite: Tally
    tags: tuple[Tally, ...]


def summarize(records: Sequence[TrialRecord]) -> list[SuiteTally]:
    """Tally the records by suite, in order of first appearance, and by tag within it, in alphabetical order."""
    suites: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        suites[record.suite].append(record)
    return [SuiteTally(suite=tally(name, members), tags=_by_tag(members)) for name, members in suites.items()]


def tally(name: str, records: Sequence[TrialRecord]) -> Tally:
    """Count records by outcome and sum up their calls."""
    outcomes = Counter(record.outcome for record in records)
    calls = [call for record in records for call in record.calls]
    return Tally(
        name=name,
        trials=len(records),
        passed=outcomes["passed"],
        failed=outcomes["failed"],
        error=outcomes["error"],
        unscored=outcomes["unscored"],
        not_run=outcomes["not_run"],
        app=totals(calls, "app"),
        judge=totals(calls, "judge"),
        teacher=totals(calls, "teacher"),
    )


def totals(calls: Iterable[Call], role: Role) -> Totals:
    """Sum the calls that one role made."""
    sums = _Sums()
    for call in calls:
        if call.role == role:
            sums.add(call)
    return sums.totals()


def combined(parts: Iterable[Totals]) -> Totals:
    """The totals of several groups of calls that have none in common."""
    groups = list(parts)
    calls, uncounted = sum(group.calls for group in groups), sum(group.uncounted for group in groups)
    counted = calls > uncounted or not calls
    return Totals(
        calls=calls,
        replays=sum(group.replays for group in groups),
        input_tokens=sum(group.input_tokens or 0 for group in groups) if counted else None,
        output_tokens=sum(group.output_tokens or 0 for group in groups) if counted else None,
        uncounted=uncounted,
        paid=_cost_of_parts([(group.paid, group.calls - group.replays) for group in groups]),
        replayed=_cost_of_parts([(group.replayed, group.replays) for group in groups]),
    )


@dataclass(kw_only=True)
class _CostSum:
    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    reasons: dict[str, None] = field(default_factory=dict[str, None])

    def add(self, call: Call) -> None:
        self.calls += 1
        if call.cost_usd is None:
            self.unpriced += 1
            if call.cost_reason:
                self.reasons[call.cost_reason] = None
        else:
            self.usd += call.cost_usd

    def cost(self) -> Cost:
        return _cost(self.usd, self.unpriced, self.calls, self.reasons)


@dataclass(kw_only=True)
class _Sums:
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    paid: _CostSum = field(default_factory=_CostSum)
    replayed: _CostSum = field(default_factory=_CostSum)

    def add(self, call: Call) -> None:
        (self.replayed if call.replayed else self.paid).add(call)
        read, written = call.usage.input_tokens, call.usage.output_tokens
        if read is None or written is None:
            self.uncounted += 1
        else:
            self.input_tokens += read
            self.output_tokens += written

    def totals(self) -> Totals:
        calls = self.paid.calls + self.replayed.calls
        counted = calls > self.uncounted or not calls
        return Totals(
            calls=calls,
            replays=self.replayed.calls,
            input_tokens=self.input_tokens if counted else None,
            output_tokens=self.output_tokens if counted else None,
            uncounted=self.uncounted,
            paid=self.paid.cost(),
            replayed=self.replayed.cost(),
        )


def _cost_of_parts(parts: Sequence[tuple[Cost, int]]) -> Cost:
    """The cost of groups of calls, each given with how many calls it has."""
    reasons = {reason: None for cost, _ in parts for reason in cost.reasons}
    usd, unpriced = sum(cost.usd or 0.0 for cost, _ in parts), sum(cost.unpriced for cost, _ in parts)
    return _cost(usd, unpriced, sum(calls for _, calls in parts), reasons)


def _cost(usd: float, unpriced: int, calls: int, reasons: Iterable[str]) -> Cost:
    return Cost(usd=usd if calls > unpriced or not calls else None, unpriced=unpriced, reasons=tuple(reasons))


def _by_tag(records: Sequence[TrialRecord]) -> tuple[Tally, ...]:
    tagged: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        for tag in dict.fromkeys(record.tags):
            tagged[tag].append(record)
    return tuple(tally(tag, members) for tag, members in sorted(tagged.items()))
